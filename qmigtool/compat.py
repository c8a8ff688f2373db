"""What QEMU's own ``scripts/analyze-migration.py`` prints, so that its users can switch.

The same JSON, key by key, for ``-d state`` and ``-d desc``; but nothing here needs the vmdesc at the very end of the
file, knows only one command or gives up at a page that is packed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qmigtool.errors import QmigError, UnsupportedError
from qmigtool.parsers.savevm import Type
from qmigtool.parsers.vmdesc import SECTION
from qmigtool.parsers.vmstate import INTEGERS

if TYPE_CHECKING:
    from qmigtool.parsers.vmdesc import Description, FieldDescription
    from qmigtool.stream import Stream

__all__ = ["desc", "state"]

_SIGNED = {
    "int8", "int16", "int32", "int64", "int32 equal", "int32 le", "int64 equal", "uint8 equal", "uint16 equal",
}  # fmt: skip
_UNSIGNED = {"uint8", "uint16", "uint32", "uint64", "uint32 equal"}


def desc(stream: Stream) -> Any:
    """Return the vmdesc as JSON; of keys that occur twice in an object the last one counts, as there.

    Raises what is wrong with the vmdesc, or :class:`~qmigtool.errors.UnsupportedError` if there is none.
    """
    text = stream.vmdesc_text
    if text is None:
        for problem in stream.problems:
            if problem.section == SECTION:
                raise problem
        raise UnsupportedError("the description of a stream without a vmdesc")
    return json.loads(text.decode("utf-8", "surrogateescape"), strict=False)


def state(stream: Stream) -> dict[str, Any]:
    """Return ``name (section id)`` -> fields for every section that starts.

    A device that its description does not fit is left out, and the error is among the stream's problems.
    """
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
            except QmigError as error:
                stream.report(error)
                continue
            body = bytes(stream.source.view(section.body_offset, section.body_length))
            out[key], _ = _body(device.description, body, 0)
    return out


def _body(description: Description, data: bytes, pos: int) -> tuple[dict[str, Any], int]:
    values: dict[str, list[Any]] = {}
    for field in description.fields:
        for _ in range(1 if field.array_len is None else field.array_len):
            value, pos = _field(field, data, pos)
            # A name that occurs again makes a list of its values, whatever they are.
            values.setdefault(field.name, []).append(value)
    out: dict[str, Any] = {name: found[0] if len(found) == 1 else found for name, found in values.items()}
    for subsection in description.subsections:
        out[subsection.name], pos = _body(subsection, data, pos + subsection.head_size)
    return out, pos


def _field(field: FieldDescription, data: bytes, pos: int) -> tuple[Any, int]:
    # A struct whose parts do not add up to its size would be read beyond its own bytes.
    if field.type == "struct" and field.struct is not None and field.struct.size == field.size:
        return _body(field.struct, data, pos)
    end = pos + field.size
    raw = data[pos:end]
    if field.type == "bool":
        return raw[:1] != b"\0", end
    if field.type == "nullptr":
        return "nullptr", end
    if field.type in _SIGNED | _UNSIGNED and INTEGERS[field.type].size == field.size:
        value = int.from_bytes(raw, "big")
        text = f"0x{value:0{2 * field.size}x}"
        signed = int.from_bytes(raw, "big", signed=True)
        return (f"{text} ({signed})" if field.type in _SIGNED and signed < 0 else text), end
    return raw.hex(" "), end
