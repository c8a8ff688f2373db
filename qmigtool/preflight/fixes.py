"""What mends each kind of refusal.

:data:`PLANNERS` maps the rule of a :class:`~qmigtool.preflight.predict.Verdict` to a function of the stream as it is
by then, the target and the verdict. It compares stream and target itself: a verdict says what QEMU met first, and one
fix may take all of its kind away.

==============  =========================================================
fix             one fix: edits, or options of QEMU
fixes_header    machine type, configuration, capabilities, UUID, commands
fixes_sections  sections and subsections
fixes_memory    RAM blocks and records
fixes_pci       configuration spaces, virtqueues
==============  =========================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qmigtool.preflight import fixes_header, fixes_memory, fixes_pci, fixes_sections

if TYPE_CHECKING:
    from qmigtool.preflight.fix import Fix
    from qmigtool.preflight.predict import Verdict
    from qmigtool.preflight.target import Target
    from qmigtool.stream import Stream

__all__ = ["PLANNERS", "Planner"]

Planner = Callable[["Stream", "Target", "Verdict"], "Fix | None"]

PLANNERS: dict[str, Planner] = {
    "machine-type": fixes_header.machine,
    "configuration-missing": fixes_header.configuration,
    "section-type": fixes_header.section_type,
    "footer-missing": fixes_header.footer,
    "capability": fixes_header.capability,
    "unknown-capability": fixes_header.unknown_capability,
    "uuid": fixes_header.uuid,
    "unknown-section": fixes_sections.unknown_section,
    "unknown-subsection": fixes_sections.subsection,
    "version-too-new": fixes_sections.subsection_version,
    "version-too-old": fixes_sections.subsection_version,
    "unknown-block": fixes_memory.unknown_block,
    "block-size": fixes_memory.block_size,
    "block-too-large": fixes_memory.block_size,
    "pci-config": fixes_pci.pci_config,
    "virtqueue-size": fixes_pci.queue_size,
    "record-flags": fixes_memory.as_records,
    "record-compressed": fixes_memory.as_records,
    "record-fill": fixes_memory.as_records,
    "record-hook": fixes_memory.as_records,
    "command": fixes_header.command,
    "command-length": fixes_header.command,
    "colo": fixes_header.command,
    "ping": fixes_header.command,
    "recv-bitmap": fixes_header.command,
    "advise-disabled": fixes_header.advise,
    "advise-enabled": fixes_header.advise,
    "advise-pages": fixes_header.advise,
    "advise-target-page": fixes_header.advise,
    "postcopy-state": fixes_header.command,
    "tsc-frequency": fixes_sections.tsc,
}
"""Rule of a verdict -> what plans a fix of it. A rule that is missing has none."""
