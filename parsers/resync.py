"""Reading a stream on behind a hole, where the start of a record or a section can be proved.

A hole is a part of the stream that a capture does not have. Behind it the reader continues, in this order,

- at the end of the record or section that the hole is in, if what is before the hole tells its length;
- in RAM, if exactly one chain of records starts behind the hole. A chain is proved if it is longer than two pages:
  guest memory may contain records, but a page of it is cut by the header of the next one. Chains that meet are one, and
  it is used from where all that could meet have met. If there are two (a guest may hold forged records), none is used;
- at a device section that the vmdesc at the end proves, or that has a plausible header and a footer.

Records with CONTINUE do not name their block. Theirs is known if only one block has all of their addresses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.errors import QmigError, TruncatedError
from qmigtool.parsers.bodies import FOOTER_SIZE, SearchedBody, footer_of, plausible
from qmigtool.parsers.ram import CONTINUE, WORD, RamBody, record_end
from qmigtool.parsers.records import RamSaveFlag, SectionHeader, SectionType
from qmigtool.parsers.savevm import OpenSection, Reader
from qmigtool.parsers.section import Section, Type
from qmigtool.parsers.window import BE64, Window
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from qmigtool.parsers.ramstate import RamState
    from qmigtool.parsers.source import BufferSource

__all__ = ["ResumingReader", "bounded_window", "sections_over_holes", "unread"]

NAME = 256  # bytes of the longest name of a block, with its length
SEARCHED = 16 << 20  # bytes behind a hole in which a device section is searched for
_FULL = re.compile(rb"\x7e....\x04", re.DOTALL)

Hole = tuple[int, int]


class _Boundary(NamedTuple):
    """Where reading continues: in a RAM body with ``block`` as the current one, or at an item."""

    offset: int
    in_ram: bool
    block: int | None = None


@dataclass(slots=True)
class ResumingReader(Reader):
    """A reader that can continue behind a hole."""

    @property
    def item(self) -> int:
        """Where the item being read starts."""
        return self._item

    @property
    def ram_id(self) -> int | None:
        """The id of the ``ram`` section, if it was started and has not ended."""
        ids = (number for number, header in self.started.items() if header.idstr == "ram")
        return next((number for number in ids if number not in self._ended), None)

    def known_end(self, whole: memoryview) -> int | None:
        """Return where the record or section that the window's end cuts ends, if that is known.

        ``whole`` has the bytes behind the window.
        """
        open_ = self._open
        if open_ is None or self._state != self._in_body:
            return None
        if isinstance(open_.body, RamBody):
            try:
                return record_end(self.window, self.pos, self.ram)[0]
            except QmigError:
                return None
        end, footer = getattr(open_.body, "end", None), footer_of(open_.header.section_id)
        ends = end is not None and self.footers and bytes(whole[end : end + len(footer)]) == footer
        return end if ends else None

    def skip_to(self, window: Window, end: int) -> None:
        """Continue in another window at the :meth:`known_end` of a record or section; what it held is lost."""
        open_ = self._open
        assert open_ is not None  # noqa: S101 - there is no known end without
        if isinstance(open_.body, RamBody):
            _, named = record_end(self.window, self.pos, self.ram)
            self.ram.current = self.ram.current if named is None else named
            if self.ram.current is not None:
                word = self.window.be64(self.pos, "a RAM record")
                self.ram.lose(self.pos, self.ram.current, word & ~(self.ram.page_size - 1))
        else:
            self._state = self._footer
        self._open = replace(open_, complete=False, offset=end, body_offset=end)
        self.window, self.pos, self._item = window, end, end

    def continue_at(self, window: Window, pos: int, *, in_ram: bool) -> None:
        """Continue in another window, at a record in a RAM body or at an item."""
        self.window, self.pos, self._item, self._open = window, pos, pos, None
        self._state = self._next_item
        if self._package_end is not None and self._package_end <= pos:
            self._package_end = None
        if in_ram and self.ram_id is not None:
            self._open = OpenSection(Type.PART, pos, pos, RamBody(self.ram), self.started[self.ram_id], complete=False)
            self._state = self._in_body


def bounded_window(source: BufferSource) -> Window:
    """Return the window of a stream up to its first hole."""
    end = source.holes[0][0] if source.holes else len(source.whole)
    return Window(source.whole[:end], final=True, passed=source.passed)


def unread(source: BufferSource, start: int, end: int) -> Iterator[Section]:
    """Yield sections for a part that was not read: its holes, and what is between them."""
    at = start
    for offset, length in source.holes:
        first, last = max(offset, start), min(offset + length, end)
        if first < last:
            if at < first:
                yield Section(Type.UNREADABLE, at, first - at, at, first - at, complete=False)
            yield Section(Type.HOLE, first, last - first, first, last - first)
            at = last
    if at < end:
        yield Section(Type.UNREADABLE, at, end - at, at, end - at, complete=False)


def sections_over_holes(reader: ResumingReader, source: BufferSource, goals: Collection[int] = ()) -> Iterator[Section]:
    """Yield the sections of a reader whose window is :func:`bounded_window`, also those behind holes.

    ``goals`` are the offsets of sections that are proved from the end of the stream. Raises what
    :meth:`~qmigtool.parsers.savevm.Reader.sections` raises.
    """
    while True:
        try:
            yield from reader.sections()
        except TruncatedError:
            later = [hole for hole in source.holes if hole[0] >= reader.window.end]
            if not later or later[0][0] != reader.window.end:
                raise
            begun = reader.partial()
            found = _over(reader, source, later, sorted(goals))
            if found is None:
                raise
            yield from _between(reader, source, begun, later[0])
        else:
            if reader.done and source.holes and reader.window.end < len(source.whole):
                yield from unread(source, reader.window.end, len(source.whole))
            return


def _between(reader: ResumingReader, source: BufferSource, begun: Section | None, hole: Hole) -> Iterator[Section]:
    """Yield what is between the last section and where the reader continues."""
    if begun is not None:
        yield begun
    yield from unread(source, hole[0], reader.item)


def _over(reader: ResumingReader, source: BufferSource, holes: list[Hole], goals: list[int]) -> int | None:
    """Continue the reader behind a hole; return where, or None if no boundary can be proved."""
    known = reader.known_end(source.whole)
    for index, (offset, length) in enumerate(holes):
        start = offset + length
        end = holes[index + 1][0] if index + 1 < len(holes) else len(source.whole)
        window = Window(source.whole[start:end], base=start, final=True, passed=source.passed)
        if known is not None and known >= start:
            if known < end:
                reader.skip_to(window, known)
                return known
            continue  # the same record has the next hole, too
        found = _in_ram(reader, window, goals) or _at_item(reader, window, goals)
        if found is not None:
            reader.ram.lose_all(holes[0][0])
            reader.continue_at(window, found.offset, in_ram=found.in_ram)
            reader.ram.current = found.block
            return found.offset
    return None


# -- RAM ---------------------------------------------------------------------------------------------------------------


def _in_ram(reader: ResumingReader, window: Window, goals: list[int]) -> _Boundary | None:
    """Return the boundary in RAM that is proved behind a hole, if the hole ended in a RAM body."""
    state = reader.ram
    if not state.blocks or reader.ram_id is None:
        return None
    walk = _Walk(window, state, reader.ram_id, reader.started, goals, footers=reader.footers is not False)
    reach = window.base + state.page_size + WORD + 1 + NAME  # no record that the hole cut is longer
    meetings = set()
    last = min(reach, window.end - WORD)
    unpack, buf, base, mask = BE64.unpack_from, window.buf, window.base, state.page_size - 1
    for at in range(window.base, last):
        word = unpack(buf, at - base)[0]
        if word & mask in walk.starts and word < walk.most:
            current().tick(at, "ram")
            met = walk.proved(at, reach)
            if met is not None:
                meetings.add(met)
                if len(meetings) > 1:
                    return None
    if not meetings:
        return None
    return walk.attributed(meetings.pop())


class _Walk:
    """Follows chains of RAM records from any offset."""

    def __init__(
        self,
        window: Window,
        state: RamState,
        ram_id: int,
        started: Collection[int],
        goals: list[int],
        *,
        footers: bool,
    ) -> None:
        self._window = window
        self._state = state
        self._goals = frozenset(goals)
        self._started = started
        self._id = ram_id.to_bytes(4, "big")
        self._footer = footer_of(ram_id) if footers else b""
        kinds = (RamSaveFlag.ZERO, RamSaveFlag.PAGE, RamSaveFlag.XBZRLE, RamSaveFlag.COMPRESS_PAGE)
        alone = (RamSaveFlag.EOS, RamSaveFlag.MULTIFD_FLUSH)
        self.starts = frozenset(int(kind) | more for kind in kinds for more in (0, CONTINUE)) | {int(a) for a in alone}
        self.sizes = sorted(block.used_length for index, block in enumerate(state.blocks) if not state.left_out(index))
        self.most = self.sizes[-1] if self.sizes else 0

    def steps(self, at: int) -> Iterator[tuple[_Boundary, int | None, int]]:
        """Yield each boundary of a chain from ``at`` on, with the block that its record names, and its address."""
        window, state = self._window, self._state
        mask = state.page_size - 1
        while True:
            try:
                word = window.be64(at, "a RAM record")
                flags, addr = word & mask, word & ~mask
                if flags == RamSaveFlag.EOS and not addr:
                    yield _Boundary(at, True), None, -1
                    at += WORD
                    if window.bytes(at, len(self._footer), "a footer") != self._footer:
                        return
                    at += len(self._footer)
                    kind = window.u8(at, "an item")
                    again = kind in (SectionType.QEMU_VM_SECTION_PART, SectionType.QEMU_VM_SECTION_END)
                    if again and window.bytes(at + 1, 4, "an id") == self._id:
                        yield _Boundary(at, False), None, -1
                        at += 5
                        continue
                    if at in self._goals or plausible(window, at, self._started):
                        yield _Boundary(at, False), None, -1
                    return
                if flags == RamSaveFlag.MULTIFD_FLUSH and not addr:
                    yield _Boundary(at, True), None, -1
                    at += WORD
                    continue
                end, named = record_end(window, at, state)
                limit = self.most if named is None else state.blocks[named].used_length
                if addr >= limit or end > window.end:
                    return
            except QmigError:
                return
            yield _Boundary(at, True), named, addr
            at = end

    def proved(self, at: int, reach: int) -> _Boundary | None:
        """Return where a chain may be used from, if it is one: where all chains that are true have met."""
        met = None
        for boundary, _, _ in self.steps(at):
            if met is None and boundary.offset >= reach:
                met = boundary
            if boundary.offset in self._goals:
                return met or boundary
            if met is not None and boundary.offset - reach > 2 * (self._state.page_size + WORD + NAME):
                return met
        return None

    def attributed(self, boundary: _Boundary) -> _Boundary | None:
        """Return where the block of the records is known: from the boundary, from a later record, or at an item."""
        highest = -1
        first = boundary.offset
        if not boundary.in_ram:
            item = bytes(self._window.view(first, 5, "an item")) if first + 5 <= self._window.end else b""
            if item[:1] not in (b"\x02", b"\x03") or item[1:] != self._id:
                return boundary
            first += 5
        for count, (one, named, addr) in enumerate(self.steps(first)):
            if not count % 1024:
                current().tick(one.offset, "ram")
            if named is not None:
                if one.offset == first:
                    return boundary
                return self._only(boundary, highest) or one
            highest = max(highest, addr)
            if len(self.sizes) < 2 or highest >= self.sizes[-2]:
                return self._only(boundary, highest)
            if not one.in_ram and one.offset in self._goals:
                return self._only(boundary, highest) or one
        return self._only(boundary, highest)

    def _only(self, boundary: _Boundary, highest: int) -> _Boundary | None:
        """Return the boundary with the only block that has an address, if there is only one."""
        blocks = [
            index
            for index, block in enumerate(self._state.blocks)
            if block.used_length > highest and not self._state.left_out(index)
        ]
        return boundary._replace(block=blocks[0]) if len(blocks) == 1 else None


# -- device state ------------------------------------------------------------------------------------------------------


def _at_item(reader: ResumingReader, window: Window, goals: list[int]) -> _Boundary | None:
    """Return the first device section behind a hole that is proved."""
    for goal in goals:
        if window.base <= goal < window.end:
            return _Boundary(goal, False)
    if goals or reader.footers is False:
        return None
    data = window.bytes(window.base, min(SEARCHED, window.end - window.base), "device state")
    for match in _FULL.finditer(data):
        at = window.base + match.start() + FOOTER_SIZE
        current().tick(at)
        try:
            header, body = SectionHeader.parse(window, at + 1)
            if not plausible(window, at, reader.started):
                continue
            SearchedBody(header.section_id, body, reader.started).advance(window, body)
        except QmigError:
            continue
        return _Boundary(at, False)
    return None
