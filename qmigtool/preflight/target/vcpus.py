"""The sections that a target has once for each vCPU, made as many as its vCPUs are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qmigtool.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qmigtool.preflight.target.model import Target, TargetSection
    from qmigtool.stream.model import Stream

__all__ = ["MAX_VCPUS", "NUMBERED", "VCPU_SECTIONS", "vcpus_of", "with_vcpus"]

VCPU_SECTIONS = ("cpu_common", "cpu", "apic")
"""In the order in which they are registered; the instance is the vCPU's number, that of ``apic`` its APIC ID."""

NUMBERED = ("cpu_common", "cpu")
"""Those of them whose instance is the vCPU's number, on every architecture."""
MAX_VCPUS = 4096  # no machine type of QEMU 11.1 takes more
Sections = dict[tuple[str, int], "TargetSection"]


def vcpus_of(stream: Stream) -> set[int]:
    """Return the numbers of the vCPUs that a stream has, of whatever architecture."""
    return {device.instance_id for device in stream.devices if device.name in NUMBERED}


def with_vcpus(target: Target) -> Target:
    """Give a target the sections of as many vCPUs as it has.

    A reference shows how those of one vCPU look; what it has of more vCPUs is not there, what it lacks is taken to be
    like its last. Sections that no stream has shown are left alone: somebody has written them down. The APIC IDs of
    vCPUs that are added are taken to have no gaps. Raises :class:`~qmigtool.errors.UsageError` where the reference's
    own have.
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
    how = evidence.get("vcpus", "what is known of its vCPUs")
    evidence["sections"] = f"{evidence.get('sections', '')}; for {target.vcpus} vCPUs: {how}"
    return replace(target, sections=sections, evidence=evidence)


def _fit(sections: Sections, name: str, count: int) -> bool:
    """Make the sections of one name as many as the vCPUs; return whether anything has changed."""
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
    """Return the instances of this name that a stream has shown, in order."""
    return sorted(key[1] for key, section in sections.items() if key[0] == name and section.template is not None)
