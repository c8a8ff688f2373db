"""What ``qemu-system-x86_64 -M MACHINE -dump-vmstate FILE`` prints: every VMStateDescription of a device type.

It has minimum versions and all subsections, which no stream shows. It lacks what belongs to no device type: ``cpu`` and
its subsections, ``timer``, ``PCIBUS`` and the like (:mod:`.builds` knows those of some QEMUs). Its
keys are names of device types, which do not occur in a stream; the names of the descriptions do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qmigtool.errors import LimitError, StreamError
from qmigtool.preflight.target.model import Target, TargetVmsd

__all__ = ["MACHINE_KEY", "join_vmsds", "target_from_dump"]

MACHINE_KEY = "vmschkmachine"
"""The key that has the machine type; no device type is called so."""

SECTION = "-dump-vmstate"
MAX_DEPTH = 64  # the deepest seen is 8
MAX_VERSION = 1 << 31


def target_from_dump(document: dict[str, Any], name: str) -> Target:
    """Return what a parsed ``-dump-vmstate`` says; raises :class:`~qmigtool.errors.StreamError` if it is none."""
    machine = _part(document, MACHINE_KEY, dict).get("Name")
    if not isinstance(machine, str):
        raise StreamError(f"{MACHINE_KEY!r} has no machine type", section=SECTION, expected='{"Name": "pc-q35-7.2"}')
    vmsds: dict[str, TargetVmsd] = {}
    for device, entry in document.items():
        if device != MACHINE_KEY and isinstance(entry, dict) and "Description" in entry:
            for found, vmsd in _walk(_part(entry, "Description", dict), 1):
                vmsds[found] = join_vmsds(vmsds.get(found), vmsd)
    if not vmsds:
        raise StreamError("there is no description of any device", section=SECTION, expected="what QEMU writes")
    how = f"{name}, -dump-vmstate of {machine}"
    return Target(name=name, machine=machine, vmsds=vmsds, evidence={"machine": how, "vmsds": how})


def join_vmsds(old: TargetVmsd | None, new: TargetVmsd) -> TargetVmsd:
    """Join two descriptions of one name in one QEMU: in what they disagree, nothing is known."""
    if old is None or old == new:
        return new
    return TargetVmsd(
        old.version if old.version == new.version else None,
        old.minimum_version if old.minimum_version == new.minimum_version else None,
        old.subsections | new.subsections,
    )


def _walk(description: dict[str, Any], depth: int) -> Iterator[tuple[str, TargetVmsd]]:
    """Give a description, those of its structs and those of its subsections."""
    if depth > MAX_DEPTH:
        raise LimitError("nested too deeply", section=SECTION, expected=f"at most {MAX_DEPTH} levels")
    subsections = [_part({"a subsection": one}, "a subsection", dict) for one in _list(description, "Subsections")]
    names = frozenset(_part(one, "name", str) for one in subsections)
    version, minimum = _part(description, "version_id", int), _part(description, "minimum_version_id", int)
    if not (0 <= version < MAX_VERSION and 0 <= minimum < MAX_VERSION):
        raise StreamError(f"version_id {version} and minimum_version_id {minimum}", section=SECTION)
    yield _part(description, "name", str), TargetVmsd(version, minimum, names)
    for one in subsections:
        yield from _walk(one, depth + 1)
    for field in _list(description, "Fields"):
        if isinstance(field, dict) and "Description" in field:
            yield from _walk(_part(field, "Description", dict), depth + 1)


def _list(description: dict[str, Any], key: str) -> list[Any]:
    return _part(description, key, list) if key in description else []


def _part(document: dict[str, Any], key: str, kind: type) -> Any:
    value = document.get(key)
    if type(value) is not kind:
        raise StreamError(f"{key!r} is {str(value)[:40]!r}", section=SECTION, expected=kind.__name__)
    return value
