"""Compare guest memory page by page, independent of its encoding in either stream.

Two pages are the same if their final contents are; how often and in which encoding they were sent does not matter.
Memory use grows with the number of runs of records, never with the guest's RAM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qmigtool.diff.ram.moved import MOVED, MovedBlock, find_moved, spread
from qmigtool.diff.ram.walk import RANGE, PageClass, Ranges, Walk
from qmigtool.errors import UnsupportedError
from qmigtool.parsers.source import BufferSource
from qmigtool.tables import Column, Table
from qmigtool.util.progress import task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qmigtool.ram.model import Absent, Ram
    from qmigtool.stream.model import Stream

    Ints = NDArray[np.int64]

__all__ = [
    "MOVED",
    "RANGE",
    "BlockComparison",
    "PageClass",
    "PageDifference",
    "RamComparison",
    "compare_ram",
    "ram_ranges",
]

KEPT = 1 << 18  # ranges kept of a comparison: 4 MiB; if there are more, they are computed again when needed


class PageDifference(NamedTuple):
    """How two pages differ: the first byte that does (offset in the block), and how many bytes do."""

    block: str
    offset: int
    first: int
    bytes: int


@dataclass(frozen=True)
class BlockComparison:
    """One RAMBlock, matched by its idstr.

    ``size_a`` and ``size_b`` are bytes, None where a stream has no such block. ``counts`` has every class, in pages of
    ``page_size`` bytes: the smaller one, if the streams have pages of different sizes. ``problems``: why pages are
    unknown.
    """

    name: str
    size_a: int | None
    size_b: int | None
    page_size: int
    counts: Mapping[PageClass, int]
    problems: tuple[str, ...]
    _kept: Ranges | None = field(repr=False)
    _again: Walk = field(repr=False)

    @property
    def pages(self) -> int:
        """All pages, including those that only the larger block has."""
        return sum(self.counts.values())

    @property
    def same(self) -> bool:
        """Whether both have the block, with one size, and every page of it is known and the same."""
        return self.size_a == self.size_b and self.pages == self.counts[PageClass.SAME]

    def ranges(self) -> Iterator[Ranges]:
        """Yield every stretch of pages that differ, in order, in arrays of :data:`RANGE`.

        If there are too many to keep, they are compared again.
        """
        if self._kept is not None:
            yield self._kept
        else:
            for part in self._again.pieces():
                yield part[part["class"] != PageClass.SAME]

    def _units(self, *kinds: PageClass) -> Iterator[Ints]:
        """Yield the numbers of the pages of some classes."""
        for part in self.ranges():
            some = part[np.isin(part["class"], kinds)]
            start, length = (some[name].astype(np.int64) // self.page_size for name in ("offset", "length"))
            yield from spread(start, length)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, as ``--json`` has them."""
        return {
            "name": self.name,
            "size_a": self.size_a,
            "size_b": self.size_b,
            "page_size": self.page_size,
            "pages": self.pages,
            **{kind.word: count for kind, count in self.counts.items()},
            "problems": list(self.problems),
        }


