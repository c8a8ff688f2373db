"""Page records that stay where they are, and changes of those that an edit touches.

A record with CONTINUE belongs to the last block that was named. Whole blocks can be dropped without an effect on the
others, because QEMU names a block whenever it returns to it. But if a block loses some of its own records, the record
that named it may be one of them: then the next record that stays must name it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qmigtool.errors import UnsupportedError
from qmigtool.parsers.ram import CONTINUE, PAGE, ZERO
from qmigtool.parsers.record import encode_name
from qmigtool.parsers.records import RamSaveFlag
from qmigtool.ram.columns import Encoding
from qmigtool.rewrite.splice import Made, Splice, differing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qmigtool.rewrite.memory import BlockDraft, MemoryDraft

__all__ = ["splices", "zero_records"]

WORD = 8
CHUNK = 1 << 16  # records made at once
# encoding -> flag of its record, bytes before its payload in a record that names no block
_RECORDS = {
    Encoding.ZERO: (ZERO, WORD + 1),
    Encoding.NORMAL: (PAGE, WORD),
    Encoding.XBZRLE: (int(RamSaveFlag.XBZRLE), WORD + 3),
    Encoding.COMPRESSED: (int(RamSaveFlag.COMPRESS_PAGE), WORD + 4),
}


class _Run(NamedTuple):
    """A run of records: ``offset`` of the first, ``stride`` between them, first ``page`` and number of ``pages``."""

    encoding: Encoding
    offset: int
    stride: int
    head: int
    page: int
    pages: int
    fill: int
    named: bool


def splices(memory: MemoryDraft) -> Iterator[Splice]:
    """Yield the splices of the page records, without the block list."""
    runs = memory.ram.runs
    _check_named_elsewhere(memory)
    known = np.isin(runs["encoding"], [int(one) for one in _RECORDS]) & (runs["channel"] == 0)
    for block in memory.blocks:
        if not (block.touched or memory.squeeze):
            continue
        mine = memory.ram.runs_of(block.block.idstr)
        found = runs[mine[known[mine]]]
        if block.dropped:
            yield from _drop(found)
        else:
            yield from _Records(memory, block).splices(found)


def _check_named_elsewhere(memory: MemoryDraft) -> None:
    """Refuse to change blocks whose names or pages are also in parts that are not written again."""
    touched = [block for block in memory.blocks if block.touched]
    if touched and any(memory.ram.discarded().values()):
        raise UnsupportedError(
            "editing the blocks of a postcopy stream",
            "blocks of a postcopy stream are also named by its commands; convert it first",
            section="ram",
            expected="--ram plain first",
        )
    for block in touched:
        if memory.ram.runs["channel"][memory.ram.runs_of(block.block.idstr)].any():
            raise UnsupportedError(
                "editing blocks whose pages are in other channels",
                f"pages of RAM block {block.block.idstr!r} are in other channels, which stay as they are",
                section="ram",
                expected="--ram plain, which joins the channels",
            )


def _drop(found: NDArray[np.void]) -> Iterator[Splice]:
    """Yield the splices that drop these runs; adjacent runs become one splice."""
    at = end = -1
    for run in found:
        offset = int(run["offset"])
        if offset != end:
            if end > at:
                yield Splice(at, end - at, b"")
            at = offset
        end = offset + int(run["pages"]) * (int(run["head"]) + int(run["payload"]))
    if end > at:
        yield Splice(at, end - at, b"")


class _Records:
    """Changes the records of one block that stays."""

    def __init__(self, memory: MemoryDraft, block: BlockDraft) -> None:
        self._memory = memory
        self._block = block
        self._page_size = memory.page_size
        self._pages = -(-block.sent // memory.page_size)
        self._owed = False  # whether the record that named the block was dropped: the next one must name it

    def splices(self, found: NDArray[np.void]) -> Iterator[Splice]:
        """Yield the splices for these runs, which are in the order of the stream."""
        for row in found:
            encoding = Encoding(int(row["encoding"]))
            _, bare = _RECORDS[encoding]
            head, pages = int(row["head"]), int(row["pages"])
            stride = head + int(row["payload"])
            named = head > bare
            # Adjacent records that all name their block are one run, too: the name changes in each of them.
            for first in range(0, pages, 1 if named else pages):
                run = _Run(
                    encoding,
                    int(row["offset"]) + first * stride,
                    stride,
                    head,
                    int(row["page"]) + first,
                    1 if named else pages,
                    int(row["fill"]),
                    named,
                )
                self._owed |= named
                for start, count, zero in self._segments(run):
                    yield from self._segment(run, start, count, zero)

    def _segments(self, run: _Run) -> Iterator[tuple[int, int, bool | None]]:
        """Yield (first record, number of records, zero): True for zero pages, False for unchanged, None for dropped."""
        kept = min(max(self._pages - run.page, 0), run.pages)
        if kept:
            if self._block.scrub:
                yield 0, kept, run.encoding is not Encoding.ZERO or run.fill != 0
            elif self._memory.squeeze and run.encoding is Encoding.NORMAL:
                yield from self._squeezed(run, kept)
            else:
                yield 0, kept, False
        if kept < run.pages:
            yield kept, run.pages - kept, None

    def _squeezed(self, run: _Run, count: int) -> Iterator[tuple[int, int, bool | None]]:
        source = self._memory.stream.source
        empty = np.zeros(count, bool)
        for at in range(0, count, CHUNK):
            some = min(CHUNK, count - at)
            raw = np.frombuffer(source.view(run.offset + at * run.stride, some * run.stride), np.uint8)
            empty[at : at + some] = ~raw.reshape(some, run.stride)[:, run.head :].any(axis=1)
        edges = np.flatnonzero(np.diff(empty)) + 1
        bounds = [0, *edges.tolist(), count]
        for start, end in pairwise(bounds):
            yield start, end - start, bool(empty[start])

    def _segment(self, run: _Run, first: int, count: int, zero: bool | None) -> Iterator[Splice]:
        offset = run.offset + first * run.stride
        if zero is None:
            yield Splice(offset, count * run.stride, b"")
            return
        name = self._block.name if self._owed else None
        if zero:
            made = zero_records(run.page + first, count, name, self._page_size)
            yield Splice(offset, count * run.stride, (made,))
        elif name is not None:
            flag, bare = _RECORDS[run.encoding]
            # Before the name is the flags word, after it the bytes of the encoding.
            old = run.head if run.named and first == 0 else bare
            source = self._memory.stream.source
            rest = bytes(source.view(offset + old - (bare - WORD), bare - WORD))
            word = (run.page + first) * self._page_size | flag
            yield from differing(offset, bytes(source.view(offset, old)), _named(word, name) + rest)
        self._owed = False


def _named(word: int, name: str) -> bytes:
    raw = encode_name(name)
    return word.to_bytes(WORD, "big") + bytes([len(raw)]) + raw


def zero_records(first: int, count: int, name: str | None, page_size: int) -> Made:
    """Return ``count`` records of zero pages from page ``first`` on; with ``name``, the first one names its block."""
    head = b"" if name is None else _named(first * page_size | ZERO, name) + b"\0"
    start = first if name is None else first + 1
    rest = first + count - start

    def chunks() -> Iterator[bytes]:
        yield head
        for at in range(0, rest, CHUNK):
            some = min(CHUNK, rest - at)
            out = np.zeros((some, WORD + 1), np.uint8)
            words = (np.arange(start + at, start + at + some, dtype=np.uint64) * np.uint64(page_size)) | np.uint64(
                ZERO | CONTINUE
            )
            out[:, :WORD] = words.astype(">u8").view(np.uint8).reshape(some, WORD)
            yield out.tobytes()

    return Made(len(head) + rest * (WORD + 1), chunks)
