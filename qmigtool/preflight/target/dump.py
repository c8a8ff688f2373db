"""Output of ``qemu-system-x86_64 -M MACHINE -dump-vmstate FILE``: every VMStateDescription of a device type.

It has minimum versions and all subsections, which no stream contains. It lacks vmsds that belong to no device type:
``cpu`` and its subsections, ``timer``, ``PCIBUS`` and others (:mod:`.builds` has those of some QEMU versions). Its
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
    """Return the target of a parsed ``-dump-vmstate``; raises :class:`~qmigtool.errors.StreamError` if malformed."""
    dump = vmstate_dump(document)
    if dump.machine is None or not dump.devices:
        raise StreamError("no machine type or no device", section=SECTION, expected="the output of QEMU")
    vmsds: dict[str, TargetVmsd] = {}
    for device in dump.devices:
        for found, vmsd in _walk(device.description):
            vmsds[found] = join_vmsds(vmsds.get(found), vmsd)
    how = f"{name}, -dump-vmstate of {dump.machine}"
    return Target(name=name, machine=dump.machine, vmsds=vmsds, evidence={"machine": how, "vmsds": how})


def join_vmsds(old: TargetVmsd | None, new: TargetVmsd) -> TargetVmsd:
    """Join two descriptions of one name in one QEMU: a property in which they differ is unknown."""
    if old is None or old == new:
        return new
    return TargetVmsd(
        old.version if old.version == new.version else None,
        old.minimum_version if old.minimum_version == new.minimum_version else None,
        old.subsections | new.subsections,
        old.field_versions if old.field_versions == new.field_versions else None,
    )


def _walk(description: DumpDescription) -> Iterator[tuple[str, TargetVmsd]]:
    """Yield a description, those of its structs and those of its subsections."""
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
