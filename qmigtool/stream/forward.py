"""A reading from the front: its sections so far, and the error that ended it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.errors import QmigError, TruncatedError
from qmigtool.parsers.resync import sections_over_holes
from qmigtool.parsers.section import Section, Type
from qmigtool.stream.sectionindex import SectionIndex
from qmigtool.util.progress import reach, task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from qmigtool.parsers.resync import ResumingReader
    from qmigtool.parsers.source import BufferSource

__all__ = ["Forward"]

UNREAD = (Type.HOLE, Type.UNREADABLE)


class Forward:
    """A reading from the front: its sections so far, and the error that ended it, if any."""

    def __init__(self, reader: ResumingReader, source: BufferSource, goals: Collection[int] = ()) -> None:
        self.reader = reader
        self.source = source
        self.goals = goals
        self.sections = SectionIndex()
        self.error: QmigError | None = None
        self.finished = False

    def read(self, limit: int | None = None, *, runs: int | None = None, goal: int | None = None) -> bool:
        """Read to the end, or until the reader is at or past ``limit``, or RAM has had ``runs`` runs of records.

        Return whether a section ended at ``goal``.
        """
        met = False
        self.reader.limit, self.reader.most_runs = limit, runs
        try:
            with task("reading", self.reader.window.end if limit is None else limit):
                for section in () if self.finished else self.walk():
                    self.sections.append(section)
                    met = met or section.end == goal
                    # Behind a hole, reading continued at a section that is proved from the end: in one connection.
                    met = met or (section.type in UNREAD and goal is not None and section.end in self.goals)
                    reach(section.end)
        except QmigError as error:
            self.error, self.finished = error, True
            return met
        if self.reader.done:
            self.finished = True
        elif limit is None and runs is None:
            self.error, self.finished = TruncatedError("the stream ends here", offset=self.reader.window.end), True
        return met

    def walk(self) -> Iterator[Section]:
        """Yield further sections, also behind holes."""
        return sections_over_holes(self.reader, self.source, self.goals)

    @property
    def vmdesc(self) -> Section | None:
        """The vmdesc after this stream's EOF."""
        return next((s for s in reversed(self.sections[-2:]) if s.type is Type.VMDESC), None)
