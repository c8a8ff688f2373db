"""Both strategies for a file: from its end backwards, and from its front up to where the first one ended.

*Tail-first*: the vmdesc at the end of the file gives the length of every device section. The device state found this
way is whole, but it may belong to another stream: a file that was written over a longer one keeps the end of the
longer one, guest memory may contain a stream, and a file may hold several streams one after the other. *Forward*: RAM's
records are walked from the front. If that walk arrives at the first section that was found from the end, the device
state is **proved** to belong to this stream; if not, what was found from the end is refuted and discarded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qmigtool.errors import BudgetError, GapError, QmigError, StreamError, TruncatedError, UnsupportedError
from qmigtool.parsers.bodies import FOOTER_SIZE
from qmigtool.parsers.records import QEMU_VM_SECTION_FOOTER, RamSaveFlag, SectionHeader, SectionType
from qmigtool.parsers.resync import ResumingReader, bounded_window, sections_over_holes, unread
from qmigtool.parsers.savevm import Reader
from qmigtool.parsers.section import Section, Type
from qmigtool.parsers.tail import LocatedVmdesc, TailWalk, find_vmdesc, walk_back
from qmigtool.parsers.vmdesc import parse_vmdesc
from qmigtool.parsers.window import Window
from qmigtool.stream.consistency import Descriptions, disagreements, ends_itself
from qmigtool.stream.forward import Forward
from qmigtool.stream.probe import probe_page_size
from qmigtool.stream.sectionindex import SectionIndex

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qmigtool.parsers.bodies import Measure
    from qmigtool.parsers.source import BufferSource

__all__ = ["FileReading"]

MAX_READINGS = 3  # a vmdesc with wrong lengths may lead to the wrong end


class FileReading:
    """The sections of a stream in a file, read on demand; :mod:`qmigtool.stream.model` decodes the devices.

    ``problems`` is the stream's list; the errors met are appended to it. ``located`` is the vmdesc in use,
    ``tail_first`` whether the sections found from the end are used, ``given_up`` whether a vmdesc, and what was decoded
    with it, had to be discarded.
    """

    def __init__(
        self,
        source: BufferSource,
        start: int,
        problems: list[QmigError],
        measure: Measure,
        *,
        keep_runs: bool = False,
    ) -> None:
        self._source = source
        self.start = start
        self._problems = problems
        self._before = len(problems)  # errors of the container
        self._measure = measure
        self._keep_runs = keep_runs
        self.located: LocatedVmdesc | None = None
        self.tail_first = False
        self.given_up = False
        self.stopped: QmigError | None = None
        self._back: TailWalk | None = None
        self._joined = False
        self._only_from_end = False
        self.probed_page_size: int | None = None
        self._forward = self._new_forward()
        self._head = start  # where the first PART or END is
        self._early: tuple[Section, ...] = ()

    def open(self, *, forward: bool) -> None:
        """Read up to RAM's pages, and the sections from the end; with ``forward`` these are not used.

        Raises the error at the front if neither end looks like a migration stream.
        """
        try:
            self.located = find_vmdesc(self._source)
        except QmigError as error:
            self._problems.append(error)
        if self.located is None:
            self.probed_page_size = probe_page_size(self._source, self.start)
        if self.located is not None:
            self._back = walk_back(self._source, self.located)
        self._forward = self._new_forward()
        self._read_head()
        self._head = self.reader.pos
        self._early = tuple(section for section in self.sections if section.type is Type.FULL and section.complete)
        if self._source.holes:
            offset, length = self._source.holes[0]
            self.stopped = GapError(length, offset=offset)
        failure = self._forward.error
        if failure is not None:
            if self.reader.pos == self.reader.start and (self._back is None or not self._back.sections):
                raise failure
            self._stopped(failure)
        elif self._back is not None and not forward:
            self.tail_first = self._joins(self._back)

    # -- results -------------------------------------------------------------------------------------------

    @property
    def reader(self) -> Reader:
        """The forward reader, as far as it has read."""
        return self._forward.reader

    @property
    def sections(self) -> SectionIndex:
        """The sections read from the front so far; after an error there, also those found from the end."""
        return self._forward.sections

    @property
    def full(self) -> Iterator[Section]:
        """The device state sections in use, in stream order; reads to the end if necessary."""
        if self.tail_first and self._back is not None:
            yield from self._early
            yield from self._back.sections
        else:
            self.read_all()
            yield from (section for section in self.sections if section.type is Type.FULL and section.complete)

    @property
    def proved(self) -> bool:
        """Whether every device state section in use was reached from the front."""
        return self._joined if self.tail_first else self._forward.finished and not self._only_from_end

    # -- reading ---------------------------------------------------------------------------------------------------

    def new_reader(self, *, keep_runs: bool) -> ResumingReader:
        """Return a reader of the whole stream that uses the lengths of the vmdesc in use."""
        vmdesc = self.located.vmdesc if self.located is not None else None
        return ResumingReader(
            bounded_window(self._source),
            Descriptions(vmdesc).length if vmdesc is not None else None,
            vmdesc.page_size if vmdesc is not None else self.probed_page_size,
            self._measure,
            keep_runs,
            self.start,
        )

    def ram_reader(self) -> Reader:
        """Return a reader that has kept RAM's records: the one that read from the front, or a new one."""
        if self._keep_runs:
            return self.reader
        again = self.new_reader(keep_runs=True)
        try:
            for _ in sections_over_holes(again, self._source, self._goals):
                pass
        except BudgetError:  # which is an UnsupportedError, too
            raise
        except (StreamError, UnsupportedError):
            pass
        return again

    def prove(self, limit: int | None = None, runs: int | None = None) -> bool:
        """Walk from the front to where the walk from the end stopped.

        Walks at most ``limit`` bytes of RAM's records, and about ``runs`` runs of them. Returns :attr:`proved`.
        Refuted sections and errors are added to the problems.
        """
        back, forward = self._back, self._forward
        if not self.tail_first or back is None:
            self.read_all()
        elif not self._joined and not forward.finished:
            goal = back.start
            self._joined = forward.read(goal if limit is None else min(goal, self._head + limit), runs=runs, goal=goal)
            # Where no item starts at the goal, only the end of the stream shows what is there.
            if forward.finished:
                self._settle()
            elif self.reader.pos >= goal and not self._joined:
                self.read_all()
        return self.proved

    def read_all(self) -> None:
        """Read to the end of the stream."""
        if not self._forward.finished:
            goal = self._back.start if self._back is not None else None
            self._joined = self._forward.read(goal=goal) or self._joined
            self._settle()

    def _new_forward(self) -> Forward:
        return Forward(self.new_reader(keep_runs=self._keep_runs), self._source, self._goals)

    @property
    def _goals(self) -> frozenset[int]:
        """The offsets of the sections that were found from the end, where there are holes before them."""
        if self._back is None or not self._source.holes:
            return frozenset()
        return frozenset(section.offset for section in self._back.sections)

    def _read_head(self) -> None:
        """Read everything before the first PART or END: the setup, which is small."""
        later = (SectionType.QEMU_VM_SECTION_PART, SectionType.QEMU_VM_SECTION_END)
        forward, whole = self._forward, self._source.whole
        try:
            for section in forward.walk():
                forward.sections.append(section)
                pos = forward.reader.pos
                if pos < len(whole) and section.type is not Type.TAIL and whole[pos] in later:
                    break
        except QmigError as error:
            forward.error, forward.finished = error, True

    def _joins(self, walk: TailWalk) -> bool:
        """Return whether the sections found from the end may continue those read from the front."""
        if [(s.name, s.instance_id) for s in self._early] != [(d.idstr, d.instance_id) for d in walk.missing]:
            return False
        if not walk.sections:
            return False
        # After padding there may be the rest of an older, longer stream: a volume is not truncated to what is written.
        if self.located is None or self.located.end != len(self._source.whole):
            return False
        # The last thing before device state is the END (or PART) of a live section.
        if walk.footers:
            marker, *raw = self._source.view(walk.start - FOOTER_SIZE, FOOTER_SIZE)
            return marker == QEMU_VM_SECTION_FOOTER and int.from_bytes(raw, "big") in self.reader.started
        return bytes(self._source.view(walk.start - 8, 8)) == int(RamSaveFlag.EOS).to_bytes(8, "big")

    # -- the forward reading, compared with the sections found from the end --------------------------------------------

    def _settle(self) -> None:
        """Use the result of the forward reading."""
        error = self._forward.error
        if self._source.holes:
            self._take_end()
            return
        if error is None:
            if self._foreign(self._forward):
                self._read_with_own()
            self._take_end()
            return
        if self.located is not None and not self._joined:
            alone = self._alone(self.located)
            if alone is not None:
                self._forward = alone
                self._read_with_own()
                self._take_end()
                return
            if self._inside_ram():
                # Guest memory may contain a stream. The one being read is broken and has no end.
                self._give_up()
        self._stopped(error)

    def _take_end(self) -> None:
        """Record the errors of the forward reading, and where it and the vmdesc disagree."""
        if self._forward.error is not None:
            self._stopped(self._forward.error)
            return
        self._take_reader_problems()
        if self.located is not None and not self._problems[self._before :] and not self._source.holes:
            self._problems += disagreements(self.sections, self.located)

    def _foreign(self, forward: Forward) -> bool:
        """Return whether the forward reading arrived at a vmdesc other than the one in use."""
        own = forward.vmdesc
        return (None if own is None else own.offset) != (None if self.located is None else self.located.offset)

    def _alone(self, located: LocatedVmdesc) -> Forward | None:
        """Read without the vmdesc: one of another stream may give a wrong page size or wrong lengths.

        Returns the reading if it reaches an end other than this vmdesc.
        """
        page_size = probe_page_size(self._source, self.start)
        if page_size in (None, self.reader.ram.page_size) and self.reader.footers is not False:
            return None
        whole = Window(self._source.whole, final=True, passed=self._source.passed)
        alone = Forward(
            ResumingReader(whole, None, page_size, self._measure, self._keep_runs, self.start), self._source
        )
        alone.read()
        own = alone.vmdesc
        return None if alone.error is not None or (own is not None and own.offset == located.offset) else alone

    def _inside_ram(self) -> bool:
        """Return whether the sections found from the end start inside a live section that was read from the front."""
        item = self.reader.partial()
        live = item is not None and item.type in (Type.START, Type.PART, Type.END)
        return live and self._back is not None and item is not None and item.offset < self._back.start < self.reader.pos

    def _give_up(self) -> None:
        """Discard the vmdesc and the sections found from the end."""
        self.located, self._back, self.tail_first = None, None, False
        self.given_up = True

    def _read_with_own(self) -> None:
        """Read again with the vmdesc that ends this stream; without one, keep what was read.

        With its own vmdesc the stream is whole, as QEMU reads it: what follows is the rest of an older and longer
        stream. Without one, the EOF may be a damaged byte, and the vmdesc after it this stream's own; see
        :meth:`_ends_itself`.
        """
        foreign = self.located
        for _ in range(MAX_READINGS):
            del self._problems[self._before :]
            unreadable = self._take_own()
            if self.located is None:
                if foreign is not None and (unreadable is not None or not self._ends_itself(foreign)):
                    self._problems += disagreements(self.sections, foreign)
                if unreadable is not None:
                    self._problems.append(unreadable)
                return
            self._forward = self._new_forward()
            self._forward.read()
            if self._forward.error is not None or not self._foreign(self._forward):
                return
            foreign = self.located

    def _ends_itself(self, foreign: LocatedVmdesc) -> bool:
        """Return whether the stream is whole without a vmdesc, and use its reading without the one of another stream.

        Every device section must be one that the schema knows, to the byte: only then is the EOF not inside a section.
        """
        page_size, self.probed_page_size = self.probed_page_size, probe_page_size(self._source, self.start)
        alone = self._new_forward()
        alone.read()
        try:
            whole = (
                alone.error is None
                and alone.vmdesc is None
                and not alone.reader.problems
                and ends_itself(alone.sections, foreign.vmdesc)
                and all(self._known(section) for section in alone.sections if section.type is Type.FULL)
            )
        except BudgetError:
            whole = False
        if whole:
            self._forward = alone
        else:
            self.probed_page_size = page_size
        return whole

    def _known(self, section: Section) -> bool:
        """Return whether the schema knows a section of exactly these bytes' length."""
        header = SectionHeader(
            section.section_id or 0, section.name or "", section.instance_id or 0, section.version_id or 0
        )
        body = self._source.view(section.body_offset, section.body_length)
        return self._measure(header, body, lambda length: length == len(body)) is not None

    def _take_own(self) -> QmigError | None:
        """Use the vmdesc at which the forward reading arrived; return the error in it, if any."""
        own = self._forward.vmdesc
        self._give_up()
        if own is None:
            return None
        try:
            text = bytes(self._source.view(own.body_offset, own.body_length))
            self.located = LocatedVmdesc(parse_vmdesc(text, own.body_offset), own.offset, own.end)
        except (StreamError, BudgetError) as error:
            return error.with_traceback(None)  # the traceback would keep the text and the objects parsed from it
        return None

    # -- broken streams ---------------------------------------------------------------------------------------------

    def _stopped(self, error: QmigError) -> None:
        """Record where the forward reading stopped, and continue with the sections found from the end."""
        self._take_reader_problems()
        at_hole = isinstance(error, TruncatedError) and any(error.offset == hole for hole, _ in self._source.holes)
        if not at_hole:  # the hole is a problem of the container
            self._problems.append(error)
        if not any(section.type is Type.EOF for section in self.sections[-2:]):
            self.stopped = self.stopped or error  # after EOF only the vmdesc is not reached
        partial = self.reader.partial()
        if partial is None:
            return
        end = len(self._source.whole)
        behind = [s for s in self._back.sections if s.offset > partial.offset] if self._back is not None else []
        if behind and self.located is not None:
            self._only_from_end = True
            at, text, stop = self.located.offset, self.located.body_offset, self.located.end
            partial = partial if self._source.holes else _cut(partial, behind[0].offset)
            behind.append(Section(Type.EOF, at - 1, 1, at, 0))
            behind.append(Section(Type.VMDESC, at, stop - at, text, stop - text))
            if stop < end:
                behind.append(Section(Type.TAIL, stop, end - stop, stop, end - stop))
        if self._source.holes:
            self._append_around_holes(partial, behind, end)
            return
        self.sections.append(partial)
        for section in behind:
            self.sections.append(section)

    def _append_around_holes(self, partial: Section, behind: list[Section], end: int) -> None:
        """Add what an error interrupted up to the first hole, the holes, and the sections found from the end."""
        at = partial.offset
        hole = next((offset for offset, _ in self._source.holes if offset >= at), end)
        if partial.type is not Type.UNREADABLE and hole > at:
            self.sections.append(replace(partial, length=hole - at, body_length=max(hole - partial.body_offset, 0)))
            at = hole
        for section in behind:
            for lost in unread(self._source, at, section.offset):
                self.sections.append(lost)
            self.sections.append(section)
            at = section.end
        for lost in unread(self._source, at, end):
            self.sections.append(lost)

    def _take_reader_problems(self) -> None:
        self._problems += self.reader.problems
        self.reader.problems = []


def _cut(partial: Section, end: int) -> Section:
    """Shorten the unreadable item so that it ends where readable ones continue."""
    return Section(
        Type.UNREADABLE, partial.offset, end - partial.offset, partial.offset, end - partial.offset, complete=False
    )
