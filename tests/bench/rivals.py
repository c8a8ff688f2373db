"""What we are compared with: the code that a user would write in an hour, with nothing in it that is slow on purpose.

As a program (``python rivals.py FILE OFFSET``) it maps a stream and walks its RAM, without importing qmigtool or numpy.
"""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

FOOTER, PART, END = 0x7E, 2, 3
EOS, ZERO, PAGE, CONTINUE = 0x10, 0x02, 0x08, 0x20
PAGE_SIZE = 4096


def walk_records(data: bytes | mmap.mmap, pos: int) -> tuple[int, int]:
    """Walk the ``ram`` PARTs and END from ``pos`` record by record; return the counts of zero and normal pages.

    It checks far less than a reader has to (no block, no address, no fill byte), so it is a bound from below.
    """
    unpack = struct.Struct(">Q").unpack_from
    mask = PAGE_SIZE - 1
    zero = normal = 0
    while data[pos] in (PART, END):
        pos += 5
        while True:
            flags = unpack(data, pos)[0] & mask
            pos += 8
            if flags == PAGE | CONTINUE:
                normal += 1
                pos += PAGE_SIZE
            elif flags == ZERO | CONTINUE:
                zero += 1
                pos += 1
            elif flags == PAGE:
                normal += 1
                pos += 1 + data[pos] + PAGE_SIZE
            elif flags == ZERO:
                zero += 1
                pos += 1 + data[pos] + 1
            elif flags == EOS:
                break
            else:
                raise ValueError(f"flags {flags:#x} at {pos - 8:#x}")
        if data[pos] != FOOTER:
            raise ValueError(f"no footer at {pos:#x}")
        pos += 5
    return zero, normal


def index_records(data: bytes | mmap.mmap, pos: int) -> dict[tuple[bytes, int], int]:
    """Walk like :func:`walk_records` and return (block, address) -> offset of the last record of each page."""
    unpack = struct.Struct(">Q").unpack_from
    mask = PAGE_SIZE - 1
    found: dict[tuple[bytes, int], int] = {}
    block = b""
    while data[pos] in (PART, END):
        pos += 5
        while True:
            word = unpack(data, pos)[0]
            flags = word & mask
            record = pos
            pos += 8
            if flags & (PAGE | ZERO):
                if not flags & CONTINUE:
                    block = data[pos + 1 : pos + 1 + data[pos]]
                    pos += 1 + data[pos]
                found[block, word - flags] = record
                pos += PAGE_SIZE if flags & PAGE else 1
            elif flags == EOS:
                break
            else:
                raise ValueError(f"flags {flags:#x} at {record:#x}")
        pos += 5
    return found


Slices = Sequence[tuple[int, int, int, int]]
"""(bit, source offset, target offset, size)"""


def slicer(slices: Slices, size: int, xcomp_bv: int) -> Callable[[bytes], bytes]:
    """Return a function that converts one area by copying slices: no rule checked, no state refused or initialised."""

    def convert(area: bytes) -> bytes:
        out = bytearray(size)
        out[:28] = area[:28]
        out[32:416] = area[32:416]
        out[512:520] = area[512:520]
        out[520:528] = xcomp_bv.to_bytes(8, "little")
        xstate_bv = int.from_bytes(area[512:520], "little")
        for bit, src, dst, length in slices:
            if xstate_bv >> bit & 1:
                out[dst : dst + length] = area[src : src + length]
        return bytes(out)

    return convert


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        print(*walk_records(mapped, int(sys.argv[2])))
