"""Hyper-V's quirk: it saves CET_U, CET_S and PASID in an area without setting their bits in XSTATE_BV.

This holds for every MSHV and WHP partition (openvmm calls it ``xsaves_state_bv_broken``). By the architecture's rules
such state is initial, and lost: so a program that reads an area of Hyper-V must set the bits first.
"""

from __future__ import annotations

import struct

from qmigtool.xsave.components import CET_MASK, PASID_MASK, XCOMP_BV_COMPACTED, XSTATE_BV_OFFSET, bits
from qmigtool.xsave.header import header
from qmigtool.xsave.layout import Layout

__all__ = ["HYPERV_QUIRK_MASK", "declare_hyperv", "undeclared_hyperv"]

HYPERV_QUIRK_MASK = PASID_MASK | CET_MASK
"""PASID, CET_U, CET_S."""


def undeclared_hyperv(area: bytes, layout: Layout) -> int:
    """Return those of PASID, CET_U and CET_S that have a place and bytes in a compacted area, but no XSTATE_BV bit."""
    xstate_bv, xcomp_bv = header(area)
    if not xcomp_bv & XCOMP_BV_COMPACTED or xcomp_bv & ~(layout.mask | XCOMP_BV_COMPACTED):
        return 0
    offsets = layout.compacted_offsets(xcomp_bv)
    found = 0
    for bit in bits(xcomp_bv & ~xstate_bv & HYPERV_QUIRK_MASK):
        if any(area[offsets[bit] : offsets[bit] + layout.rows[bit].size]):
            found |= 1 << bit
    return found


def declare_hyperv(area: bytes, layout: Layout) -> bytes:
    """Return the area with the XSTATE_BV bits that Hyper-V leaves out; a standard area is returned unchanged."""
    found = undeclared_hyperv(area, layout)
    if not found:
        return bytes(area)
    out = bytearray(area)
    struct.pack_into("<Q", out, XSTATE_BV_OFFSET, header(area)[0] | found)
    return bytes(out)
