"""One walk through a RAMBlock in two streams, and the class of every page.

Pages whose class follows without reading (both zero, or absent in one) are not read; the others are compared bytewise
in batches that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from qmigtool.diff.ram.pages import BlockPages, HeldPage, distinct
from qmigtool.util.progress import reach

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qmigtool.ram.model import Absent, Ram

    Ints = NDArray[np.int64]
    Classes = NDArray[np.uint8]

__all__ = ["RANGE", "PageClass", "Ranges", "Walk"]

WINDOW = 1 << 14  # units whose places are computed at once
BATCH = 256 << 10  # bytes of each stream compared at once: both, and the result, stay in the cache


class PageClass(IntEnum):
    """The result of the comparison for a page."""

    SAME = 0
    CHANGED = 1
    ZEROED = 2
    """Not zero in A, zero in B."""
    FILLED = 3
    """Zero in A, not zero in B."""
    ONLY_A = 4
    """Absent in B: in none of the given channels, or beyond the end of a smaller block."""
    ONLY_B = 5
    UNKNOWN = 6
    """Absent in both, or unreadable in one."""

    @property
    def word(self) -> str:
        """The name as JSON and tables have it: ``only_a``."""
        return self.name.lower()


RANGE = np.dtype([("offset", "u8"), ("length", "u8"), ("class", "u1")])
"""A stretch of pages of one class: bytes in the RAMBlock, and :class:`PageClass`."""

Ranges = np.ndarray[tuple[int], np.dtype[np.void]]


class Walk:
    """One walk through a block in both streams."""

    def __init__(self, name: str, a: Ram, b: Ram, unit: int, absent: Absent) -> None:
        self.name = name
        self._rams = (a, b)
        self._unit = unit
        self._absent = absent
        self.size_a, self.size_b = _size(a, name), _size(b, name)
        self._units = max(
            -(-(size or 0) // ram.page_size) * (ram.page_size // unit)
            for ram, size in ((a, self.size_a), (b, self.size_b))
        )
        self._sides: list[BlockPages] = []
        self._out = np.empty((max(1, BATCH // unit), unit), np.bool_)

    def compare(self, room: int) -> tuple[dict[PageClass, int], Ranges | None]:
        """Walk once; return the pages of each class, and the ranges that differ, if there are at most ``room``."""
        counts = np.zeros(len(PageClass), np.int64)
        kept: list[Ranges] | None = [np.zeros(0, RANGE)]
        for part in self.pieces():
            np.add.at(counts, part["class"], (part["length"] // np.uint64(self._unit)).astype(np.int64))
            if kept is not None:
                found = part[part["class"] != PageClass.SAME]
                room -= len(found)
                kept = [*kept, found] if room >= 0 else None
        return dict(zip(PageClass, counts.tolist(), strict=True)), np.concatenate(kept) if kept is not None else None

    @property
    def size(self) -> int:
        """The bytes to compare."""
        return self._units * self._unit

    def problems(self) -> Iterator[str]:
        """Yield why pages are unknown; complete after the walk."""
        for word, side in zip("AB", self._sides, strict=True):
            if side.shared:
                yield f"{word}: shared memory, not in the stream (x-ignore-shared)"
            yield from (f"{word}: {error}" for error in side.errors)
            if side.error_count > len(side.errors):
                yield f"{word}: and {side.error_count - len(side.errors)} more pages that cannot be read"

    def sides(self) -> list[BlockPages]:
        """Return the block in both streams."""
        return [BlockPages(ram, self.name, self._unit, self._units, self._absent) for ram in self._rams]

    def pieces(self) -> Iterator[Ranges]:
        """Yield all stretches, of every class, in order; adjacent ones differ in class."""
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
        """Yield (first unit, units, class) of stretches in order, in arrays of bounded length."""
        self._sides = self.sides()
        start = distinct(*(side.segments.start for side in self._sides))
        bounds = np.append(start, self._units)
        for at in range(0, len(start), WINDOW):
            some = bounds[at : at + WINDOW + 1]
            yield from self._windows(some[:-1], np.diff(some))

    def _windows(self, start: Ints, units: Ints) -> Iterator[tuple[Ints, Ints, Classes]]:
        """Do the same for stretches in which no segment starts on either side."""
        a, b = (side.segments for side in self._sides)
        ia = np.searchsorted(a.start, start, side="right") - 1
        ib = np.searchsorted(b.start, start, side="right") - 1
        kinds, look = _without_a_look(a.held[ia], a.fill[ia], b.held[ib], b.fill[ib])
        # A long stretch that must be read is read in parts.
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
            reach(int(start[end - 1] + units[end - 1]) * self._unit)

    def _look(
        self, start: Ints, units: Ints, kinds: Classes, look: NDArray[np.bool_], ia: Ints, ib: Ints
    ) -> tuple[Ints, Ints, Classes]:
        """Compare the units of the stretches that must be read, and return all stretches in order."""
        if not bool(look.any()):
            return start, units, kinds
        count = units[look]
        which = np.repeat(np.flatnonzero(look), count)
        unit = start[which] + np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        found = self._classes(unit, ia[which], ib[which])
        # Stretches of one class among the units read; where one ends in between, the sort below corrects the order.
        first = np.flatnonzero(np.concatenate(([True], (found[1:] != found[:-1]) | (unit[1:] != unit[:-1] + 1))))
        starts = np.concatenate((start[~look], unit[first]))
        order = np.argsort(starts, kind="stable")
        lengths = np.concatenate((units[~look], np.diff(np.append(first, len(unit)))))
        return starts[order], lengths[order], np.concatenate((kinds[~look], found[first]))[order]

    def _classes(self, unit: Ints, ia: Ints, ib: Ints) -> Classes:
        """Compare the contents of units, and return the class of each."""
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
    """Return the class of stretches as far as it is known without reading, and which of them must be read."""
    lost = (held_a == HeldPage.LOST) | (held_b == HeldPage.LOST)
    lacks_a, lacks_b = held_a == HeldPage.ABSENT, held_b == HeldPage.ABSENT
    both_fill = (held_a == HeldPage.FILL) & (held_b == HeldPage.FILL)
    kinds = np.select(
        [lost | lacks_a & lacks_b, lacks_a, lacks_b, fill_a == fill_b, fill_b == 0, fill_a == 0],
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
    return kinds, ~(lost | lacks_a | lacks_b | both_fill)


def _size(ram: Ram, name: str) -> int | None:
    return next((block.used_length for block in ram.blocks if block.idstr == name), None)
