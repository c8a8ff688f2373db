"""Comparing guest memory page by page, whatever its encoding in either stream.

Two pages are the same if their final contents are; how often and in which encoding they were sent does not matter.
Where neither stream needs a look (both say zero, or one has nothing) none is taken; the rest is compared in batches of
some hundred KiB, by bytes. Memory grows with the number of runs of records, never with the guest's RAM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qmigtool.diff.rammoved import MOVED, Block, find_moved, spread
from qmigtool.diff.rampages import BlockPages, Held, distinct
from qmigtool.errors import UnsupportedError
from qmigtool.parsers.source import BufferSource
from qmigtool.tables import Column, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qmigtool.ram import Ram
    from qmigtool.ram.model import Absent
    from qmigtool.stream import Stream

    Ints = NDArray[np.int64]
    Classes = NDArray[np.uint8]

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

WINDOW = 1 << 14  # units whose places are worked out at once
BATCH = 256 << 10  # bytes of each stream compared at once: both, and the result, stay in the cache
KEPT = 1 << 18  # ranges remembered of a comparison: 4 MiB; if there are more, they are found again when asked for


class PageClass(IntEnum):
    """What the comparison says of a page."""

    SAME = 0
    CHANGED = 1
    ZEROED = 2
    """Not zero in A, zero in B."""
    FILLED = 3
    """Zero in A, not zero in B."""
    ONLY_A = 4
    """Absent in B: in no channel given, or beyond the end of a smaller block."""
    ONLY_B = 5
    UNKNOWN = 6
    """Absent in both, or it cannot be read in one."""

    @property
    def word(self) -> str:
        """The name as JSON and tables have it: ``only_a``."""
        return self.name.lower()


RANGE = np.dtype([("offset", "u8"), ("length", "u8"), ("class", "u1")])
"""A stretch of pages of one class: bytes in the RAMBlock, and :class:`PageClass`."""

Ranges = np.ndarray[tuple[int], np.dtype[np.void]]


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
    ``page_size`` bytes: the smaller one, if the streams have pages of different sizes. ``problems`` say why pages are
    unknown.
    """

    name: str
    size_a: int | None
    size_b: int | None
    page_size: int
    counts: Mapping[PageClass, int]
    problems: tuple[str, ...]
    _kept: Ranges | None = field(repr=False)
    _again: _Walk = field(repr=False)

    @property
    def pages(self) -> int:
        """All pages, those that only the larger block has too."""
        return sum(self.counts.values())

    @property
    def same(self) -> bool:
        """Whether both have the block, with one size, and every page of it is known and the same."""
        return self.size_a == self.size_b and self.pages == self.counts[PageClass.SAME]

    def ranges(self) -> Iterator[Ranges]:
        """Give every stretch of pages that is not the same, in order, in arrays of :data:`RANGE`.

        If there are too many to remember, they are compared anew.
        """
        if self._kept is not None:
            yield self._kept
        else:
            for part in self._again.pieces():
                yield part[part["class"] != PageClass.SAME]

    def _units(self, *kinds: PageClass) -> Iterator[Ints]:
        """Give the numbers of the pages of some classes."""
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
        """Return which changed or filled pages of B hold what another page of A holds (:data:`MOVED`).

        They stay changed or filled: this says where their content may have come from. Reads all of A once more.
        """
        pairs = [Block(*block._again.sides()) for block in self.blocks]
        wanted = (
            (number, units)
            for number, block in enumerate(self.blocks)
            for units in block._units(PageClass.CHANGED, PageClass.FILLED)
        )
        return find_moved(pairs, wanted)

    def differences(self, limit: int = 100) -> Iterator[PageDifference]:
        """Give how the first ``limit`` pages differ whose content is known in both streams."""
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

    A page that is in no channel given counts as ``only_a``, ``only_b`` or ``unknown``, unless ``absent="zero"`` says
    that it reads as zeros (see :class:`~qmigtool.ram.Ram`). What a stream's own reading met is in its ``problems``.
    Raises :class:`~qmigtool.errors.UnsupportedError` for a stream from a pipe, whose memory is gone, and for page
    sizes of which neither divides the other.
    """
    for stream in (a, b):
        if not isinstance(stream.source, BufferSource):
            raise UnsupportedError(
                "comparing the memory of a pipe",
                "the guest memory of a stream from a pipe is gone",
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
        block = _Walk(name, one, other, small, absent).compare(room)
        room -= 0 if block._kept is None else len(block._kept)
        blocks.append(block)
    return RamComparison(tuple(blocks), one, other)


class _Walk:
    """One walk through a block in both streams."""

    def __init__(self, name: str, a: Ram, b: Ram, unit: int, absent: Absent) -> None:
        self.name = name
        self._rams = (a, b)
        self._unit = unit
        self._absent = absent
        self._size_a, self._size_b = _size(a, name), _size(b, name)
        self._units = max(
            -(-(size or 0) // ram.page_size) * (ram.page_size // unit)
            for ram, size in ((a, self._size_a), (b, self._size_b))
        )
        self._sides: list[BlockPages] = []
        self._out = np.empty((max(1, BATCH // unit), unit), np.bool_)

    def compare(self, room: int) -> BlockComparison:
        """Walk once, and remember up to ``room`` ranges."""
        counts: Counter[int] = Counter()
        kept: list[Ranges] | None = []
        for part in self.pieces():
            sums = np.zeros(len(PageClass), np.int64)
            np.add.at(sums, part["class"], (part["length"] // np.uint64(self._unit)).astype(np.int64))
            counts.update(dict(enumerate(sums.tolist())))
            if kept is not None:
                found = part[part["class"] != PageClass.SAME]
                room -= len(found)
                kept = [*kept, found] if room >= 0 else None
        return BlockComparison(
            self.name,
            self._size_a,
            self._size_b,
            page_size=self._unit,
            counts={kind: counts[kind] for kind in PageClass},
            problems=tuple(self._problems()),
            _kept=np.concatenate([np.zeros(0, RANGE), *kept]) if kept is not None else None,
            _again=self,
        )

    def _problems(self) -> Iterator[str]:
        for word, side in zip("AB", self._sides, strict=True):
            if side.shared:
                yield f"{word}: shared memory, not in the stream (x-ignore-shared)"
            yield from (f"{word}: {error}" for error in side.errors)
            if side.error_count > len(side.errors):
                yield f"{word}: and {side.error_count - len(side.errors)} more pages that cannot be read"

    def sides(self) -> list[BlockPages]:
        """Return what either stream has of the block."""
        return [BlockPages(ram, self.name, self._unit, self._units, self._absent) for ram in self._rams]

    def pieces(self) -> Iterator[Ranges]:
        """Give all stretches, of every class, in order; two that follow each other differ in class."""
        last = np.zeros(0, RANGE)
        for starts, units, kinds in self._stretches():
            part = np.zeros(len(starts), RANGE)
            part["offset"] = starts * self._unit
            part["length"] = units * self._unit
            part["class"] = kinds
            part = np.concatenate((last, part))
            first = np.flatnonzero(np.concatenate(([True], part["class"][1:] != part["class"][:-1])))
            part, lengths = part[first], np.add.reduceat(part["length"], first)
            part["length"] = lengths
            last = part[-1:]
            if len(part) > 1:
                yield part[:-1]
        if len(last):
            yield last

    def _stretches(self) -> Iterator[tuple[Ints, Ints, Classes]]:
        """Give (first unit, units, class) of stretches in order, in arrays of bounded length."""
        self._sides = self.sides()
        start = distinct(*(side.segments.start for side in self._sides))
        bounds = np.append(start, self._units)
        for at in range(0, len(start), WINDOW):
            some = bounds[at : at + WINDOW + 1]
            yield from self._windows(some[:-1], np.diff(some))

    def _windows(self, start: Ints, units: Ints) -> Iterator[tuple[Ints, Ints, Classes]]:
        """Do the same for stretches in which neither side has a segment that starts."""
        a, b = (side.segments for side in self._sides)
        ia = np.searchsorted(a.start, start, side="right") - 1
        ib = np.searchsorted(b.start, start, side="right") - 1
        kinds, look = _without_a_look(a.held[ia], a.fill[ia], b.held[ib], b.fill[ib])
        # A long stretch that needs a look is taken in parts.
        parts = np.where(look, -(-units // WINDOW), 1)
        which = np.repeat(np.arange(len(start)), parts)
        number = np.arange(len(which)) - np.repeat(np.cumsum(parts) - parts, parts)
        kinds, look, ia, ib = kinds[which], look[which], ia[which], ib[which]
        units = np.where(look, np.minimum(units[which] - number * WINDOW, WINDOW), units[which])
        start = start[which] + number * WINDOW
        work = np.cumsum(np.where(look, units, 1))
        done = 0
        while done < len(start):
            before = int(work[done - 1]) if done else 0
            end = max(done + 1, int(np.searchsorted(work, before + 2 * WINDOW, side="right")))
            part = slice(done, end)
            yield self._look(start[part], units[part], kinds[part], look[part], ia[part], ib[part])
            done = end

    def _look(
        self, start: Ints, units: Ints, kinds: Classes, look: NDArray[np.bool_], ia: Ints, ib: Ints
    ) -> tuple[Ints, Ints, Classes]:
        """Compare the units of the stretches that need it, and return all in order."""
        if not bool(look.any()):
            return start, units, kinds
        count = units[look]
        which = np.repeat(np.flatnonzero(look), count)
        unit = start[which] + np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        found = self._classes(unit, ia[which], ib[which])
        # Stretches of one class among the units looked at; where one ends in between, the order below puts it right.
        first = np.flatnonzero(np.concatenate(([True], (found[1:] != found[:-1]) | (unit[1:] != unit[:-1] + 1))))
        starts = np.concatenate((start[~look], unit[first]))
        order = np.argsort(starts, kind="stable")
        lengths = np.concatenate((units[~look], np.diff(np.append(first, len(unit)))))
        return starts[order], lengths[order], np.concatenate((kinds[~look], found[first]))[order]

    def _classes(self, unit: Ints, ia: Ints, ib: Ints) -> Classes:
        """Compare the content of units, and say the class of each."""
        a, b = (side.look(unit, which) for side, which in zip(self._sides, (ia, ib), strict=True))
        out = np.zeros(len(unit), np.uint8)
        step = len(self._out)
        for first in range(0, len(unit), step):
            last = min(first + step, len(unit))
            one, bad_a = a.fetch(first, last)
            other, bad_b = b.fetch(first, last)
            differ = self._out[: last - first]
            np.not_equal(one, other, out=differ)
            rows = np.flatnonzero(differ.any(axis=1))
            if len(rows):
                mine = out[first:last]
                mine[rows] = PageClass.CHANGED
                # The largest byte is found many times faster than any that is not zero.
                mine[rows[one[rows].max(axis=1) == 0]] = PageClass.FILLED
                mine[rows[other[rows].max(axis=1) == 0]] = PageClass.ZEROED
            for bad in (bad_a, bad_b):
                if bad is not None:
                    out[first:last][bad] = PageClass.UNKNOWN
        return out


def _without_a_look(
    held_a: Classes, fill_a: Classes, held_b: Classes, fill_b: Classes
) -> tuple[Classes, NDArray[np.bool_]]:
    """Say what is known of stretches without their content, and which of them need a look."""
    lacks_a, lacks_b = held_a == Held.ABSENT, held_b == Held.ABSENT
    both_fill = (held_a == Held.FILL) & (held_b == Held.FILL)
    kinds = np.select(
        [lacks_a & lacks_b, lacks_a, lacks_b, fill_a == fill_b, fill_b == 0, fill_a == 0],
        [
            PageClass.UNKNOWN,
            PageClass.ONLY_B,
            PageClass.ONLY_A,
            PageClass.SAME,
            PageClass.ZEROED,
            PageClass.FILLED,
        ],
        PageClass.CHANGED,
    ).astype(np.uint8)
    return kinds, ~(lacks_a | lacks_b | both_fill)


def _size(ram: Ram, name: str) -> int | None:
    return next((block.used_length for block in ram.blocks if block.idstr == name), None)


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
