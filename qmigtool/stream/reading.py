"""The strategies of reading, and which of them an input takes: a file from its end or its front, a pipe forward."""

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
    from qmigtool.parsers.savevm import Reader, Section
    from qmigtool.parsers.tail import LocatedVmdesc
    from qmigtool.stream.inputs import Inputs
    from qmigtool.stream.sectionindex import SectionIndex

__all__ = ["Reading", "make_reading"]


class Reading(Protocol):
    """What a stream asks of the strategy by which it is read.

    ``tail_first`` says whether what was found from the end is used, ``given_up`` whether a vmdesc, and with it whatever
    was made of it, had to be given up. ``located`` is the vmdesc in use, ``start`` where the stream starts
    in its source.
    """

    start: int
    tail_first: bool
    given_up: bool
    located: LocatedVmdesc | None
    probed_page_size: int | None

    def open(self, *, forward: bool) -> None:
        """Read what tells the devices of a file (``forward``: from its front alone), or all of a pipe.

        Raises what is wrong before there is any section.
        """

    @property
    def reader(self) -> Reader:
        """The reader that goes from the front."""

    @property
    def sections(self) -> SectionIndex:
        """What was read so far."""

    @property
    def full(self) -> Iterator[Section]:
        """The sections of device state that are used, in stream order."""

    @property
    def proved(self) -> bool:
        """Whether every section of device state that is used was reached from the front."""

    def prove(self, limit: int | None = None) -> bool:
        """Walk over at most ``limit`` bytes of RAM's records, so that :attr:`proved` is known; return it."""

    def read_all(self) -> None:
        """Read to the end of the stream."""

    def ram_reader(self) -> Reader:
        """Return a reader that has passed all of RAM's records, and kept them where that is possible."""


def make_reading(inputs: Inputs, problems: list[QmigError], measure: Measure, *, keep_runs: bool = False) -> Reading:
    """Return the strategy by which the inputs are read; nothing has been read yet but where a file's stream starts."""
    source = inputs.source
    if isinstance(source, KeptSource):
        return PipeReading(source, inputs.pipe, problems, measure, keep_runs=keep_runs)
    start = find_start(source) if inputs.start is None else inputs.start
    return FileReading(source, start, problems, measure, keep_runs=keep_runs)
