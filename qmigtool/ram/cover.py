"""The last writer wins: from runs of pages in the order of application to the last run of each page."""

from __future__ import annotations

import heapq
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cover", "common", "cover", "without"]

Ints = NDArray[np.int64]


class Cover(NamedTuple):
    """Segments that do not overlap, ascending: pages ``[start, start + pages)`` belong to run number ``run``."""

    start: Ints
    pages: Ints
    run: Ints

    def find(self, page: int) -> int | None:
        """Return the index of the segment with ``page``, or None if no run wrote it."""
        index = int(np.searchsorted(self.start, page, side="right")) - 1
        if index < 0 or page >= self.start[index] + self.pages[index]:
            return None
        return index


def cover(start: Ints, pages: Ints, run: Ints) -> Cover:
    """Resolve runs ``[start, start + pages)``; of two that overlap, the one with the larger ``run`` wins.

    Runs without overlap (nearly all, in a stream of one pass) are only sorted; clusters of overlapping
    runs are swept, in time O(n log n).
    """
    order = np.argsort(start, kind="stable")
    first, count, who = start[order], pages[order], run[order]
    end = first + count
    if len(first) == 0 or bool(np.all(first[1:] >= end[:-1])):
        return Cover(first, count, who)
    reach = np.maximum.accumulate(end)
    # A cluster starts where all earlier runs have ended.
    heads = np.flatnonzero(np.concatenate(([True], first[1:] >= reach[:-1])))
    tails = np.append(heads[1:], len(first))
    alone = tails - heads == 1
    kept = heads[alone]
    swept: list[tuple[int, int, int]] = []
    for head, tail in zip(heads[~alone].tolist(), tails[~alone].tolist(), strict=True):
        _sweep(first[head:tail].tolist(), end[head:tail].tolist(), who[head:tail].tolist(), swept)
    more = np.array(swept, dtype=np.int64).reshape(-1, 3)
    starts = np.concatenate((first[kept], more[:, 0]))
    order = np.argsort(starts, kind="stable")
    return Cover(
        starts[order],
        np.concatenate((count[kept], more[:, 1]))[order],
        np.concatenate((who[kept], more[:, 2]))[order],
    )


def _sweep(first: list[int], end: list[int], who: list[int], out: list[tuple[int, int, int]]) -> None:
    """Resolve one cluster, its runs sorted by start: at each page the newest open run wins."""
    bounds = sorted({*first, *end})
    open_: list[tuple[int, int]] = []  # (-run, end): the newest on top
    i = 0
    for left, right in pairwise(bounds):
        while i < len(first) and first[i] <= left:
            heapq.heappush(open_, (-who[i], end[i]))
            i += 1
        while open_ and open_[0][1] <= left:
            heapq.heappop(open_)
        if open_:
            winner = -open_[0][0]
            if out and out[-1][2] == winner and out[-1][0] + out[-1][1] == left:
                out[-1] = (out[-1][0], right - out[-1][0], winner)
            else:
                out.append((left, right - left, winner))


def common(one: Ints, other: Ints) -> Ints:
    """Return the intersection of two ascending lists of ranges (first, end)."""
    found: list[tuple[int, int]] = []
    mine, theirs = one.tolist(), other.tolist()
    i = j = 0
    while i < len(mine) and j < len(theirs):
        start, end = max(mine[i][0], theirs[j][0]), min(mine[i][1], theirs[j][1])
        if start < end:
            found.append((start, end))
        if mine[i][1] < theirs[j][1]:
            i += 1
        else:
            j += 1
    return np.array(found, np.int64).reshape(-1, 2)


def without(one: Ints, other: Ints) -> Ints:
    """Return the ascending ranges (first, end) without those of ``other``."""
    if not len(other):
        return one
    found: list[tuple[int, int]] = []
    theirs = other.tolist()
    j = 0
    for start, end in one.tolist():
        at = start
        while j < len(theirs) and theirs[j][1] <= at:
            j += 1
        i = j
        while i < len(theirs) and theirs[i][0] < end:
            if theirs[i][0] > at:
                found.append((at, theirs[i][0]))
            at = max(at, theirs[i][1])
            i += 1
        if at < end:
            found.append((at, end))
    return np.array(found, np.int64).reshape(-1, 2)
