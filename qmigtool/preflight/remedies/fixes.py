"""The fix of each kind of refusal.

:data:`PLANNERS` maps the rule of a :class:`~.predict.Verdict` to a function of the stream with the edits so far, the
target and the verdict. It compares stream and target itself: a verdict contains only the first error, and one fix can
remove all errors of its kind.

========  =========================================================
fix       one fix: edits, or options of QEMU
header    machine type, configuration, footers, capabilities, UUID, commands
sections  vCPUs, sections and subsections
memory    RAM blocks and records
pci       configuration spaces, virtqueues
bodyfields  fields that only the stream or only the target has: tried where the length of a device's body differs
mainmemory  which blocks may hold the guest's memory
offered   which options the target's QEMU has
========  =========================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qmigtool.preflight.remedies import header, memory, pci, sections

if TYPE_CHECKING:
    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.preflight.remedies.fix import Fix
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream.model import Stream

__all__ = ["PLANNERS", "Planner"]

Planner = Callable[["Stream", "Target", "Verdict"], "Fix | None"]

PLANNERS: dict[str, Planner] = {
    "machine-type": header.machine,
    "configuration-missing": header.configuration,
    "section-type": header.section_type,
    "footer-missing": header.footer,
    "capability": header.capability,
    "unknown-capability": header.unknown_capability,
    "uuid": header.uuid,
    "unknown-section": sections.unknown_section,
    "unknown-subsection": sections.subsection,
    "version-too-new": sections.subsection_version,
    "version-too-old": sections.subsection_version,
    "unknown-block": memory.unknown_block,
    "block-size": memory.block_size,
    "block-too-large": memory.block_size,
    "pci-config": pci.pci_config,
    "virtqueue-size": pci.queue_size,
    "record-flags": memory.as_records,
    "record-compressed": memory.as_records,
    "record-fill": memory.as_records,
    "record-hook": memory.as_records,
    "command": header.command,
    "command-length": header.command,
    "colo": header.command,
    "ping": header.command,
    "recv-bitmap": header.command,
    "advise-disabled": header.advise,
    "advise-enabled": header.advise,
    "advise-pages": header.advise,
    "advise-target-page": header.advise,
    "postcopy-state": header.command,
    "tsc-frequency": sections.tsc,
    "runstate": sections.run_state,
}
"""Rule of a verdict -> function that plans its fix. A rule that is missing has no fix."""
