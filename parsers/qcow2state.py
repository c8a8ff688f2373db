"""The state that ``savevm`` wrote to a snapshot of a qcow2 image (QEMU: ``docs/interop/qcow2.txt``).

It is in the image's own guest address space, after the disk, and is found through the *snapshot's* L1 table. Clusters
that were never written read as zeros. With ``extended_l2`` each 32nd of a cluster is written, zero or neither.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from qmigtool.errors import StreamError, TruncatedError
from qmigtool.parsers.multifd import zstd_decompressor
from qmigtool.parsers.qcow2 import COMPRESSION_TYPE, EXTENDED_L2, SECTION, Qcow2, Snapshot
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["state_pieces"]

OFFSET_MASK = 0x00FFFFFFFFFFFE00
COMPRESSED, ZERO = 1 << 62, 1
WRITTEN = 0xFFFFFFFF
SECTOR = 512
SUBCLUSTERS = 32  # of a cluster, with extended L2 entries: bit n says that n is written, bit 32 + n that it is zero


def state_pieces(source: BufferSource, image: Qcow2, snapshot: Snapshot) -> Iterator[bytes | int]:
    """Yield the state of a snapshot: bytes, or a number of zero bytes.

    ``vm_state_size`` counts the transferred bytes, which for a mapped-ram stream is not its end: so everything that
    the L1 table describes is yielded, up to the last cluster that was written. Raises
    :class:`~qmigtool.errors.StreamError` or a subclass where the tables break the format.
    """
    size = image.cluster_size
    per_table = size // image.l2_entry_size
    first = snapshot.vm_state_offset // (size * per_table)
    tables = struct.unpack(f">{snapshot.l1_entries}Q", source.view(snapshot.l1_offset, 8 * snapshot.l1_entries))
    # Within one snapshot no cluster is shared: one that is used twice only makes a small file look large.
    seen: set[int] = set()
    zeros = 0
    for entry in tables[first:]:
        table = entry & OFFSET_MASK
        entries = bytes(source.view(_once(table, seen), size)) if table else b""
        if not any(entries):
            zeros += size * per_table
            continue
        for at in range(0, size, image.l2_entry_size):
            for piece in _cluster(source, image, entries[at : at + image.l2_entry_size], seen):
                if isinstance(piece, int):
                    zeros += piece
                    continue
                if zeros:
                    yield zeros
                    zeros = 0
                yield piece


def _once(offset: int, seen: set[int]) -> int:
    if offset in seen:
        raise StreamError("a cluster is used twice in one snapshot", offset=offset, section=SECTION)
    seen.add(offset)
    return offset


def _cluster(source: BufferSource, image: Qcow2, raw: bytes, seen: set[int]) -> Iterator[bytes | int]:
    """Yield the pieces of one cluster, by its L2 entry."""
    size = image.cluster_size
    entry = int.from_bytes(raw[:8], "big")
    if entry & COMPRESSED:
        yield _unpacked(source, image, entry, seen)
        return
    offset = entry & OFFSET_MASK
    if image.features & EXTENDED_L2:
        bitmap = int.from_bytes(raw[8:], "big")
        if bitmap & WRITTEN:
            _once(offset, seen)
        for length, written in _subclusters(image, offset, bitmap):
            yield _data(source, offset, length) if written else length
            offset += length
    elif not offset or entry & ZERO:
        yield size
    else:
        yield _data(source, _once(offset, seen), size)


def _subclusters(image: Qcow2, offset: int, bitmap: int) -> Iterator[tuple[int, bool]]:
    """Yield (bytes, whether they are written) of the stretches of a cluster at ``offset``."""
    written, zero = bitmap & WRITTEN, bitmap >> SUBCLUSTERS
    if written & zero or (written and not offset):
        raise StreamError(
            f"an L2 entry with the subclusters {bitmap:#018x}",
            offset=offset,
            section=SECTION,
            expected="each written or zero, not both, and written only where a cluster is allocated",
        )
    for state, run in groupby(range(SUBCLUSTERS), lambda number: bool(written >> number & 1)):
        yield len(list(run)) * (image.cluster_size // SUBCLUSTERS), state


def _data(source: BufferSource, offset: int, length: int) -> bytes:
    # The last cluster of an image may be truncated after the last written byte.
    there = bytes(source.whole[offset : offset + length])
    if not there:
        raise TruncatedError("a cluster is after the end of the image", offset=offset, section=SECTION)
    return there + bytes(length - len(there))


def _unpacked(source: BufferSource, image: Qcow2, entry: int, seen: set[int]) -> bytes:
    """Return a compressed cluster, decompressed: raw deflate, or one zstd frame."""
    shift = 62 - (image.cluster_bits - 8)
    offset = _once(entry & (1 << shift) - 1, seen)
    sectors = (entry >> shift & (1 << (62 - shift)) - 1) + 1
    length = sectors * SECTOR - offset % SECTOR
    packed = bytes(source.whole[offset : offset + length])
    if image.features & COMPRESSION_TYPE:
        inner: Any = zstd_decompressor(int(current().limit("memory")))
    else:
        inner = zlib.decompressobj(wbits=-12)
    try:
        data = bytes(inner.decompress(packed, image.cluster_size))
        while len(data) < image.cluster_size and not inner.eof:
            more = bytes(inner.decompress(getattr(inner, "unconsumed_tail", b""), image.cluster_size - len(data)))
            if not more:
                break
            data += more
    except Exception as error:  # zlib.error, or zstd's own, which is in the module that provides it
        if type(error).__name__ not in ("error", "ZstdError"):
            raise
        raise StreamError(f"a damaged cluster: {error}", offset=offset, section=SECTION) from None
    if len(data) < image.cluster_size:
        raise StreamError(
            f"a compressed cluster gives {len(data)} bytes",
            offset=offset,
            section=SECTION,
            expected=f"{image.cluster_size}",
        )
    return data
