"""The place of each vmstate field in an XSAVE area: the table, and a field's bytes in either form.

QEMU does not send an XSAVE area: it splits the host's into registers (``target/i386/xsave_helper.c``) and sends them
(``vmstate_x86_cpu`` in ``target/i386/machine.c``), big-endian, in the section ``cpu`` and its subsections.
:data:`FIELDS` has the offset of each in the area; everything else here is derived from it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

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
    from qmigtool.parsers.vmstate import Field

__all__ = [
    "FIELDS",
    "XsaveField",
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

X87, SSE = 0, 1
FPREGS = "env.fpregs"
ST_SIZE = 16  # of one x87 register in the area


class Piece(NamedTuple):
    """``wire`` big-endian bytes in the stream that become ``area`` little-endian bytes, ``at`` into the element."""

    wire: int
    area: int
    at: int


@dataclass(frozen=True, slots=True)
class XsaveField:
    """The place of one vmstate field in an XSAVE area.

    ``path`` is the path through the subsections to the field. ``element`` is the nested description's name, which tells
    fields of one name apart (``env.xmm_regs`` is four different things); None where the field is a plain number.
    ``offset`` counts from the start of ``component``; for x87 and SSE, from the start of the area. Each of the field's
    elements is ``pieces``, and they are ``stride`` bytes apart in the area.
    """

    path: tuple[str, ...]
    component: int
    offset: int
    pieces: tuple[Piece, ...]
    stride: int = 0
    element: str | None = None

    @property
    def wire_size(self) -> int:
        """Bytes of one element in the stream."""
        return sum(piece.wire for piece in self.pieces)


def _number(size: int) -> tuple[Piece, ...]:
    return (Piece(size, size, 0),)


def _quads(count: int) -> tuple[Piece, ...]:
    return tuple(Piece(8, 8, 8 * i) for i in range(count))


_BYTE = _number(1)

FIELDS: tuple[XsaveField, ...] = (
    XsaveField(("env.fpuc",), X87, 0, _number(2)),
    XsaveField(("env.fpus_vmstate",), X87, 2, _number(2)),  # TOP is merged in already
    XsaveField(("env.fptag_vmstate",), X87, 4, (Piece(2, 1, 0),)),  # the abridged tag byte, in 16 bits
    XsaveField(("cpu/fpop_ip_dp", "env.fpop"), X87, 6, _number(2)),
    XsaveField(("cpu/fpop_ip_dp", "env.fpip"), X87, 8, _number(8)),
    XsaveField(("cpu/fpop_ip_dp", "env.fpdp"), X87, 16, _number(8)),
    XsaveField((FPREGS,), X87, 32, (Piece(8, 8, 0), Piece(2, 2, 8)), ST_SIZE, "fpreg"),
    XsaveField(("env.mxcsr",), SSE, MXCSR_OFFSET, _number(4)),
    XsaveField(("env.xmm_regs",), SSE, 160, _quads(2), 16, "xmm_reg"),
    XsaveField(("env.xmm_regs",), 2, 0, _quads(2), 16, "ymmh_reg"),
    XsaveField(("cpu/mpx", "env.bnd_regs"), 3, 0, _quads(2), 16, "bnd_regs"),
    XsaveField(("cpu/mpx", "env.bndcs_regs.cfgu"), 4, 0, _number(8)),
    XsaveField(("cpu/mpx", "env.bndcs_regs.sts"), 4, 8, _number(8)),
    XsaveField(("cpu/avx512", "env.opmask_regs"), 5, 0, _number(8), 8),
    XsaveField(("cpu/avx512", "env.xmm_regs"), 6, 0, _quads(4), 32, "zmmh_reg"),
    XsaveField(("cpu/avx512", "env.xmm_regs"), 7, 0, _quads(8), 64, "hi16_zmm_reg"),
    XsaveField(("cpu/pkru", "env.pkru"), 9, 0, _number(4)),
    XsaveField(("cpu/cet", "env.u_cet"), 11, 0, _number(8)),
    XsaveField(("cpu/cet", "cpu/cet_shstk", "env.pl3_ssp"), 11, 8, _number(8)),
    XsaveField(("cpu/msr_pl0_ssp", "env.pl0_ssp"), 12, 0, _number(8)),
    XsaveField(("cpu/cet", "cpu/cet_shstk", "env.pl1_ssp"), 12, 8, _number(8)),
    XsaveField(("cpu/cet", "cpu/cet_shstk", "env.pl2_ssp"), 12, 16, _number(8)),
    XsaveField(("cpu/arch_lbr", "env.msr_lbr_ctl"), 15, 0, _number(8)),
    XsaveField(("cpu/arch_lbr", "env.msr_lbr_depth"), 15, 8, _number(8)),
    # LER_FROM, LER_TO and LER_INFO (bytes 16 to 39) are not migrated.
    XsaveField(("cpu/arch_lbr", "env.lbr_records"), 15, 40, _quads(3), 24, "lbr_records_var"),
    XsaveField(("cpu/intel_amx_xtile", "env.xtilecfg"), 17, 0, _BYTE, 1),
    XsaveField(("cpu/intel_amx_xtile", "env.xtiledata"), 18, 0, _BYTE, 1),
    XsaveField(("cpu/apx", "env.regs"), 19, 0, _number(8), 8),
)
"""Every vmstate field that is part of an XSAVE area (QEMU 5.2 to 11.1)."""


def _held() -> dict[int, bytes]:
    """Return, for each extended component with fields, which of its bytes belong to a field: 1 or 0 each."""
    masks: dict[int, bytearray] = {}
    for spec in FIELDS:
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
    if spec.pieces == _BYTE:
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
    if spec.pieces == _BYTE:
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
