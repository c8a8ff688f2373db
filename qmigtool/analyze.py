"""The output of QEMU's own ``scripts/analyze-migration.py``, so that its users can switch.

The same JSON, key by key, for ``-d state`` and ``-d desc``. Unlike the script, this module does not need the vmdesc at
the end of the file, knows more than one command, and reads streams with compressed pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from qmigtool.errors import QmigError, UnsupportedError
from qmigtool.parsers.section import Type
from qmigtool.parsers.vmdesc import SECTION
from qmigtool.parsers.vmstate import INTEGERS, LONG
from qmigtool.util.documents import load_json
from qmigtool.util.jsontext import Hex, Items, Pairs, Tokens, materialised

if TYPE_CHECKING:
    from qmigtool.parsers.vmdesc import Description, FieldDescription
    from qmigtool.stream.model import Stream

__all__ = ["desc", "lazy_state", "state"]

CHUNK = 1 << 14  # elements of an array that are written at once

_SIGNED = {
    "int8", "int16", "int32", "int64", "int32 equal", "int32 le", "int64 equal", "uint8 equal", "uint16 equal",
}  # fmt: skip
_UNSIGNED = {"uint8", "uint16", "uint32", "uint64", "uint32 equal"}


def desc(stream: Stream) -> Any:
    """Return the vmdesc as JSON; the last of duplicate keys in an object counts, as in the script.

    Raises the error of an invalid vmdesc, or :class:`~qmigtool.errors.UnsupportedError` if there is none.
    """
    text = stream.vmdesc_text
    if text is None:
        for problem in stream.problems:
            if problem.section == SECTION:
                raise problem
        raise UnsupportedError("the description of a stream without a vmdesc")
    return load_json(text.decode("utf-8", "surrogateescape"), section=SECTION, strict=False)


def state(stream: Stream) -> dict[str, Any]:
    """Return ``name (section id)`` -> fields for every section that starts.

    A device whose description does not fit is left out, and the error is among the stream's problems.
    """
    found: dict[str, Any] = materialised(lazy_state(stream))
    return found


def lazy_state(stream: Stream) -> Pairs:
    """Return the same as :func:`state`, produced while it is written (:func:`qmigtool.util.jsontext.write_json`)."""
    devices = {device.section.offset: device for device in stream.devices}
    out: dict[str, Any] = {}
    for section in stream.sections:
        key = f"{section.name} ({section.section_id})"
        device = devices.get(section.offset)
        if section.type is Type.START:
            sizes = {block.idstr: f"0x{block.used_length:016x}" for block in stream.ram_blocks}
            out[key] = {"section sizes": sizes} if section.name == "ram" else ""
        elif device is not None and device.description is not None:
            try:
                _ = device.fields  # the description has the length of the body, and subsections are where it has them
                device.check_length()
                device.ask()
            except QmigError as error:
                stream.report(error)
                continue
            body = stream.source.view(section.body_offset, section.body_length)
            out[key] = _Body(device.description, body)
    return Pairs((key, one.pairs() if isinstance(one, _Body) else one) for key, one in out.items())


class _Body(NamedTuple):
    """A body, to be written: its description, and its bytes."""

    description: Description
    data: memoryview

    def pairs(self) -> Pairs:
        """Return its fields by name, those of its subsections as one each."""
        places: dict[str, list[tuple[FieldDescription, int]]] = {}
        pos = 0
        for field in self.description.fields:
            # A name that occurs several times becomes a list of its values, whatever they are.
            if field.array_len != 0:
                places.setdefault(field.name, []).append((field, pos))
            pos += field.total
        out: dict[str, Any] = {name: _values(found, self.data) for name, found in places.items()}
        for subsection in self.description.subsections:
            pos += subsection.head_size
            out[subsection.name] = _Body(subsection, self.data[pos : pos + subsection.size]).pairs()
            pos += subsection.size
        return Pairs(out.items())


def _values(places: list[tuple[FieldDescription, int]], data: memoryview) -> Any:
    """Return the only value of a name, or the list of them."""
    if len(places) == 1 and places[0][0].array_len in (None, 1):
        field, pos = places[0]
        return _value(field, data, pos)
    if len(places) == 1 and _number(places[0][0]):
        return Tokens(_tokens(places[0][0], data, places[0][1]))
    return Items(
        _value(field, data, pos + i * field.size)
        for field, pos in places
        for i in range(1 if field.array_len is None else field.array_len)
    )


def _number(field: FieldDescription) -> bool:
    return field.type in _SIGNED | _UNSIGNED and INTEGERS[field.type].size == field.size


def _tokens(field: FieldDescription, data: memoryview, pos: int) -> Iterator[list[str]]:
    """Yield the elements of an array of numbers as JSON, many at a time."""
    step = CHUNK * field.size
    end = pos + field.total
    for at in range(pos, end, step):
        raw = data[at : min(at + step, end)]
        if field.type in _SIGNED:
            yield [f'"{_value(field, raw, i)}"' for i in range(0, len(raw), field.size)]
        else:
            yield [f'"0x{digits}"' for digits in raw.hex(" ", field.size).split(" ")]


def _value(field: FieldDescription, data: memoryview, pos: int) -> Any:
    # A struct whose parts do not add up to its size would be read beyond its end.
    raw = data[pos : pos + field.size]
    if field.type == "struct" and field.struct is not None and field.struct.size == field.size:
        return _Body(field.struct, raw).pairs()
    if field.type == "bool":
        return bytes(raw[:1]) != b"\0"
    if field.type == "nullptr":
        return "nullptr"
    if _number(field):
        value = int.from_bytes(raw, "big")
        text = f"0x{value:0{2 * field.size}x}"
        signed = int.from_bytes(raw, "big", signed=True)
        return f"{text} ({signed})" if field.type in _SIGNED and signed < 0 else text
    if len(raw) > LONG:
        return Hex((raw[at : at + LONG] for at in range(0, len(raw), LONG)), " ")
    return raw.hex(" ")