@dataclass(frozen=True)
class RamComparison:
    """The guest memory of two streams, block by block: those of A in their order, then those that only B has."""

    blocks: tuple[BlockComparison, ...]
    _a: Ram = field(repr=False)
    _b: Ram = field(repr=False)

    @property
    def same(self) -> bool:
        """Whether the streams have the same blocks, and every page is known and the same."""
        return all(block.same for block in self.blocks)

    @property
    def counts(self) -> Mapping[PageClass, int]:
        """Pages of every class, of all blocks."""
        return {kind: sum(block.counts[kind] for block in self.blocks) for kind in PageClass}

    def moved(self) -> NDArray[np.void]:
        """Return the changed or filled pages of B that have the contents of another page of A (:data:`MOVED`).

        They stay changed or filled: this shows where their contents may come from. Reads all of A again.
        """
        pairs = [MovedBlock(*block._again.sides()) for block in self.blocks]
        wanted = (
            (number, units)
            for number, block in enumerate(self.blocks)
            for units in block._units(PageClass.CHANGED, PageClass.FILLED)
        )
        return find_moved(pairs, wanted)

    def differences(self, limit: int = 100) -> Iterator[PageDifference]:
        """Yield how pages differ, for the first ``limit`` pages whose contents are known in both streams."""
        yield from islice(self._differences(), limit)

    def _differences(self) -> Iterator[PageDifference]:
        for block in self.blocks:
            for part in block.ranges():
                for offset, length, kind in part.tolist():
                    if kind in (PageClass.CHANGED, PageClass.ZEROED, PageClass.FILLED):
                        for at in range(offset, offset + length, block.page_size):
                            yield self.difference(block, at)

    def difference(self, block: BlockComparison, offset: int) -> PageDifference:
        """Compare the page at ``offset`` byte by byte; both streams must have it."""
        size = block.page_size
        pages = []
        for ram in (self._a, self._b):
            base = offset // ram.page_size * ram.page_size
            page = np.frombuffer(ram.page(block.name, base, absent="zero"), np.uint8)
            pages.append(page[offset - base : offset - base + size])
        differ = np.flatnonzero(pages[0] != pages[1])
        first = offset + int(differ[0]) if len(differ) else offset
        return PageDifference(block.name, offset, first, len(differ))


def compare_ram(a: Stream, b: Stream, *, absent: Absent = "error") -> RamComparison:
    """Compare the guest memory of two streams; opened with ``keep_runs``, each is read through only once.

    A page in none of the given channels counts as ``only_a``, ``only_b`` or ``unknown``, unless ``absent="zero"``
    makes it read as zeros (see :class:`~qmigtool.ram.Ram`). Errors of reading a stream are in its ``problems``.
    Raises :class:`~qmigtool.errors.UnsupportedError` for a stream from a pipe, whose memory was not kept, and for page
    sizes of which neither divides the other.
    """
    for stream in (a, b):
        if not isinstance(stream.source, BufferSource):
            raise UnsupportedError(
                "comparing the memory of a pipe",
                "the guest memory of a stream from a pipe was not kept",
                section="ram",
                expected="two files",
            )
    one, other = a.ram, b.ram
    small, large = sorted((one.page_size, other.page_size))
    if large % small:
        raise UnsupportedError(f"pages of {small} bytes against pages of {large}", section="ram")
    names = dict.fromkeys(block.idstr for ram in (one, other) for block in ram.blocks)
    room = KEPT
    blocks = []
    for name in names:
        walk = Walk(name, one, other, small, absent)
        with task(f"comparing {name}", walk.size):
            counts, kept = walk.compare(room)
        room -= 0 if kept is None else len(kept)
        problems = tuple(walk.problems())
        blocks.append(BlockComparison(name, walk.size_a, walk.size_b, small, counts, problems, kept, walk))
    return RamComparison(tuple(blocks), one, other)


def _ram_ranges(comparison: RamComparison) -> Iterator[tuple[Any, ...]]:
    """The stretches of guest memory that differ between two streams."""
    for block in comparison.blocks:
        for part in block.ranges():
            for offset, length, kind in part.tolist():
                yield block.name, offset, length, length // block.page_size, PageClass(kind).word


ram_ranges = Table(
    "ram_ranges",
    (
        Column("block", "category", "RAMBlock name"),
        Column("offset", "UInt64", "byte in the RAMBlock where the stretch starts", mask=True),
        Column("length", "UInt64", "bytes"),
        Column("pages", "UInt64", "pages"),
        Column("class", "category", "changed, zeroed, filled, only_a, only_b, unknown"),
    ),
    _ram_ranges,
    "The stretches of guest memory that differ between two streams (a :class:`RamComparison`).",
)
