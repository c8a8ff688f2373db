"""The reading strategies, and which one an input needs: a file from its end or its front, a pipe forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qmigtool.parsers.source import KeptSource
from qmigtool.stream.filereading import FileReading
from qmigtool.stream.pipereading import PipeReading
from qmigtool.stream.probe import find_start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qmigtool.errors import QmigError
    from qmigtool.parsers.bodies import Measure
    from qmigtool.parsers.savevm import Reader
    from qmigtool.parsers.section import Section
    from qmigtool.parsers.tail import LocatedVmdesc
    from qmigtool.stream.inputs import Inputs
    from qmigtool.stream.sectionindex import SectionIndex

__all__ = ["Reading", "make_reading"]


class Reading(Protocol):
    """The interface of a reading strategy.

    ``tail_first`` says whether the sections found from the end are used, ``given_up`` whether a vmdesc, and what was
    decoded with it, had to be discarded. ``stopped`` is the error that ended the forward reading before the
    stream's EOF, if any. ``located`` is the vmdesc in use, ``start`` where the stream starts in its
    source.
    """

    start: int
    tail_first: bool
    given_up: bool
    stopped: QmigError | None
    located: LocatedVmdesc | None
    probed_page_size: int | None

    def open(self, *, forward: bool) -> None:
        """Read what locates the devices of a file (``forward``: from its front only), or all of a pipe.

        Raises an error that occurs before the first section.
        """

    @property
    def reader(self) -> Reader:
        """The forward reader."""

    @property
    def sections(self) -> SectionIndex:
        """The sections read so far."""

    @property
    def full(self) -> Iterator[Section]:
        """The device state sections in use, in stream order."""

    @property
    def proved(self) -> bool:
        """Whether every device state section in use was reached from the front."""

    def prove(self, limit: int | None = None, runs: int | None = None) -> bool:
        """Walk at most ``limit`` bytes and ``runs`` runs of RAM's records to determine :attr:`proved`; return it."""

    def read_all(self) -> None:
        """Read to the end of the stream."""

    def ram_reader(self) -> Reader:
        """Return a reader that has read all of RAM's records, and kept them where possible."""


def make_reading(inputs: Inputs, problems: list[QmigError], measure: Measure, *, keep_runs: bool = False) -> Reading:
    """Return the reading strategy for the inputs; at most the start of a file's stream has been searched for yet."""
    source = inputs.source
    if isinstance(source, KeptSource):
        return PipeReading(source, inputs.pipe, problems, measure, start=inputs.start, keep_runs=keep_runs)
    start = find_start(source) if inputs.start is None else inputs.start
    return FileReading(source, start, problems, measure, keep_runs=keep_runs)
