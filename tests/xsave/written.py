"""Writes an XSAVE area with a header and pieces at their offsets."""

import struct

COMPACTED_FLAG = 1 << 63


def area(size, xstate_bv, xcomp_bv=0, at=None, mxcsr=0x1F80):
    data = bytearray(size)
    data[0:2] = b"\x7f\x03"
    struct.pack_into("<I", data, 24, mxcsr)
    struct.pack_into("<QQ", data, 512, xstate_bv, xcomp_bv)
    for offset, piece in (at or {}).items():
        data[offset : offset + len(piece)] = piece
    return bytes(data)
