"""Guest memory of one stream: who wrote each page, and what it finally holds."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from qmigtool.errors import UnsupportedError, UsageError
from qmigtool.parsers.xbzrle import apply_xbzrle, parse_xbzrle
from qmigtool.ram.columns import Encoding, RunColumns
from qmigtool.ram.cover import Cover, cover

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from qmigtool.parsers.ram import RamBlock
    from qmigtool.parsers.returnpath import Message
    from qmigtool.ram.content import Content

__all__ = ["PageRecord", "Ram"]

CHUNK = 256  # pages moved at once: 1 MiB


class PageRecord(NamedTuple):
    """One record of one page.

    ``order`` counts runs in the order they apply, ``pass_`` is the number of the round through memory, ``offset`` the
    byte in channel ``channel`` where the record starts.
    """

    order: int
    pass_: int
    channel: int
    offset: int
    encoding: Encoding


class Ram:
    """The memory of a stream; get it as :attr:`qmigtool.Stream.ram`.

    ``runs`` is the table of all records (:data:`qmigtool.ram.columns.RUN`) in the order they apply; ``return_path`` has
    the messages of the destination, if that channel was given. Addresses are byte offsets inside a RAMBlock; a page
    that no record wrote is zero, as fresh memory is.
    """

    def __init__(
        self, blocks: Sequence[RamBlock], runs: RunColumns, content: Content, requests: Sequence[Message] = ()
    ) -> None:
        self.blocks = tuple(blocks)
        self.runs = runs
        self.return_path = tuple(requests)
        self.page_size = content.page_size
        self._content = content
        self._index = {block.idstr: index for index, block in enumerate(self.blocks)}
        self._covers: dict[int, Cover] = {}
        self._deltas: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def block(self, name: str) -> int:
        """Return the index of a RAMBlock; raises :class:`~qmigtool.errors.UsageError`."""
        index = self._index.get(name)
        if index is None:
            raise UsageError(f"no RAM block {name!r}", expected="one of " + ", ".join(self._index))
        return index

    @cached_property
    def passes(self) -> NDArray[np.int64]:
        """The round of each run: a new one starts where a channel goes back in (block, page).

        Requests (postcopy, background snapshot) jump around, so after a switchover this counts jumps, not rounds.
        """
        rounds = np.zeros(len(self.runs), np.int64)
        for channel in np.unique(self.runs["channel"]):
            mine = np.flatnonzero((self.runs["channel"] == channel) & (self.runs["encoding"] != Encoding.DISCARD))
            block, page = self.runs["block"][mine].astype(np.int64), self.runs["page"][mine].astype(np.int64)
            back = (np.diff(block) < 0) | ((np.diff(block) == 0) & (np.diff(page) <= 0))
            rounds[mine] = np.concatenate(([0], np.cumsum(back))) if len(mine) else rounds[mine]
        return rounds

    def page(self, name: str, addr: int) -> bytes:
        """Return the final content of the page with byte ``addr`` of a block."""
        index = self.block(name)
        self._check(index, addr, 1)
        return self._page(index, addr // self.page_size)

    def read(self, name: str, addr: int, length: int) -> bytes:
        """Return ``length`` bytes of a block's final content."""
        index = self.block(name)
        self._check(index, addr, length)
        size = self.page_size
        first, last = addr // size, -(-(addr + length) // size)
        data = b"".join(pages.tobytes() for _, pages in self._stretches(index, first, last))
        return data[addr - first * size : addr - first * size + length]

    def history(self, name: str, addr: int) -> list[PageRecord]:
        """Return every record of one page, oldest first."""
        index = self.block(name)
        self._check(index, addr, 1)
        page = addr // self.page_size
        runs = self.runs
        first = runs["page"]
        hit = (runs["block"] == index) & (first <= page) & (page - first.astype(np.int64) < runs["pages"])
        return [self._record(int(order), page) for order in np.flatnonzero(hit)]

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

    def pages(self, name: str) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Give (first page, pages) of a block's final content in order: uint8 of shape (up to 256, page size)."""
        index = self.block(name)
        self._check_sent(index)
        yield from self._stretches(index, 0, -(-self.blocks[index].used_length // self.page_size))

    def write_block(self, name: str, file: BinaryIO) -> None:
        """Write a block's final content to a file; zero pages become holes."""
        index = self.block(name)
        size = self.page_size
        start = file.tell()
        for first, pages in self.pages(name):
            live = np.flatnonzero(pages.any(axis=1))
            for part in np.split(live, np.flatnonzero(np.diff(live) != 1) + 1) if len(live) else ():
                file.seek(start + (first + int(part[0])) * size)
                file.write(pages[part[0] : part[-1] + 1].tobytes())
        file.truncate(start + self.blocks[index].used_length)
        file.seek(start + self.blocks[index].used_length)

    def count(self) -> dict[str, dict[str, int]]:
        """Return block -> encoding -> pages sent (a page sent twice counts twice)."""
        out: dict[str, dict[str, int]] = {}
        for index, block in enumerate(self.blocks):
            mine = self.runs[self.runs["block"] == index]
            out[block.idstr] = {
                encoding.name.lower(): int(mine["pages"][mine["encoding"] == encoding].sum())
                for encoding in Encoding
                if bool((mine["encoding"] == encoding).any())
            }
        return out

    # -- inside ------------------------------------------------------------------------------------------------------

    def _check(self, index: int, addr: int, length: int) -> None:
        block = self.blocks[index]
        self._check_sent(index)
        if addr < 0 or length < 0 or addr + length > block.used_length:
            raise UsageError(
                f"{length} bytes at {addr:#x} of RAM block {block.idstr!r}", expected=f"below {block.used_length:#x}"
            )

    def _check_sent(self, index: int) -> None:
        """Refuse a block whose pages are elsewhere: with x-ignore-shared, shared blocks are listed and never sent."""
        if self.blocks[index].mr_addr is not None and not (self.runs["block"] == index).any():
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
        is_delta = self.runs["encoding"] == Encoding.XBZRLE
        return np.flatnonzero((self.runs["block"] == index) & (is_delta == delta)).astype(np.int64)

    def _cover(self, index: int) -> Cover:
        """The last writer of whole pages."""
        if index not in self._covers:
            mine = self._select(index, delta=False)
            self._covers[index] = cover(
                self.runs["page"][mine].astype(np.int64), self.runs["pages"][mine].astype(np.int64), mine
            )
        return self._covers[index]

    def _delta(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The XBZRLE records: page numbers, ascending, and for each its place in the order."""
        if index not in self._deltas:
            mine = self._select(index, delta=True)
            # Deltas of equal length in a row are one run, as all records are.
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

    def _stretches(self, index: int, first: int, last: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Give the final content of pages ``[first, last)`` in pieces of up to CHUNK pages."""
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
