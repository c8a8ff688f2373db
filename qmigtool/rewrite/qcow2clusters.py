"""Clusters of a qcow2 image that is edited: tables as they will be, refcounts, allocation (``docs/interop/qcow2.txt``).

The image itself is only read; what changes is kept in memory, cluster by cluster: :meth:`Clusters.changed` yields it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qmigtool.errors import StreamError
from qmigtool.parsers.qcow2 import SECTION, Qcow2Header
from qmigtool.parsers.window import Window
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["COPIED", "OFFSET", "Clusters"]

OFFSET = 0x00FFFFFFFFFFFE00
COPIED = 1 << 63  # of an entry: the cluster's refcount is 1
REFCOUNT_TABLE = 48  # offset of refcount_table_offset in the header, and behind it of refcount_table_clusters
SPARE = 16  # blocks that a longer refcount table has room for


class Clusters:
    """The metadata of ``source``; numbers of clusters count from its start."""

    def __init__(self, source: BufferSource) -> None:
        header, _ = Qcow2Header.parse(Window(source.whole, final=True), 0)
        self._source = source
        self.header = header
        self.size = 1 << header.cluster_bits
        self._bits = 1 << (4 if header.refcount_order is None else header.refcount_order)
        if self._bits > 64:
            raise StreamError(f"refcounts of {self._bits} bits", offset=96, section=SECTION, expected="at most 64")
        self._per_block = self.size * 8 // self._bits
        self._table = header.refcount_table_offset
        self._entries = header.refcount_table_clusters * self.size // 8
        self._kept: dict[int, bytearray] = {}
        self.next = -(-len(source.whole) // self.size)

    def cluster(self, offset: int) -> bytearray:
        """Return the cluster at an offset, to be read or changed."""
        if offset % self.size:
            raise StreamError("a table that does not start at a cluster", offset=offset, section=SECTION)
        if offset not in self._kept:
            current().charge("memory", self.size, offset, SECTION)
            there = bytes(self._source.whole[offset : offset + self.size])
            self._kept[offset] = bytearray(there.ljust(self.size, b"\0"))
        return self._kept[offset]

    def word(self, offset: int) -> int:
        """Return the big-endian 64-bit word at an offset."""
        at = offset % self.size
        return int.from_bytes(self.cluster(offset - at)[at : at + 8], "big")

    def put(self, offset: int, value: int, size: int = 8) -> None:
        """Set the word of ``size`` bytes at an offset; it may lie across two clusters."""
        for place, byte in enumerate(value.to_bytes(size, "big"), offset):
            self.cluster(place // self.size * self.size)[place % self.size] = byte

    def changed(self) -> Iterator[tuple[int, bytearray]]:
        """Yield (offset, bytes) of the clusters that were read or changed, in order."""
        yield from sorted(self._kept.items())

    # -- refcounts -------------------------------------------------------------------------------------------------

    def refcount(self, number: int) -> int:
        """Return the refcount of a cluster."""
        block, at = self._block(number), number % self._per_block
        if not block:
            return 0
        data = self.cluster(block)
        if self._bits < 8:
            return data[at * self._bits // 8] >> at * self._bits % 8 & (1 << self._bits) - 1
        return int.from_bytes(data[at * self._bits // 8 :][: self._bits // 8], "big")

    def set_refcount(self, number: int, count: int) -> None:
        """Set it; makes the block that it is in where there is none."""
        index = number // self._per_block
        if index >= self._entries:
            self._grow(index)
        if not self._block(number):
            taken = self._free(1)
            self.put(self._table + 8 * index, taken * self.size)
            self.set_refcount(taken, 1)
        data, at = self.cluster(self._block(number)), number % self._per_block
        place = at * self._bits // 8
        if self._bits < 8:
            shift, mask = at * self._bits % 8, (1 << self._bits) - 1
            data[place] = data[place] & ~(mask << shift) | count << shift
        else:
            data[place : place + self._bits // 8] = count.to_bytes(self._bits // 8, "big")

    def _block(self, number: int) -> int:
        index = number // self._per_block
        return self.word(self._table + 8 * index) & OFFSET if index < self._entries else 0

    def drop(self, number: int) -> None:
        """Remove one reference to a cluster; raises :class:`~qmigtool.errors.StreamError` where there is none."""
        count = self.refcount(number)
        if not count:
            raise StreamError(
                "the image's refcounts are wrong: a cluster in use has none",
                offset=number * self.size,
                section=SECTION,
                expected="an image that `qemu-img check` finds right",
            )
        self.set_refcount(number, count - 1)

    # -- allocation ------------------------------------------------------------------------------------------------

    def _free(self, count: int) -> int:
        """Return the first of so many clusters in a row, at the end of the image, that nothing uses."""
        while any(self.refcount(self.next + more) for more in range(count)):
            self.next += 1
        self.next += count
        for number in range(self.next - count, self.next):
            self._kept.pop(number * self.size, None)
        return self.next - count

    def allocate(self, count: int = 1) -> int:
        """Return the number of the first of ``count`` new clusters in a row, each with the refcount 1."""
        first = self._free(count)
        for number in range(first, first + count):
            self.set_refcount(number, 1)
        return first

    def _grow(self, index: int) -> None:
        """Put the refcount table, longer, at the end of the image; ``index`` is an entry that it must have."""
        old, length = self._table // self.size, self._entries * 8 // self.size
        needed = -(-(index + SPARE) * 8 // self.size)
        count = max(2 * length, needed)
        first = self._free(count)
        for number in range(count):
            made = self.cluster((first + number) * self.size)
            made[:] = self.cluster((old + number) * self.size) if number < length else bytes(self.size)
        self._table, self._entries = first * self.size, count * self.size // 8
        self.put(REFCOUNT_TABLE, self._table)
        self.put(REFCOUNT_TABLE + 8, count, 4)
        for number in range(first, first + count):
            self.set_refcount(number, 1)
        for number in range(old, old + length):
            self.drop(number)
