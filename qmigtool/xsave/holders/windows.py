"""Windows' XSTATE: the part of a CONTEXT_EX outside the CONTEXT.

It begins with the header of an XSAVE area (Mask: XSTATE_BV, CompactionMask: XCOMP_BV, 48 reserved bytes) and continues
with the extended region in compacted format; the legacy region is CONTEXT.FltSave. Source: winnt.h, XSAVE_AREA_HEADER.
"""

from __future__ import annotations

import struct

from qmigtool.xsave.components import COMPONENTS, EXTENDED_OFFSET, HEADER_SIZE, LEGACY_SIZE, XCOMP_BV_COMPACTED, bits


def is_windows_xstate(data: bytes) -> bool:
    """Return whether there is a header at the start, followed by the bytes that its components need.

    As the first bytes of an area these would be an x87 instruction pointer of little but bit 63, and MXCSR 0.
    """
    if len(data) < HEADER_SIZE:
        return False
    xstate_bv, xcomp_bv = struct.unpack_from("<QQ", data)
    mask = xcomp_bv & ~XCOMP_BV_COMPACTED
    if not xcomp_bv & XCOMP_BV_COMPACTED or xstate_bv & ~mask or any(data[16:HEADER_SIZE]):
        return False
    end = EXTENDED_OFFSET
    for bit in bits(mask & ~3):
        if bit not in COMPONENTS:
            return False
        end = (-(-end // 64) * 64 if COMPONENTS[bit].align64 else end) + COMPONENTS[bit].size
    return len(data) >= end - LEGACY_SIZE
