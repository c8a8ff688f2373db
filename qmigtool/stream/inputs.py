"""The inputs of a stream: an unwrapped file, or a pipe; and the extra channels of the same migration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from qmigtool.parsers.source import BufferSource, FileSource, KeptSource
from qmigtool.stream.pipes import Streamed, open_pipe
from qmigtool.stream.unwrap import unpack_channel, unwrap
from qmigtool.stream.unwrapped import Container

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qmigtool.errors import QmigError

__all__ = ["Inputs", "take_inputs"]


@dataclass(slots=True)
class Inputs:
    """The inputs: ``source`` has the bytes by their offset in the stream, ``channels`` the extra channels.

    ``name`` is that of the input that was opened, ``given`` all inputs of the caller. ``start`` is where the stream
    starts in ``source``, None if that must be searched for. ``pipe`` is read into ``source``, None for a file.
    ``outer`` are the containers of the others, ``file_size`` the bytes of the file, None for a pipe.
    """

    name: str
    source: BufferSource | KeptSource
    given: tuple[object, ...]
    start: int | None = None
    pipe: BinaryIO | None = None
    container: Container = field(default_factory=Container)
    channels: tuple[BufferSource, ...] = ()
    outer: tuple[BufferSource, ...] = ()
    file_size: int | None = None

    def close(self) -> None:
        """Close all of them."""
        for one in (self.source, *self.channels, *self.outer):
            one.close()

    def give_back(self) -> None:
        """Close the sources made while unwrapping, but not those given: the caller closes them."""
        for one in (self.source, *self.channels, *self.outer):
            if all(one is not kept for kept in self.given):
                one.close()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors of all of them; none for inputs in memory."""
        return tuple(one.fileno() for one in (self.source, *self.channels, *self.outer) if isinstance(one, FileSource))


def take_inputs(
    given: BufferSource | BinaryIO,
    channels: Sequence[BufferSource],
    selected: Mapping[str, str | None],
    problems: list[QmigError],
    *,
    spool: bool = False,
) -> Inputs:
    """Unwrap the inputs; errors that do not prevent reading are added to ``problems``.

    ``spool``: what comes through a pipe is written to a temporary file, so that all of it can be read again.
    """
    opened, packed = _unpacked(channels)
    everything = (given, *channels)
    name = str(getattr(given, "name", "<pipe>"))
    if isinstance(given, BufferSource):
        found = unwrap(given, selected)
    else:
        taken = open_pipe(given, selected, spool=spool)
        if isinstance(taken, Streamed):
            problems += taken.found.problems
            return Inputs(
                name,
                KeptSource(name),
                everything,
                taken.found.start,
                taken.pipe,
                taken.found.container,
                opened,
                packed,
            )
        found = taken
    problems += found.problems
    return Inputs(
        name,
        found.source,
        everything,
        found.start,
        container=found.container,
        channels=(*opened, *found.channels),
        outer=(*found.outer, *packed),
        file_size=given.size if isinstance(given, BufferSource) else None,
    )


def _unpacked(channels: Sequence[BufferSource]) -> tuple[tuple[BufferSource, ...], tuple[BufferSource, ...]]:
    """Return the extra channels, decompressed if necessary, and the compressed sources."""
    opened: list[BufferSource] = []
    packed = []
    try:
        for one in channels:
            inner = unpack_channel(one)
            if inner is not one:
                packed.append(one)
            opened.append(inner)
    except BaseException:
        for one in opened:
            one.close()
        raise
    return tuple(opened), tuple(packed)
