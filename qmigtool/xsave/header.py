"""The first 576 bytes of an area: its format, the components that it declares, and MXCSR, which has rules of its own.

Everything here takes the area's bytes and needs no layout.
"""

from __future__ import annotations

import struct

from qmigtool.errors import XsaveError
from qmigtool.xsave.components import (
    AVX_MASK,
    EXTENDED_OFFSET,
    LEGACY_MASK,
    MXCSR_INIT,
    MXCSR_OFFSET,
    XCOMP_BV_COMPACTED,
    XSTATE_BV_OFFSET,
    Format,
)

MXCSR_DEFINED = 0x2FFFF
"""Every MXCSR bit that any CPU defines (bit 17 is AMD's misaligned exception mask)."""

BUFFER = 1024
"""A length that is a multiple of this is that of a buffer; it says nothing about the area."""


def header(area: bytes) -> tuple[int, int]:
    """Return XSTATE_BV and XCOMP_BV. Raises XsaveError if the area ends before the header does."""
    if len(area) < EXTENDED_OFFSET:
        raise XsaveError(
            f"the area has {len(area)} bytes", offset=len(area), expected=f"{EXTENDED_OFFSET} or more, for the header"
        )
    xstate_bv, xcomp_bv = struct.unpack_from("<QQ", area, XSTATE_BV_OFFSET)
    return xstate_bv, xcomp_bv


def area_format(area: bytes) -> Format:
    """Return the format, from XCOMP_BV[63]. Raises XsaveError if the area is too short to have one."""
    return Format.COMPACTED if header(area)[1] & XCOMP_BV_COMPACTED else Format.STANDARD


def effective_mxcsr(area: bytes, declared: int, form: Format) -> tuple[int, int]:
    """Return the MXCSR that restoring the area gives, and the stale value that was ignored (0 if none was).

    Compacted XRSTOR loads it with XSTATE_BV[1] and otherwise gives 1F80; standard XRSTOR always loads it (SDM 13.8). If
    a standard area declares none of x87, SSE and AVX and has a value with reserved bits there, on which XRSTOR faults
    and which KVM replaces by 1F80, it is assumed to be stale memory. With x87 declared, KVM refuses it, too.
    """
    (memory,) = struct.unpack_from("<I", area, MXCSR_OFFSET)
    if form is Format.COMPACTED:
        return (memory, 0) if declared & 2 else (MXCSR_INIT, 0)
    if memory & ~MXCSR_DEFINED and not declared & (LEGACY_MASK | AVX_MASK):
        return MXCSR_INIT, memory
    return memory, 0
