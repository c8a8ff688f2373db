"""Hands on a qcow2 image (docs/interop/qcow2.txt), without qmigtool: its state clusters compressed, its fields set."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["compress_state", "deflated", "state_entries"]

MASK = 0x00FFFFFFFFFFFE00


def deflated(data: bytes) -> bytes:
    """Compress as qcow2 does by default: raw deflate with a window of 4 KiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    return packer.compress(data) + packer.flush()


def state_entries(image: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield (offset of the L2 entry, the entry) of each written cluster of the first snapshot's state."""
    bits, disk = struct.unpack_from(">I", image, 20)[0], struct.unpack_from(">Q", image, 24)[0]
    size = 1 << bits
    table = struct.unpack_from(">Q", image, 64)[0]
    l1_offset, l1_entries = struct.unpack_from(">QI", image, table)
    entry_size = 16 if struct.unpack_from(">Q", image, 72)[0] & 0x10 else 8
    step = size * size // entry_size
    for number in range(-(-disk // step), l1_entries):
        l2 = struct.unpack_from(">Q", image, l1_offset + 8 * number)[0] & MASK
        for at in range(l2, l2 + size, entry_size) if l2 else ():
            entry = struct.unpack_from(">Q", image, at)[0]
            if entry & MASK:
                yield at, entry


def compress_state(path: Path, pack: Callable[[bytes], bytes]) -> int:
    """Compress every written cluster of the first snapshot's state in place; return how many."""
    image = bytearray(path.read_bytes())
    bits = struct.unpack_from(">I", image, 20)[0]
    size, shift, count = 1 << bits, 62 - (bits - 8), 0
    image += bytes(-len(image) % size)
    for at, entry in list(state_entries(image)):
        packed = pack(bytes(image[entry & MASK :][:size]))
        if len(packed) >= size - 512:
            continue
        offset = len(image)
        image += packed
        sectors = (offset % 512 + len(packed) - 1) // 512
        struct.pack_into(">Q", image, at, 1 << 62 | sectors << shift | offset)
        count += 1
    path.write_bytes(image + bytes(-len(image) % size))
    return count
