"""Pages of B with the contents of another page of A: memory that a guest moved rather than wrote.

Every page of A is hashed, and those of B that differ from A's page in the same place; if two hashes are equal, the
bytes are compared. Pages of one byte value do not show where they come from, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qmigtool.diff.ram.pages import BlockPages, HeldPage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bytes = NDArray[np.uint8]
    Hashes = NDArray[np.uint64]

__all__ = ["MOVED", "MovedBlock", "find_moved", "spread"]

MOVED = np.dtype([("block", "u2"), ("from_block", "u2"), ("offset", "u8"), ("from_offset", "u8")])
"""A page of B and where A has its contents: numbers of the blocks in the comparison, bytes in them."""

MAX_WANTED = 1 << 20  # pages looked for: some 50 MiB; further ones are left out
BATCH = 256 << 10
WINDOW = 1 << 14


class MovedBlock(NamedTuple):
    """One block of the comparison, in both streams."""

    a: BlockPages
    b: BlockPages


def find_moved(blocks: Sequence[MovedBlock], wanted: Iterator[tuple[int, Ints]]) -> NDArray[np.void]:
    """Return the pages of B that are elsewhere in A (:data:`MOVED`), each once, with the first place there.

    ``wanted`` yields the pages to look for: the number of a block, units of it. At most :data:`MAX_WANTED` are used.
    """
    hashes, block, unit = _wanted(blocks, wanted)
    order = np.argsort(hashes, kind="stable")
    hashes, block, unit = hashes[order], block[order], unit[order]
    if not len(hashes):
        return np.zeros(0, MOVED)
    distinct = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1])))
    from_block = np.full(len(distinct), -1, np.int64)
    from_unit = np.zeros(len(distinct), np.int64)
    for number, pages in enumerate(blocks):
        for units, found in _hashed(pages.a, _with_content(pages.a)):
            at = np.minimum(np.searchsorted(hashes[distinct], found), len(distinct) - 1)
            hit = np.flatnonzero((hashes[distinct][at] == found) & (from_block[at] < 0))
            where, first = np.unique(at[hit], return_index=True)
            from_block[where] = number
            from_unit[where] = units[hit[first]]
    group = np.repeat(np.arange(len(distinct)), np.diff(np.append(distinct, len(hashes))))
    known = from_block[group] >= 0
    out = np.zeros(int(known.sum()), MOVED)
    size = blocks[0].a.unit
    out["block"], out["offset"] = block[known], unit[known] * size
    out["from_block"], out["from_offset"] = from_block[group][known], from_unit[group][known] * size
    out.sort(order=["block", "offset"])
    return out[_the_same(blocks, out, size)]


def _wanted(blocks: Sequence[MovedBlock], wanted: Iterator[tuple[int, Ints]]) -> tuple[Hashes, Ints, Ints]:
    hashes: list[Hashes] = [np.zeros(0, np.uint64)]
    numbers: list[Ints] = [np.zeros(0, np.int64)]
    units: list[Ints] = [np.zeros(0, np.int64)]
    room = MAX_WANTED
    for number, some in wanted:
        side = blocks[number].b
        if not room:
            break
        for part, found in _hashed(side, iter([some[:room]])):
            hashes.append(found)
            units.append(part)
            numbers.append(np.full(len(part), number))
        room -= min(room, len(some))
    return np.concatenate(hashes), np.concatenate(numbers), np.concatenate(units)


def _with_content(side: BlockPages) -> Iterator[Ints]:
    """Yield the units of a block that may have more than one byte value."""
    segments = side.segments
    length = np.diff(np.append(segments.start, side.units))
    kept = (segments.held == HeldPage.IN_PLACE) | (segments.held == HeldPage.ENCODED)
    return spread(segments.start[kept], length[kept])


def spread(start: Ints, length: Ints) -> Iterator[Ints]:
    """Yield the single numbers in stretches, in arrays of bounded length."""
    before = np.concatenate(([0], np.cumsum(length)))
    for at in range(0, int(before[-1]), WINDOW):
        index = np.arange(at, min(at + WINDOW, int(before[-1])))
        which = np.searchsorted(before, index, side="right") - 1
        yield start[which] + index - before[which]


def _hashed(side: BlockPages, units: Iterator[Ints]) -> Iterator[tuple[Ints, Hashes]]:
    """Yield units and their hashes, without those that cannot be read or have one byte value."""
    words = side.unit // 8
    key = np.random.default_rng(0).integers(0, 1 << 63, words, np.uint64) << np.uint64(1) | np.uint64(1)
    for some in units:
        for part, pages, good in _fetched(side, some):
            plain = np.ascontiguousarray(pages)
            good &= (plain != plain[:, :1]).any(axis=1)
            hashes = np.einsum("ij,j->i", plain.view(np.uint64), key)
            yield part[good], hashes[good]


def _fetched(side: BlockPages, units: Ints) -> Iterator[tuple[Ints, Bytes, NDArray[np.bool_]]]:
    """Yield units, their contents, and which of them could be read."""
    if not len(units):
        return
    look = side.look(units, np.searchsorted(side.segments.start, units, side="right") - 1)
    step = max(1, BATCH // side.unit)
    for at in range(0, len(units), step):
        part = units[at : at + step]
        pages, broken = look.fetch(at, at + len(part))
        yield part, pages, np.ones(len(part), np.bool_) if broken is None else ~broken


def _the_same(blocks: Sequence[MovedBlock], moved: NDArray[np.void], size: int) -> NDArray[np.bool_]:
    """Compare the bytes of the pages found; two pages with one hash are not always the same."""
    same = np.zeros(len(moved), np.bool_)
    pairs = moved["block"].astype(np.int64) << 16 | moved["from_block"]
    for pair in np.unique(pairs).tolist():
        one, other = blocks[pair & 0xFFFF].a, blocks[pair >> 16].b
        mine = np.flatnonzero(pairs == pair)
        step = max(1, BATCH // size)
        for at in range(0, len(mine), step):
            rows = mine[at : at + step]
            sides = [
                next(_fetched(side, (moved[name][rows] // size).astype(np.int64)))
                for side, name in ((one, "from_offset"), (other, "offset"))
            ]
            same[rows] = (sides[0][1] == sides[1][1]).all(axis=1) & sides[0][2] & sides[1][2]
    return same
