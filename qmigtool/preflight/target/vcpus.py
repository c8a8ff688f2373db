"""The sections that a target has for each vCPU, adjusted to its number of vCPUs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qmigtool.errors import UsageError
from qmigtool.x86.lapic import LAPIC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qmigtool.preflight.target.model import Target, TargetSection
    from qmigtool.stream.model import Stream

__all__ = ["MAX_VCPUS", "NUMBERED", "VCPU_SECTIONS", "vcpus_of", "with_vcpus"]

VCPU_SECTIONS = ("cpu_common", "cpu", LAPIC)
"""In the order of registration; the instance is the vCPU's number, that of ``apic`` its APIC ID."""

NUMBERED = ("cpu_common", "cpu")
"""The sections whose instance is the vCPU's number, on every architecture."""
MAX_VCPUS = 4096  # no machine type of QEMU 11.1 accepts more
Sections = dict[tuple[str, int], "TargetSection"]


def vcpus_of(stream: Stream) -> set[int]:
    """Return the numbers of the vCPUs of a stream, on every architecture."""
    return {device.instance_id for device in stream.devices if device.name in NUMBERED}


def with_vcpus(target: Target) -> Target:
    """Add or remove sections until the target has those of all its vCPUs.

    Sections of a reference for more vCPUs are removed; missing ones are assumed to be like those of its last vCPU.
    Sections that come from no stream are not changed: the user wrote them. The APIC IDs of added vCPUs are assumed to
    have no gaps. Raises :class:`~qmigtool.errors.UsageError` if those of the reference have gaps.
    """
    if target.sections is None or target.vcpus is None:
        return target
    sections: Sections = dict(target.sections)
    changed = False
    for name in VCPU_SECTIONS:
        changed |= _fit(sections, name, target.vcpus)
    if not changed:
        return target
    evidence = dict(target.evidence)
    how = evidence.get("vcpus", "its known vCPUs")
    evidence["sections"] = f"{evidence.get('sections', '')}; for {target.vcpus} vCPUs: {how}"
    return replace(target, sections=sections, evidence=evidence)


def _fit(sections: Sections, name: str, count: int) -> bool:
    """Make the number of sections of one name equal to the number of vCPUs; return whether anything has changed."""
    shown = _shown(sections, name)
    if not shown or len(shown) == count:
        return False
    for instance in shown[count:]:
        del sections[name, instance]
    if count > len(shown):
        if shown != list(range(len(shown))):
            raise UsageError(
                f"the APIC IDs of {count} vCPUs are not known: the reference's {len(shown)} have gaps",
                expected=f"a reference with {count} vCPUs",
            )
        like = sections[name, shown[-1]]
        for instance in range(len(shown), count):
            sections.setdefault((name, instance), like)
    return True


def _shown(sections: Mapping[tuple[str, int], TargetSection], name: str) -> list[int]:
    """Return the instances of this name that come from a stream, in order."""
    return sorted(key[1] for key, section in sections.items() if key[0] == name and section.template is not None)
