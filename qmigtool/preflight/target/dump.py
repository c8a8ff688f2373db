"""What ``qemu-system-x86_64 -M MACHINE -dump-vmstate FILE`` prints: every VMStateDescription of a device type.

It has minimum versions and all subsections, which no stream shows. It lacks what belongs to no device type: ``cpu`` and
its subsections, ``timer``, ``PCIBUS`` and the like (:mod:`.builds` knows those of some QEMUs). Its
keys are names of device types, which do not occur in a stream; the names of the descriptions do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qmigtool.errors import StreamError
from qmigtool.parsers.vmstatedump import DumpDescription, vmstate_dump
from qmigtool.preflight.target.model import Target, TargetVmsd

__all__ = ["join_vmsds", "target_from_dump"]

SECTION = "-dump-vmstate"


def target_from_dump(document: dict[str, Any], name: str) -> Target:
    """Return what a parsed ``-dump-vmstate`` says; raises :class:`~qmigtool.errors.StreamError` if it is none."""
    dump = vmstate_dump(document)
    if dump.machine is None or not dump.devices:
        raise StreamError("there is no machine type or no device", section=SECTION, expected="what QEMU writes")
    vmsds: dict[str, TargetVmsd] = {}
    for device in dump.devices:
        for found, vmsd in _walk(device.description):
            vmsds[found] = join_vmsds(vmsds.get(found), vmsd)
    how = f"{name}, -dump-vmstate of {dump.machine}"
    return Target(name=name, machine=dump.machine, vmsds=vmsds, evidence={"machine": how, "vmsds": how})


def join_vmsds(old: TargetVmsd | None, new: TargetVmsd) -> TargetVmsd:
    """Join two descriptions of one name in one QEMU: in what they disagree, nothing is known."""
    if old is None or old == new:
        return new
    return TargetVmsd(
        old.version if old.version == new.version else None,
        old.minimum_version if old.minimum_version == new.minimum_version else None,
        old.subsections | new.subsections,
        old.field_versions if old.field_versions == new.field_versions else None,
    )


def _walk(description: DumpDescription) -> Iterator[tuple[str, TargetVmsd]]:
    """Give a description, those of its structs and those of its subsections."""
    yield (
        description.name,
        TargetVmsd(
            description.version_id,
            description.minimum_version_id,
            frozenset(one.name for one in description.subsections),
            {field.name: field.version_id for field in description.fields},
        ),
    )
    for one in description.subsections:
        yield from _walk(one)
    for field in description.fields:
        if field.description is not None:
            yield from _walk(field.description)
