"""Reading a pipe: forward, once. RAM is dropped, the device sections are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from qmigtool.errors import BudgetError, QmigError, StreamError
from qmigtool.parsers.savevm import Reader
from qmigtool.parsers.section import Section, Type
from qmigtool.parsers.source import BufferSource, KeptSource
from qmigtool.parsers.tail import LocatedVmdesc
from qmigtool.parsers.vmdesc import parse_vmdesc
from qmigtool.parsers.window import Window
from qmigtool.stream.consistency import disagreements
from qmigtool.stream.probe import PROBED, find_start, probe_page_size
from qmigtool.stream.sectionindex import SectionIndex
from qmigtool.util.progress import advance, task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qmigtool.parsers.bodies import Measure

__all__ = ["PipeReading"]

PIPE_CHUNK = 1 << 20


class PipeReading:
    """The sections of a stream that is read from a pipe; the kept bytes go to ``kept``.

    It has the interface of :class:`~qmigtool.stream.reading.Reading`.
    """

    def __init__(
        self,
        kept: KeptSource,
        pipe: BinaryIO | None,
        problems: list[QmigError],
        measure: Measure,
        *,
        start: int | None = None,
        keep_runs: bool = False,
    ) -> None:
        self.tail_first = False
        self.given_up = False
        self.stopped: QmigError | None = None
        self._pipe = pipe
        self._measure = measure
        self._keep_runs = keep_runs
        self._kept = kept
        self._problems = problems
        self.located: LocatedVmdesc | None = None
        self.sections = SectionIndex()
        self._given_start = start
        self._failed: QmigError | None = None  # met in the first bytes, and reported when what precedes it was read
        self.start = 0
        self.probed_page_size: int | None = None
        self.reader = Reader(Window())

    def open(self, *, forward: bool) -> None:
        """Read the pipe to its end; raises an error that occurs before the first section."""
        pipe, self._pipe = self._pipe, None
        if pipe is None:
            return
        head = BufferSource(self._read_up_to(pipe, PROBED))
        self.start = find_start(head) if self._given_start is None else self._given_start
        self.probed_page_size = probe_page_size(head, self.start)
        self.reader = Reader(Window(), None, self.probed_page_size, self._measure, self._keep_runs, self.start)
        try:
            self._read(pipe, head.whole)
        except QmigError as error:
            if all(section.type is Type.PREFIX for section in self.sections):
                raise
            self._take_reader_problems()
            self._problems.append(error)
            if not any(section.type is Type.EOF for section in self.sections[-2:]):
                self.stopped = error  # after EOF only the vmdesc is not reached
            partial = self.reader.partial()
            if partial is not None:
                self.sections.append(partial)
        self._kept.size = self.reader.window.end if self.reader.done else None

    @property
    def full(self) -> Iterator[Section]:
        """The sections of device state, in stream order."""
        return (section for section in self.sections if section.type is Type.FULL and section.complete)

    @property
    def proved(self) -> bool:
        """Always true: everything was reached from the front."""
        return True

    def prove(self, limit: int | None = None, runs: int | None = None) -> bool:
        """Do nothing; see :attr:`proved`."""
        return True

    def ram_reader(self) -> Reader:
        """Return the reader that everything went through."""
        return self.reader

    def read_all(self) -> None:
        """Do nothing: all has been read."""

    def _read_up_to(self, pipe: BinaryIO, count: int) -> bytes:
        """Read ``count`` bytes, or up to the end or an error of decompressing: a socket may give one byte at a time."""
        head = bytearray()
        try:
            while len(head) < count and (chunk := pipe.read(min(PIPE_CHUNK, count - len(head)))):
                head += chunk
        except QmigError as error:
            if not head:
                raise
            self._failed = error
        return bytes(head)

    def _read(self, pipe: BinaryIO, chunk: bytes | memoryview) -> None:
        with task("reading"):
            self._read_chunks(pipe, chunk)
        self._take_reader_problems()
        if self.located is not None:
            # Zero pages are valid with many page sizes; this one is recorded.
            self.reader.ram.page_size = self.located.vmdesc.page_size
            if not self._problems:
                self._problems += disagreements(self.sections, self.located)

    def _read_chunks(self, pipe: BinaryIO, chunk: bytes | memoryview) -> None:
        reader = self.reader
        while True:
            if chunk:
                advance(len(chunk))
                reader.feed(chunk)
            else:
                reader.close()
            for section in reader.sections():
                self.sections.append(section)
                # Live sections (START, PART, END) and the tail are not kept.
                if section.type in (Type.FULL, Type.VMDESC):
                    self._kept.keep(section.offset, reader.window.bytes(section.offset, section.length, "a section"))
                if section.type is Type.VMDESC:
                    self._take_vmdesc(section)
            if not chunk:
                break
            if self._failed is not None:
                raise self._failed
            chunk = pipe.read(PIPE_CHUNK)

    def _take_vmdesc(self, section: Section) -> None:
        try:
            text = bytes(self._kept.view(section.body_offset, section.body_length))
            self.located = LocatedVmdesc(parse_vmdesc(text, section.body_offset), section.offset, section.end)
        except (StreamError, BudgetError) as error:
            self._problems.append(error.with_traceback(None))  # it would keep the text and the objects parsed from it

    def _take_reader_problems(self) -> None:
        self._problems += self.reader.problems
        self.reader.problems = []
