"""Guest memory of one stream: the writer of each page, and its final contents."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np

from qmigtool.errors import UnsupportedError, UsageError
from qmigtool.parsers.source import BufferSource
from qmigtool.parsers.xbzrle import apply_xbzrle, parse_xbzrle
from qmigtool.ram.columns import VOID, Encoding, RunColumns
from qmigtool.ram.cover import Cover, common, cover, without
from qmigtool.util.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from qmigtool.parsers.ramstate import RamBlock
    from qmigtool.parsers.returnpath import Message
    from qmigtool.ram.content import Content
    from qmigtool.ram.unplugged import Region

__all__ = ["PageRecord", "Ram"]

CHUNK = 256  # pages copied at a time: 1 MiB
KEPT_BLOCKS = 1000  # what is derived for each of the last blocks is kept; a file may list 60000 blocks

Absent: TypeAlias = Literal["error", "zero"]
"""What to do about pages that are in none of the given channels: refuse, or treat them as zero."""


class PageRecord(NamedTuple):
    """One record of one page.

    ``order`` counts runs in the order of application, ``pass_`` counts rounds through memory, ``offset`` is the
    start of the record in channel ``channel``.
    """

    order: int
    pass_: int
    channel: int
    offset: int
    encoding: Encoding


class Gaps(NamedTuple):
    """The ranges of pages of a block without contents, ascending: (first, end) each."""

    absent: NDArray[np.int64]
    unplugged: NDArray[np.int64]


class Ram:
    """The memory of a stream; get it as :attr:`qmigtool.Stream.ram`.

    ``runs`` is the table of all records (:data:`qmigtool.ram.columns.RUN`) in the order they apply; ``return_path`` has
    the page requests of the destination, if that channel was given; ``flushes`` is whether the main channel has records
    that synchronise multifd's channels. Addresses are byte offsets inside a RAMBlock.

    A migration sends every page at least once. So a page that no record wrote (or whose last record is a DISCARD) is
    *absent*: it was sent on a channel that was not given, or the stream is truncated. Reading one raises
    :class:`~qmigtool.errors.UnsupportedError`, unless ``absent="zero"`` makes it read as zeros: with
    free-page-hinting, unused guest memory is never sent. A page with XBZRLE changes only, without
    its base, is absent too. Memory that virtio-mem has not plugged (``regions``) is not guest memory: never
    sent, never absent, and it reads as zeros.
    """

    def __init__(
        self,
        blocks: Sequence[RamBlock],
        runs: RunColumns,
        content: Content,
        requests: Sequence[Message] = (),
        regions: Sequence[Region] = (),
        *,
        flushes: bool = False,
    ) -> None:
        self.blocks = tuple(blocks)
        self.runs = runs
        self.return_path = requests
        self.flushes = flushes
        self.page_size = content.page_size
        self._content = content
        self._regions = tuple(regions)
        self._index = {block.idstr: index for index, block in enumerate(self.blocks)}
        self._covers: Recent[int, Cover] = Recent(KEPT_BLOCKS)
        self._gaps: Recent[int, Gaps] = Recent(KEPT_BLOCKS)
        self._deltas: Recent[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = Recent(KEPT_BLOCKS)

    def __repr__(self) -> str:
        size = sum(block.used_length for block in self.blocks)
        return f"<Ram {len(self.blocks)} blocks, {size:#x} bytes, {len(self.runs)} runs, {self.channels} channels>"

    @property
    def channels(self) -> int:
        """The number of channels with pages; the main stream always counts."""
        return len(np.union1d(self.runs["channel"], [0]))

    def block(self, name: str) -> int:
        """Return the index of a RAMBlock; raises :class:`~qmigtool.errors.UsageError`."""
        index = self._index.get(name)
        if index is None:
            raise UsageError(f"no RAM block {name!r}", expected="one of " + ", ".join(self._index))
        return index

    @cached_property
    def passes(self) -> NDArray[np.int64]:
        """The round of each run: a new one starts where (block, page) of a channel decreases.

        Requested pages (postcopy, background snapshot) are in any order: after a switchover this counts jumps.
        """
        rounds = np.zeros(len(self.runs), np.int64)
        for channel in np.unique(self.runs["channel"]):
            mine = np.flatnonzero((self.runs["channel"] == channel) & ~np.isin(self.runs["encoding"], VOID))
            block, page = self.runs["block"][mine].astype(np.int64), self.runs["page"][mine].astype(np.int64)
            end = page + self.runs["pages"][mine].astype(np.int64)
            back = (np.diff(block) < 0) | ((np.diff(block) == 0) & (page[1:] < end[:-1]))
            rounds[mine] = np.concatenate(([0], np.cumsum(back))) if len(mine) else rounds[mine]
        return rounds

    def absent(self, name: str) -> int:
        """Return how many pages of a block are in none of the given channels; of a shared block (x-ignore-shared) maybe
        all."""
        gaps = self._absent(self.block(name))
        return int((gaps[:, 1] - gaps[:, 0]).sum())

    def gaps(self, name: str) -> NDArray[np.int64]:
        """Return the ranges of absent pages of a block, ascending: (first, end) each."""
        return self._absent(self.block(name))

    def unplugged(self, name: str) -> NDArray[np.int64]:
        """Return the ranges that were never sent because virtio-mem has not plugged them: (first, end) page each,
        ascending.
        """
        return self._missing(self.block(name)).unplugged

    def channel(self, number: int) -> BufferSource:
        """Return the source of a channel, for pages that are in it uncompressed (RAW encodings).

        Raises :class:`~qmigtool.errors.UnsupportedError` for a stream that was read from a pipe: its memory
        was not kept.
        """
        source = self._content.source(number)
        if not isinstance(source, BufferSource):
            raise UnsupportedError("guest memory of a stream from a pipe", section="ram", expected="a file")
        return source

    def page(self, name: str, addr: int, *, absent: Absent = "error") -> bytes:
        """Return the final contents of the page with byte ``addr`` of a block; for ``absent`` see the class."""
        index = self.block(name)
        self._check(index, addr, 1)
        page = addr // self.page_size
        self._check_present(index, page, page + 1, absent)
        return self._page(index, page)

    def read(self, name: str, addr: int, length: int, *, absent: Absent = "error") -> bytes:
        """Return ``length`` bytes of a block's final contents; for ``absent`` see the class."""
        index = self.block(name)
        self._check(index, addr, length)
        size = self.page_size
        first, last = addr // size, -(-(addr + length) // size)
        self._check_present(index, first, last, absent)
        data = b"".join(pages.tobytes() for _, pages in self._stretches(index, first, last))
        return data[addr - first * size : addr - first * size + length]

    def history(self, name: str, addr: int) -> list[PageRecord]:
        """Return every record of one page, oldest first."""
        index = self.block(name)
        self._check(index, addr, 1)
        page = addr // self.page_size
        mine = self._runs_of(index)
        first = self.runs["page"][mine].astype(np.int64)
        hit = (first <= page) & (page - first < self.runs["pages"][mine].astype(np.int64))
        return [self._record(int(order), page) for order in mine[hit]]

    def final(self, name: str) -> Cover:
        """Return the last writer of each page of a block: segments (first page, pages, number of the run)."""
        index = self.block(name)
        base = self._cover(index)
        pages, orders = self._delta(index)
        if not len(pages):
            return base
        mine = self._select(index, delta=False)
        return cover(
            np.concatenate((self.runs["page"][mine].astype(np.int64), pages)),
            np.concatenate((self.runs["pages"][mine].astype(np.int64), np.ones(len(pages), np.int64))),
            np.concatenate((mine, orders)),
        )

    def pages(self, name: str, *, absent: Absent = "error") -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (first page, pages) of a block's final contents in order: uint8 of shape (up to 256, page size).

        For ``absent`` see the class; an error is raised before the first page.
        """
        index = self.block(name)
        count = self._pages_of(index)
        self._check_sent(index)
        self._check_present(index, 0, count, absent)
        yield from self._stretches(index, 0, count)

    def stretches(self, name: str, *, absent: Absent = "error") -> list[tuple[int, int]]:
        """Return the ranges of pages (first, end), in order, outside of which a block is all zero.

        Pages inside them may be zero too: no page is read. For ``absent`` see the class.
        """
        index = self.block(name)
        self._check_sent(index)
        self._check_present(index, 0, self._pages_of(index), absent)
        return list(self._sent(index))

    def read_pages(self, name: str, first: int, last: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (first page, pages) of pages ``[first, last)`` as :meth:`pages` does; absent ones read as zeros."""
        index = self.block(name)
        self._check(index, first * self.page_size, (last - first) * self.page_size)
        yield from self._stretches(index, first, last)

    def write_block(self, name: str, file: BinaryIO, *, absent: Absent = "error") -> None:
        """Write a block's final contents to a file at its current position; zero pages become holes.

        For ``absent`` see the class; an error is raised before the file is changed.
        """
        index = self.block(name)
        self._check_sent(index)
        self._check_present(index, 0, self._pages_of(index), absent)
        size = self.page_size
        start = file.tell()
        file.truncate(start)  # otherwise the old contents would show in the holes
        for begin, end in self._sent(index):
            for first, pages in self._stretches(index, begin, end):
                live = np.flatnonzero(pages.any(axis=1))
                for part in np.split(live, np.flatnonzero(np.diff(live) != 1) + 1) if len(live) else ():
                    file.seek(start + (first + int(part[0])) * size)
                    file.write(pages[part[0] : part[-1] + 1].tobytes())
        file.truncate(start + self.blocks[index].used_length)
        file.seek(start + self.blocks[index].used_length)

    def count(self) -> dict[str, dict[str, int]]:
        """Return block -> encoding -> pages sent (a page sent twice counts twice), without DISCARD."""
        return {
            name: {encoding.name.lower(): pages for encoding, pages in each.items() if encoding not in VOID}
            for name, each in self._counted.items()
        }

    def runs_of(self, name: str) -> NDArray[np.int64]:
        """Return the numbers of the runs of a block, in the order of application."""
        return self._runs_of(self.block(name))

    def discarded(self) -> dict[str, int]:
        """Return block -> pages that postcopy told the destination to discard."""
        return {name: each.get(Encoding.DISCARD, 0) for name, each in self._counted.items()}

    # -- inside ------------------------------------------------------------------------------------------------------

    @cached_property
    def _counted(self) -> dict[str, dict[Encoding, int]]:
        kinds = len(Encoding)
        sums = np.zeros(len(self.blocks) * kinds, np.int64)
        keys = self.runs["block"].astype(np.int64) * kinds + self.runs["encoding"]
        np.add.at(sums, keys, self.runs["pages"].astype(np.int64))
        out: dict[str, dict[Encoding, int]] = {block.idstr: {} for block in self.blocks}
        for key in np.flatnonzero(sums).tolist():
            out[self.blocks[key // kinds].idstr][Encoding(key % kinds)] = int(sums[key])
        return out

    @cached_property
    def _by_block(self) -> tuple[NDArray[np.int64], list[int]]:
        """The numbers of all runs, grouped by block, and the start of each block's: 65,536 blocks are legal."""
        order = np.argsort(self.runs["block"], kind="stable").astype(np.int64)
        bounds = np.searchsorted(self.runs["block"][order], np.arange(len(self.blocks) + 1))
        return order, bounds.tolist()

    def _runs_of(self, index: int) -> NDArray[np.int64]:
        """Return the numbers of a block's runs, ascending."""
        order, bounds = self._by_block
        return order[bounds[index] : bounds[index + 1]]

    def _pages_of(self, index: int) -> int:
        return -(-self.blocks[index].used_length // self.page_size)

    def _absent(self, index: int) -> NDArray[np.int64]:
        """Return the ranges of absent pages, ascending: (first, end) each."""
        return self._missing(index).absent

    def _missing(self, index: int) -> Gaps:
        if index not in self._gaps:
            base = self._cover(index)
            kept = ~np.isin(self.runs["encoding"][base.run], VOID)
            start = np.append(base.start[kept], self._pages_of(index))
            end = np.concatenate(([0], (base.start + base.pages)[kept]))
            gaps = np.stack((end, start), axis=1)[end < start]
            unplugged = self._not_plugged(index, gaps) if len(gaps) else gaps
            self._gaps[index] = Gaps(without(gaps, unplugged), unplugged)
        return self._gaps[index]

    def _not_plugged(self, index: int, gaps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the parts of ``gaps`` that a virtio-mem device explains: the one with the most similar region."""
        block = self.blocks[index]
        fitting = [region for region in self._regions if region.fits(block)]
        named = [region for region in fitting if region.path and block.idstr.startswith(f"{region.path}/")]
        best = np.zeros((0, 2), np.int64)
        for region in named or fitting:
            # Whole pages that are not plugged.
            some = [(-(-a // self.page_size), b // self.page_size) for a, b in region.unplugged]
            found = common(gaps, np.array(some, np.int64).reshape(-1, 2))
            if int((found[:, 1] - found[:, 0]).sum()) > int((best[:, 1] - best[:, 0]).sum()):
                best = found
        return best

    def _check_present(self, index: int, first: int, last: int, absent: Absent) -> None:
        """Refuse to invent pages of ``[first, last)``, unless the caller allows it."""
        if absent == "zero":
            return
        gaps = self._absent(index)
        at = int(np.searchsorted(gaps[:, 1], first, side="right"))
        if at == len(gaps) or gaps[at, 0] >= last:
            return
        name = self.blocks[index].idstr
        page = max(first, int(gaps[at, 0])) * self.page_size
        raise UnsupportedError(
            "pages that are in none of the given channels",
            f"page {page:#x} of RAM block {name!r}, one of {self.absent(name)}, is in none of the given channels",
            section="ram",
            expected="all channels of the migration (multifd, postcopy preempt), or zeros in their place: "
            "`qmigtool unwrap` has --channel and --absent zero for that",
        )

    def _check(self, index: int, addr: int, length: int) -> None:
        block = self.blocks[index]
        self._check_sent(index)
        if addr < 0 or length < 0 or addr + length > block.used_length:
            raise UsageError(
                f"{length} bytes at {addr:#x} of RAM block {block.idstr!r}", expected=f"below {block.used_length:#x}"
            )

    def _check_sent(self, index: int) -> None:
        """Refuse a block whose pages are elsewhere: with x-ignore-shared, shared blocks are listed but never sent."""
        self._content.check_open()
        if self.blocks[index].mr_addr is not None and not len(self._runs_of(index)):
            raise UnsupportedError(
                "shared memory (x-ignore-shared)",
                f"RAM block {self.blocks[index].idstr!r} is shared memory, not in the stream (x-ignore-shared)",
                section="ram",
            )

    def _record(self, order: int, page: int) -> PageRecord:
        run = self.runs[order]
        encoding = Encoding(run["encoding"])
        stride = int(run["head"]) + int(run["payload"])
        offset = int(run["offset"]) + (page - int(run["page"])) * stride
        return PageRecord(order, int(self.passes[order]), int(run["channel"]), offset, encoding)

    def _select(self, index: int, *, delta: bool) -> NDArray[np.int64]:
        mine = self._runs_of(index)
        chosen: NDArray[np.int64] = mine[(self.runs["encoding"][mine] == Encoding.XBZRLE) == delta]
        return chosen

    def _cover(self, index: int) -> Cover:
        """The last writer of whole pages."""
        if index not in self._covers:
            mine = self._select(index, delta=False)
            self._covers[index] = cover(
                self.runs["page"][mine].astype(np.int64), self.runs["pages"][mine].astype(np.int64), mine
            )
        return self._covers[index]

    def _delta(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The XBZRLE records: page numbers, ascending, and for each its position in the order."""
        if index not in self._deltas:
            mine = self._select(index, delta=True)
            # Consecutive deltas of equal length are one run, like all records.
            count = self.runs["pages"][mine].astype(np.int64)
            each = np.repeat(mine, count)
            first = np.repeat(np.cumsum(count) - count, count)
            pages = self.runs["page"][each].astype(np.int64) + np.arange(len(each)) - first
            order = np.argsort(pages, kind="stable")
            self._deltas[index] = pages[order], each[order]
        return self._deltas[index]

    def _page(self, index: int, page: int) -> bytes:
        base = self._cover(index)
        at = base.find(page)
        since = -1
        content = bytes(self.page_size)
        if at is not None:
            since = int(base.run[at])
            run = self.runs[since]
            content = self._content.page(run, page - int(run["page"]))
        pages, orders = self._delta(index)
        for order in orders[np.searchsorted(pages, page, "left") : np.searchsorted(pages, page, "right")]:
            if order > since:
                run = self.runs[order]
                raw = self._content.payload(run, page - int(run["page"]))
                content = apply_xbzrle(parse_xbzrle(raw, self.page_size, int(run["offset"])), content)
        return content

    def _sent(self, index: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of pages, in order, outside of which all is zero."""
        base = self._cover(index)
        last = self.runs[base.run]
        hollow = (last["fill"] == 0) & np.isin(last["encoding"], [e for e in Encoding if e.holds_zero])
        deltas = np.unique(self._delta(index)[0])
        start = np.concatenate((base.start[~hollow], deltas))
        order = np.argsort(start, kind="stable")
        end = np.concatenate(((base.start + base.pages)[~hollow], deltas + 1))[order]
        reached = 0
        for begin, stop in zip(start[order].tolist(), end.tolist(), strict=True):
            if stop > reached:
                yield max(begin, reached), stop
                reached = stop

    def _stretches(self, index: int, first: int, last: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield the final contents of pages ``[first, last)`` in pieces of up to CHUNK pages."""
        base = self._cover(index)
        deltas, _ = self._delta(index)
        page = first
        segment = max(0, int(np.searchsorted(base.start, first, side="right")) - 1)
        while page < last:
            while segment < len(base.start) and base.start[segment] + base.pages[segment] <= page:
                segment += 1
            if segment == len(base.start) or base.start[segment] > page:
                stop = last if segment == len(base.start) else min(last, int(base.start[segment]))
                count = min(CHUNK, stop - page)
                pages = np.zeros((count, self.page_size), np.uint8)
            else:
                run = self.runs[int(base.run[segment])]
                stop = min(last, int(base.start[segment] + base.pages[segment]))
                count = min(CHUNK, stop - page)
                pages = self._content.pages(run, page - int(run["page"]), count)
            changed = deltas[np.searchsorted(deltas, page) : np.searchsorted(deltas, page + count)]
            if len(changed):
                pages = pages.copy()
                for one in np.unique(changed):
                    pages[int(one) - page] = np.frombuffer(self._page(index, int(one)), np.uint8)
            yield page, pages
            page += count
