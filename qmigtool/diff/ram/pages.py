"""Where the pages of one RAMBlock are in one stream, as columns, and reading many of them at once.

A block is divided into segments: stretches of pages of one kind. Pages that a channel holds unencoded (plain records,
mapped-ram, multifd without compression) are at places that a multiplication gives, so any number of them is read from
the file with one indexing operation, whatever the lengths of the runs. The others are read through
:class:`~qmigtool.ram.Ram`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from qmigtool.errors import QmigError
from qmigtool.ram.columns import VOID, Encoding
from qmigtool.ram.content import RAW

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qmigtool.ram.model import Absent, Ram

    Ints = NDArray[np.int64]
    Bytes = NDArray[np.uint8]
    Units = NDArray[np.void]

__all__ = ["BlockPages", "HeldPage", "Look", "Segments", "distinct"]

MAX_ERRORS = 20  # listed; the rest is counted


class HeldPage(IntEnum):
    """How a stream holds a page."""

    ABSENT = 0
    FILL = 1
    """One byte value."""
    IN_PLACE = 2
    """Its bytes, unencoded, at an offset of a channel."""
    ENCODED = 3
    """Compressed, or encoded as changes (XBZRLE)."""
    LOST = 4
    """Perhaps sent in a hole of the stream."""


def _held(encoding: Encoding) -> HeldPage:
    if encoding in VOID:
        return HeldPage.ABSENT
    if encoding.holds_zero:
        return HeldPage.FILL
    return HeldPage.IN_PLACE if encoding in RAW else HeldPage.ENCODED


_HELD = np.array([_held(encoding) for encoding in Encoding], np.uint8)


def distinct(*parts: Ints) -> Ints:
    """Return the values of all parts, each once, ascending (np.unique imports numpy.ma, which takes 8 ms)."""
    values = np.sort(np.concatenate(parts))
    return values[np.concatenate(([True], values[1:] != values[:-1]))]


class Segments(NamedTuple):
    """Stretches of units (see :class:`BlockPages`), ascending, that cover a block: one ends where the next starts.

    ``place`` is the byte in channel ``channel`` where the first page's content starts, ``stride`` the distance to the
    next page's.
    """

    start: Ints
    held: NDArray[np.uint8]
    fill: NDArray[np.uint8]
    channel: NDArray[np.uint16]
    place: Ints
    stride: Ints


class BlockPages:
    """One block of one stream, in units of ``unit`` bytes: a page, or a part of one if the other stream's are smaller.

    ``units`` is the number of units compared; those beyond the block's end are absent, and all of them if the stream
    has no such block. ``shared``: the block's memory is not in the stream (x-ignore-shared). ``errors`` are the errors
    of reading the units.
    """

    def __init__(self, ram: Ram, name: str, unit: int, units: int, absent: Absent) -> None:
        self.ram = ram
        self.name = name
        self.unit = unit
        self.units = units
        self.per_page = ram.page_size // unit
        self.errors: list[str] = []
        self.error_count = 0
        block = next((one for one in ram.blocks if one.idstr == name), None)
        self.shared = block is not None and block.mr_addr is not None and not len(ram.runs_of(name))
        self._absent = absent
        pages = 0 if block is None or self.shared else -(-block.used_length // ram.page_size)
        self.segments = self._segments(pages, -(-units // self.per_page))

    def _segments(self, pages: int, total: int) -> Segments:
        ram, per_page = self.ram, self.per_page
        if not pages:  # empty, or shared: then there is no last writer
            nothing = np.zeros(1, np.int64)
            small = np.zeros(1, np.uint8)
            return Segments(nothing, small, small, small.astype(np.uint16), nothing, nothing)
        final, gaps = ram.final(self.name), ram.gaps(self.name)
        end = final.start + final.pages
        start = distinct(np.array([0, pages]), final.start, end, gaps.ravel())
        start = start[start < max(total, 1)]
        at = np.searchsorted(final.start, start, side="right") - 1
        at_gap = np.searchsorted(gaps[:, 0], start, side="right") - 1
        known = (at >= 0) & (start < np.append(end, 0)[at]) & (start < pages)
        if self._absent == "error":  # otherwise changes to an absent page are changes to zeros
            known &= start >= np.append(gaps[:, 1], 0)[at_gap]
        run = ram.runs[final.run[at]] if len(final.run) else np.zeros(len(start), ram.runs.dtype)
        held = np.where(known, _HELD[run["encoding"]], HeldPage.ABSENT).astype(np.uint8)
        lacking = (held == HeldPage.ABSENT) & (start < pages)
        if self._absent == "error":  # memory that virtio-mem has not plugged is not absent
            lacking &= start >= np.append(gaps[:, 1], 0)[at_gap]
        held[lacking] = HeldPage.FILL
        if self._absent == "error" and len(final.run):
            held[(at >= 0) & (start < np.append(end, 0)[at]) & (run["encoding"] == Encoding.LOST)] = HeldPage.LOST
        fill = np.where(known, run["fill"], 0).astype(np.uint8)
        stride = run["head"].astype(np.int64) + run["payload"].astype(np.int64)
        place = run["offset"].astype(np.int64) + run["head"].astype(np.int64)
        place += (start - run["page"].astype(np.int64)) * stride
        return Segments(start * per_page, held, fill, run["channel"].astype(np.uint16), place, stride)

    def look(self, units: Ints, segment: Ints) -> Look:
        """Prepare to fetch some units, ascending, whose segments are known."""
        return Look(self, units, segment)

    def read(self, units: Ints, part: Ints, out: Bytes, broken: NDArray[np.bool_]) -> None:
        """Read consecutive units of any encoding into rows ``part`` of ``out``; page by page if that fails."""
        first, last = int(units[part[0]]) // self.per_page, int(units[part[-1]]) // self.per_page + 1
        skipped = int(units[part[0]]) - first * self.per_page
        try:
            read = [pages.copy() for _, pages in self.ram.read_pages(self.name, first, last)]
            whole = np.concatenate(read).reshape(-1, self.unit)
        except QmigError:
            whole = np.zeros(((last - first) * self.per_page, self.unit), np.uint8)
            bad = np.zeros(len(whole), np.bool_)
            for page in range(first, last):
                at = slice((page - first) * self.per_page, (page - first + 1) * self.per_page)
                try:
                    content = self.ram.page(self.name, page * self.ram.page_size, absent=self._absent)
                    whole[at] = np.frombuffer(content, np.uint8).reshape(-1, self.unit)
                except QmigError as error:
                    bad[at] = True
                    self.note(error)
            broken[part] = bad[skipped : skipped + len(part)]
        out[part] = whole[skipped : skipped + len(part)]

    def note(self, error: QmigError) -> None:
        """Record a page that cannot be read."""
        self.error_count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(str(error))


class Look:
    """Some units of a block, of which any stretch can be read.

    One channel holds nearly all of them unencoded: they are read from one view of it, and the others are replaced.
    """

    def __init__(self, pages: BlockPages, units: Ints, segment: Ints) -> None:
        s = pages.segments
        self._pages = pages
        self._units = units
        self._held = s.held[segment]
        self._fill = s.fill[segment]
        self._channel = s.channel[segment]
        page, part = np.divmod(units - s.start[segment], pages.per_page)
        self._place = s.place[segment] + page * s.stride[segment] + part * pages.unit
        self._plain = self._held == HeldPage.IN_PLACE
        self._data: memoryview | None = None
        if not bool(self._plain.any()):
            return
        main = int(self._channel[np.argmax(self._plain)])
        source = pages.ram.channel(main)
        self._plain &= (self._channel == main) & (self._place >= 0) & (self._place + pages.unit <= len(source.whole))
        places = self._place[self._plain]
        if not len(places):
            return
        low, high = int(places.min()), int(places.max()) + pages.unit
        self._data = source.view(low, high - low)
        self._from = np.where(self._plain, self._place - low, 0)
        # Every byte starts an item, so that indexing copies whole units from anywhere.
        self._items: Units = np.ndarray(
            (high - low - pages.unit + 1,), np.dtype((np.void, pages.unit)), self._data, 0, 1
        )
        # How often the distance to the next unit has changed so far: no copy is needed where it is constant.
        step = np.diff(self._from)
        self._bends = np.concatenate(([0, 0], np.cumsum(step[1:] != step[:-1]), [0]))
        self._all_plain = np.concatenate(([0], np.cumsum(~self._plain)))

    def fetch(self, first: int, last: int) -> tuple[Bytes, NDArray[np.bool_] | None]:
        """Return the contents of units ``[first, last)`` of these, uint8 of shape (units, bytes).

        The second part marks those that could not be read, if any.
        """
        size, part = self._pages.unit, slice(first, last)
        if self._data is None:
            out = np.empty((last - first, size), np.uint8)
        else:
            if self._all_plain[first] == self._all_plain[last]:
                start, stride = (
                    int(self._from[first]),
                    int(self._from[min(first + 1, last - 1)]) - int(self._from[first]),
                )
                if last - first < 2 or (self._bends[last - 1] == self._bends[first + 1] and stride > 0):
                    return np.ndarray((last - first, size), np.uint8, self._data, start, (stride, 1)), None
                return self._items[self._from[part]].view(np.uint8).reshape(-1, size), None
            out = self._items[self._from[part]].view(np.uint8).reshape(-1, size)
        broken = np.zeros(last - first, np.bool_)
        held = self._held[part]
        filled = held == HeldPage.FILL
        out[filled] = self._fill[part][filled, None]
        for at in np.flatnonzero((held == HeldPage.IN_PLACE) & ~self._plain[part]).tolist():
            self._elsewhere(first + at, out[at : at + 1], broken[at : at + 1])
        encoded = np.flatnonzero(held == HeldPage.ENCODED)
        units = self._units[part]
        for rows in np.split(encoded, np.flatnonzero(np.diff(units[encoded]) != 1) + 1) if len(encoded) else ():
            self._pages.read(units, rows, out, broken)
        return out, broken if bool(broken.any()) else None

    def _elsewhere(self, at: int, out: Bytes, broken: NDArray[np.bool_]) -> None:
        """Read one unit from another channel than most, or record that its channel ends before it."""
        try:
            place, size = int(self._place[at]), self._pages.unit
            out[0] = np.frombuffer(self._pages.ram.channel(int(self._channel[at])).view(place, size), np.uint8)
        except QmigError as error:
            broken[0] = True
            self._pages.note(error)
