"""The bytes of a vmstate field of XSAVE state, in either form: as the stream has them, and as an area has them.

The place of each field in an area is in the table :data:`~qmigtool.devices.schema.cpusection.XSAVE_FIELDS`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from qmigtool.devices.schema.cpusection import BYTE, SSE, ST_SIZE, X87, XSAVE_FIELDS
from qmigtool.errors import StreamError
from qmigtool.parsers.vmstate import Kind
from qmigtool.x86.registers import FSW
from qmigtool.xsave import COMPONENTS, mask_names
from qmigtool.xsave.components import (
    LEGACY_SIZE,
    MXCSR_OFFSET,
    SSE_PIECES,
    X87_PIECES,
    initial_configuration,
)

if TYPE_CHECKING:
    from qmigtool.devices.schema.cpusection import XsaveField
    from qmigtool.parsers.vmstate import Field

__all__ = [
    "decode",
    "encode",
    "has_fields",
    "legacy_image",
    "matching",
    "rotate",
    "top",
    "unheld",
    "unheld_words",
]


def _held() -> dict[int, bytes]:
    """Return, for each extended component with fields, which of its bytes belong to a field: 1 or 0 each."""
    masks: dict[int, bytearray] = {}
    for spec in XSAVE_FIELDS:
        if spec.component in (X87, SSE):
            continue
        size = COMPONENTS[spec.component].size
        mask = masks.setdefault(spec.component, bytearray(size))
        for start in range(spec.offset, size, spec.stride) if spec.stride else (spec.offset,):
            for piece in spec.pieces:
                mask[start + piece.at : start + piece.at + piece.area] = bytes([1]) * piece.area
    return {bit: bytes(mask) for bit, mask in masks.items()}


_HELD = _held()
_LER = slice(16, 40)
PT = 8


def has_fields(bit: int) -> bool:
    """Whether any field of a stream has a part of component ``bit``."""
    return bit in (X87, SSE) or bit in _HELD


def unheld(bit: int, contents: bytes) -> bytes | None:
    """Return a component with the bytes initial that no field of a stream has; None if they all are already.

    x87 and SSE are complete in every stream: the bytes between their registers are reserved.
    """
    if bit in (X87, SSE):
        return None
    initial, held = initial_configuration(bit, len(contents)), _HELD.get(bit, bytes(len(contents)))
    rest = bytes(new if mask else old for new, old, mask in zip(contents, initial, held, strict=True))
    return None if rest == contents else rest


def unheld_words(bit: int, contents: bytes) -> str:
    """Return the name of the part of a component that no field has."""
    name = mask_names(1 << bit)[0]
    if bit not in _HELD:
        return f"{name} (it is sent as cpu/intel_pt)" if bit == PT else name
    initial, held = initial_configuration(bit, len(contents)), _HELD[bit]
    lost = [i for i, (new, old) in enumerate(zip(contents, initial, strict=True)) if new != old and not held[i]]
    if name == "LBR" and all(_LER.start <= i < _LER.stop for i in lost):
        return "LBR's LER_FROM_IP, LER_TO_IP, LER_INFO"
    return f"{name}'s reserved bytes from {lost[0]} on"


def matching(fields: tuple[Field, ...], spec: XsaveField) -> Iterator[Field]:
    """Yield the field of ``spec``, if it was sent."""
    *subsections, name = spec.path
    for subsection in subsections:
        inside = [f for f in fields if f.kind is Kind.SUBSECTION and f.name == subsection]
        if not inside:
            return
        fields = inside[0].children
    for field in fields:
        if field.kind is Kind.SUBSECTION:
            continue
        # Where a name occurs twice QEMU appends [0], [1]: the nested description's name is what tells them apart.
        if spec.element is None:
            found = field.name == name
        else:
            found = field.name.startswith(name) and field.struct_name == spec.element
        if found:
            yield field


def decode(spec: XsaveField, field: Field, image: bytearray) -> None:
    """Write a field of the stream into the image of its component; raises :class:`~qmigtool.errors.StreamError`."""
    raw = field.raw
    count, rest = divmod(len(raw), spec.wire_size)
    last = spec.offset + (count - 1) * spec.stride + max(piece.at + piece.area for piece in spec.pieces)
    if rest or not count or last > len(image):
        raise StreamError(
            f"{field.name} has {len(raw)} bytes, which do not fit {COMPONENTS[spec.component].name}",
            offset=field.offset,
            section="cpu",
            expected=f"elements of {spec.wire_size} bytes, up to byte {len(image)} of the component",
        )
    if spec.pieces == BYTE:
        image[spec.offset : spec.offset + len(raw)] = raw
        return
    pos = 0
    for i in range(count):
        for piece in spec.pieces:
            at = spec.offset + i * spec.stride + piece.at
            image[at : at + piece.area] = raw[pos : pos + piece.wire][::-1][: piece.area]
            pos += piece.wire


def encode(spec: XsaveField, image: bytes, length: int) -> bytes:
    """Return the ``length`` bytes of a field in the stream, from the image of its component."""
    if spec.pieces == BYTE:
        return image[spec.offset : spec.offset + length]
    raw = bytearray()
    for i in range(length // spec.wire_size):
        for piece in spec.pieces:
            at = spec.offset + i * spec.stride + piece.at
            raw += image[at : at + piece.area][::-1].rjust(piece.wire, b"\0")
    return bytes(raw)


def legacy_image(x87: bytes, sse: bytes, mxcsr: int) -> bytes:
    """Return bytes 0-511 of an area from the contents of its components.

    They are as :meth:`~qmigtool.x86.vcpu.VCpu.contents` returns them; what is empty is 0.
    """
    image = bytearray(LEGACY_SIZE)
    for contents, pieces in ((x87, X87_PIECES), (sse, SSE_PIECES)):
        at = 0
        for offset, size in pieces if contents else ():
            image[offset : offset + size] = contents[at : at + size]
            at += size
    struct.pack_into("<I", image, MXCSR_OFFSET, mxcsr)
    return bytes(image)


def top(image: bytes | bytearray) -> int:
    """Return the x87 TOP field: FSW bits 13:11."""
    return FSW.part(int.from_bytes(image[2:4], "little"), "TOP")


def rotate(image: bytes, by: int) -> bytes:
    """Return the legacy region with its eight x87 registers rotated: new[i] = old[(i + by) & 7]."""
    registers = [image[32 + ST_SIZE * i : 32 + ST_SIZE * (i + 1)] for i in range(8)]
    return image[:32] + b"".join(registers[(i + by) & 7] for i in range(8)) + image[160:]
