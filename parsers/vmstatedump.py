"""The JSON that ``qemu-system-* -M MACHINE -dump-vmstate FILE`` writes: what a QEMU binary can save and load.

QEMU writes it in ``migration/savevm.c`` (``dump_vmstate_json_to_file``), one entry for each device type that has a
VMStateDescription. It prints the C tables: versions, names, and the sizes of the fields in QEMU's memory,
which are those on the wire for numbers and buffers only. Not in it: the fields' types, state registered without a
device type (``cpu``, ``timer``, ``ram``), and, before QEMU 10.0, the number of elements of an array.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qmigtool.errors import LimitError, StreamError
from qmigtool.util.documents import load_json

__all__ = [
    "MACHINE_KEY",
    "DumpDescription",
    "DumpDevice",
    "DumpField",
    "VmstateDump",
    "parse_vmstate_dump",
    "vmstate_dump",
]

SECTION = "vmstate dump"
MACHINE_KEY = "vmschkmachine"
"""The key of the machine type; no device type has this name."""

MAX_DEPTH = 64  # the deepest seen is 6
MAX_SIZE = 1 << 48
MAX_PARTS = 1 << 20  # descriptions and fields; QEMU 11.1 has six thousand


@dataclass(frozen=True, slots=True)
class DumpField:
    """One field: ``size`` is that of an element in QEMU's memory, ``num`` the elements of an array if recorded.

    ``version_id`` is the first version of the description that has the field; ``field_exists`` means that a function
    decides at run time whether it does.
    """

    name: str
    version_id: int
    field_exists: bool
    size: int
    num: int | None
    description: DumpDescription | None


@dataclass(frozen=True, slots=True)
class DumpDescription:
    """A VMStateDescription."""

    name: str
    version_id: int
    minimum_version_id: int
    fields: tuple[DumpField, ...]
    subsections: tuple[DumpDescription, ...]


@dataclass(frozen=True, slots=True)
class DumpDevice:
    """A device type and its saved state; the section in a stream is named after ``description``."""

    type: str
    version_id: int
    minimum_version_id: int
    description: DumpDescription


@dataclass(frozen=True, slots=True)
class VmstateDump:
    """The whole dump; ``machine`` is the machine type, None if it has none."""

    machine: str | None
    devices: tuple[DumpDevice, ...]

    @property
    def counts_arrays(self) -> bool:
        """Whether arrays have ``num`` (QEMU 10.0 and later)."""
        return any(_counts(device.description) for device in self.devices)


def parse_vmstate_dump(text: bytes) -> VmstateDump:
    """Read the JSON text.

    Raises :class:`~qmigtool.errors.StreamError` if it is not such a dump, and :class:`~qmigtool.errors.LimitError` for
    numbers or nesting that no valid one has.
    """
    try:
        decoded = text.decode("utf-8", "surrogateescape")
        document = load_json(decoded, section=SECTION, parse_float=_refuse, parse_constant=_refuse)
    except StreamError as error:
        error.section = SECTION
        raise
    except RecursionError:
        raise LimitError("nested too deeply", section=SECTION) from None
    except ValueError as error:
        raise StreamError(f"not JSON: {error}", section=SECTION) from None
    return vmstate_dump(document)


def vmstate_dump(document: Any) -> VmstateDump:
    """Make a dump from parsed JSON; raises as :func:`parse_vmstate_dump` does."""
    try:
        return _Builder().dump(document)
    except StreamError as error:
        error.section = SECTION
        raise


def _refuse(token: str) -> Any:
    raise StreamError(f"a number {token[:32]!r}", expected="whole numbers only")


def _counts(description: DumpDescription) -> bool:
    inner = (field.description for field in description.fields if field.description is not None)
    return any(field.num is not None for field in description.fields) or any(map(_counts, inner))


def _get(entry: Any, key: str, kind: type) -> Any:
    if type(entry) is not dict:
        raise StreamError(f"{_show(entry)} instead of an object")
    if key not in entry:
        raise StreamError(f"no {key!r} in {_show(entry)}")
    value = entry[key]
    if type(value) is not kind:  # a bool is not an int here
        raise StreamError(f"{key!r} is {_show(value)}", expected=kind.__name__)
    if isinstance(value, int) and not 0 <= value < MAX_SIZE:
        raise LimitError(f"{key!r} is {_show(value)}", expected=f"less than {MAX_SIZE:#x}")
    return value


def _show(value: Any) -> str:
    text = f"{type(value).__name__} of {len(value)} items" if isinstance(value, list | dict) else repr(value)
    return text if len(text) < 60 else text[:57] + "..."


class _Builder:
    """Turns objects into descriptions; all types in them are checked."""

    def __init__(self) -> None:
        self._parts = 0

    def dump(self, document: Any) -> VmstateDump:
        if type(document) is not dict:
            raise StreamError(f"{_show(document)} instead of an object")
        machine = _get(document[MACHINE_KEY], "Name", str) if MACHINE_KEY in document else None
        devices = tuple(self.device(name, entry) for name, entry in document.items() if name != MACHINE_KEY)
        return VmstateDump(machine, devices)

    def device(self, name: str, entry: Any) -> DumpDevice:
        return DumpDevice(
            name,
            _get(entry, "version_id", int),
            _get(entry, "minimum_version_id", int),
            self.description(_get(entry, "Description", dict), 1),
        )

    def description(self, entry: Any, depth: int) -> DumpDescription:
        self._count(depth)
        fields = _get(entry, "Fields", list) if "Fields" in entry else []
        return DumpDescription(
            _get(entry, "name", str),
            _get(entry, "version_id", int),
            _get(entry, "minimum_version_id", int),
            tuple(self.field(field, depth) for field in fields),
            tuple(
                self.description(sub if type(sub) is dict else {}, depth + 1)
                for sub in (_get(entry, "Subsections", list) if "Subsections" in entry else [])
            ),
        )

    def field(self, entry: Any, depth: int) -> DumpField:
        self._count(depth)
        name = _get(entry, "field", str)
        inner = _get(entry, "Description", dict) if "Description" in entry else None
        return DumpField(
            name,
            _get(entry, "version_id", int),
            _get(entry, "field_exists", bool),
            _get(entry, "size", int),
            _get(entry, "num", int) if "num" in entry else None,
            None if inner is None else self.description(inner, depth + 1),
        )

    def _count(self, depth: int) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise LimitError(f"more than {MAX_PARTS} fields")
        if depth > MAX_DEPTH:
            raise LimitError(f"nested more than {MAX_DEPTH} deep")
