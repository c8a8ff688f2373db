"""The registers inside a component: their offsets in the component's contents, little-endian as in every area.

Source: Intel SDM volume 1, 13.4 and 13.5, volume 3, 19.1 (LBR); for APX_F the APX specification.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from qmigtool.xsave.components import COMPONENTS, bit_name, component

__all__ = ["Slot", "registers_in", "x87_value"]

X87, SSE = 0, 1
ST_REGISTERS = 24  # their offset in the contents of x87, which do not include bytes 24-31 of the area (MXCSR)


class Slot(NamedTuple):
    """A register, or the part of one that this component holds: ``size`` bytes at ``offset`` of its contents."""

    name: str
    offset: int
    size: int


def _row(name: str, count: int, size: int, *, start: int = 0, stride: int | None = None, first: int = 0) -> list[Slot]:
    """Name ``count`` registers of one kind; ``{}`` in the name is the register's number."""
    return [Slot(name.format(first + i), start + i * (stride or size), size) for i in range(count)]


_SLOTS: dict[str, list[Slot]] = {
    "x87": [
        *(Slot("FCW", 0, 2), Slot("FSW", 2, 2), Slot("FTW", 4, 1), Slot("FOP", 6, 2), Slot("FIP", 8, 8)),
        Slot("FDP", 16, 8),
        *_row("ST{}", 8, 10, start=ST_REGISTERS, stride=16),
    ],
    "SSE": _row("XMM{}", 16, 16),
    "AVX": _row("YMM{}[255:128]", 16, 16),
    "BNDREGS": _row("BND{}", 4, 16),
    "BNDCSR": [Slot("BNDCFGU", 0, 8), Slot("BNDSTATUS", 8, 8)],
    "opmask": _row("k{}", 8, 8),
    "ZMM_Hi256": _row("ZMM{}[511:256]", 16, 32),
    "Hi16_ZMM": _row("ZMM{}", 16, 64, first=16),
    "PKRU": [Slot("PKRU", 0, 4)],
    "PASID": [Slot("IA32_PASID", 0, 8)],
    "CET_U": [Slot("IA32_U_CET", 0, 8), Slot("IA32_PL3_SSP", 8, 8)],
    "CET_S": _row("IA32_PL{}_SSP", 3, 8),
    "LBR": [
        *(Slot("IA32_LBR_CTL", 0, 8), Slot("IA32_LBR_DEPTH", 8, 8)),
        *_row("IA32_LBR_{}_FROM_IP", 32, 8, start=40, stride=24),
        *_row("IA32_LBR_{}_TO_IP", 32, 8, start=48, stride=24),
        *_row("IA32_LBR_{}_INFO", 32, 8, start=56, stride=24),
    ],
    "XTILECFG": [Slot("TILECFG", 0, 64)],
    "XTILEDATA": _row("TMM{}", 8, 1024),
    "APX_F": _row("R{}", 16, 8, first=16),
}


@cache
def registers_in(bit: int) -> tuple[Slot, ...]:
    """Return the registers of a component in byte order; without a definition, the component itself."""
    named = _SLOTS.get(bit_name(bit))
    if named is not None:
        return tuple(sorted(named, key=lambda slot: slot.offset))
    return (Slot(bit_name(bit), 0, component(bit).size),) if bit in COMPONENTS else ()


def x87_value(raw: bytes) -> str:
    """Return the value of a 10-byte x87 register as text: a number with 9 digits, or the kind of non-number.

    64 bits of mantissa with an explicit integer bit, then 15 of exponent (bias 16383) and the sign; SDM volume 1, 4.2.
    """
    mantissa, top = int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:10], "little")
    sign, exponent = "-" if top >> 15 else "", top & 0x7FFF
    if exponent == 0x7FFF:
        return f"{sign}NaN" if mantissa << 1 & (1 << 64) - 1 else f"{sign}infinity"
    if not mantissa:
        return f"{sign}0"
    power = max(exponent, 1) - 16383 - 63
    # Outside the range of a Python float, show the power of two.
    return f"{sign}{mantissa * 2.0**power:.9g}" if -1000 < power < 900 else f"{sign}{mantissa:#x} * 2**{power}"
