"""A copy of a qcow2 image with the state of one of its snapshots replaced (QEMU: ``docs/interop/qcow2.txt``).

The new state's clusters, its L2 tables and the snapshot's L1 table are put at the end of the copy; what they replace is
released. Disks, other snapshots and the rest of this one stay as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from qmigtool.errors import LimitError, UnsupportedError
from qmigtool.parsers.qcow2 import EXTENDED_L2, MAX_L1, SECTION, Qcow2, Snapshot, read_qcow2
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.rewrite.qcow2clusters import COPIED, OFFSET, Clusters
from qmigtool.util.budget import current
from qmigtool.util.files import copy_range

__all__ = ["write_snapshot"]

COMPRESSED = 1 << 62
DIRTY, CORRUPT = 1, 2  # incompatible features
ALL_WRITTEN, ALL_ZERO = 0xFFFFFFFF, 0xFFFFFFFF << 32  # bitmaps of extended L2 entries
STATE_SIZE, MORE = 32, 40  # in a snapshot's entry: vm_state_size, the extra data


def write_snapshot(source: BufferSource, snapshot: Snapshot, state: BinaryIO, target: BinaryIO) -> None:
    """Write a copy of the image ``source`` whose ``snapshot`` has the state that ``state`` gives from its start.

    Raises :class:`~qmigtool.errors.UnsupportedError` for an image that QEMU would have to repair first, and
    :class:`~qmigtool.errors.StreamError` where its tables or refcounts are wrong.
    """
    image = read_qcow2(source)
    if image.features & (DIRTY | CORRUPT):
        what = "corrupt" if image.features & CORRUPT else "in use, or not closed"
        raise UnsupportedError(
            "an image that is not clean",
            f"the image is marked as {what}",
            offset=72,
            section=SECTION,
            expected="one that `qemu-img check -r all` has repaired, on a copy",
        )
    clusters = Clusters(source)
    _copy(source, target)
    first = snapshot.vm_state_offset // _step(image)
    raw = source.view(snapshot.l1_offset, 8 * snapshot.l1_entries)
    old = list(struct.unpack(f">{snapshot.l1_entries}Q", raw))
    _release(clusters, image, old[first:])
    size = state.seek(0, 2)
    state.seek(0)
    tables = list(_state(clusters, image, state, target))
    new = [*old[:first], *[0] * max(0, first - len(old)), *tables]
    _replace(clusters, image, snapshot, new, size)
    _mark(clusters, image, first)
    for offset, data in clusters.changed():
        target.seek(offset)
        target.write(data)
    target.truncate(clusters.next * clusters.size)
    target.seek(0, 2)


def _step(image: Qcow2) -> int:
    """Return what one L2 table describes, in bytes."""
    return image.cluster_size * (image.cluster_size // image.l2_entry_size)


def _copy(source: BufferSource, target: BinaryIO) -> None:
    if isinstance(source, FileSource):
        copy_range(source.fileno(), 0, len(source.whole), target)
    else:
        target.write(source.whole)
    target.flush()


def _entries(clusters: Clusters, image: Qcow2, table: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, entry) of an L2 table."""
    for at in range(table, table + image.cluster_size, image.l2_entry_size):
        yield at, clusters.word(at)


def _release(clusters: Clusters, image: Qcow2, tables: list[int]) -> None:
    """Remove a snapshot's references to its state: to each cluster of it, and to the L2 tables."""
    shift = 62 - (image.cluster_bits - 8)
    for entry in tables:
        table = entry & OFFSET
        if not table:
            continue
        for _, found in _entries(clusters, image, table):
            current().tick(table, SECTION)
            if found & COMPRESSED:
                start = (found & (1 << shift) - 1) & ~511
                end = start + ((found >> shift & (1 << (62 - shift)) - 1) + 1) * 512
                for number in range(start // clusters.size, -(-end // clusters.size)):
                    clusters.drop(number)
            elif found & OFFSET:
                clusters.drop((found & OFFSET) // clusters.size)
        clusters.drop(table // clusters.size)


def _state(clusters: Clusters, image: Qcow2, state: BinaryIO, target: BinaryIO) -> Iterator[int]:
    """Write the clusters of the state; yield the L1 entries of its L2 tables."""
    size, width = image.cluster_size, image.l2_entry_size
    table, at = 0, size
    while data := _read(state, size):
        current().tick(None, SECTION)
        if at == size:
            table, at = clusters.allocate() * size, 0
            yield table
        entry, bitmap = 0, ALL_ZERO
        if any(data) or image.version < 3:
            entry, bitmap = clusters.allocate() * size, ALL_WRITTEN
            target.seek(entry)
            target.write(data.ljust(size, b"\0"))
        elif width == 8:
            entry = 1  # zeros, also over a backing file
        clusters.put(table + at, entry)
        if image.features & EXTENDED_L2:
            clusters.put(table + at + 8, bitmap)
        at += width


def _read(state: BinaryIO, size: int) -> bytes:
    data = state.read(size)
    while data and len(data) < size and (more := state.read(size - len(data))):
        data += more
    return data


def _replace(clusters: Clusters, image: Qcow2, snapshot: Snapshot, new: list[int], size: int) -> None:
    """Give a snapshot its new L1 table, and say how long its state is."""
    if 8 * len(new) > MAX_L1:
        raise UnsupportedError("a state that is too long for the image's clusters", section=SECTION)
    extra = int.from_bytes(_bytes(clusters, snapshot.offset + 36, 4), "big")
    if extra < 8 and size >= 1 << 32:
        raise UnsupportedError("a state of 4 GiB in an entry that has 32 bits for it", section=SECTION)
    count = -(-8 * len(new) // clusters.size)
    first = clusters.allocate(count)
    for number, entry in enumerate(new):
        clusters.put(first * clusters.size + 8 * number, entry)
    for number in range(-(-8 * snapshot.l1_entries // clusters.size)):
        clusters.drop(snapshot.l1_offset // clusters.size + number)
    clusters.put(snapshot.offset, first * clusters.size)
    clusters.put(snapshot.offset + 8, len(new), 4)
    clusters.put(snapshot.offset + STATE_SIZE, size if size < 1 << 32 else 0, 4)
    if extra >= 8:
        clusters.put(snapshot.offset + MORE, size)


def _bytes(clusters: Clusters, offset: int, count: int) -> bytes:
    """Return bytes of the metadata, which may lie across clusters."""
    return bytes(
        clusters.cluster(place // clusters.size * clusters.size)[place % clusters.size]
        for place in range(offset, offset + count)
    )


def _mark(clusters: Clusters, image: Qcow2, first: int) -> None:
    """Set the flags of the active tables where the state that was shared with them is theirs alone now."""
    header = clusters.header
    if 8 * header.l1_size > MAX_L1:
        raise LimitError(f"an L1 table of {header.l1_size} entries", offset=36, section=SECTION)
    for number in range(first, header.l1_size):
        at = header.l1_table_offset + 8 * number
        entry = clusters.word(at)
        table = entry & OFFSET
        if not table:
            continue
        current().tick(at, SECTION)
        clusters.put(at, _marked(clusters, entry))
        for place, found in _entries(clusters, image, table):
            if found & OFFSET and not found & COMPRESSED:
                clusters.put(place, _marked(clusters, found))


def _marked(clusters: Clusters, entry: int) -> int:
    alone = clusters.refcount((entry & OFFSET) // clusters.size) == 1
    return entry | COPIED if alone else entry & ~COPIED
