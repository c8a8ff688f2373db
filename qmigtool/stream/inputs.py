"""What a stream is read from: a file, unwrapped, or a pipe; and the extra channels of the same migration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from qmigtool.parsers.source import BufferSource, FileSource, KeptSource
from qmigtool.stream.unwrap import Container, unpack_channel, unwrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qmigtool.errors import QmigError

__all__ = ["Inputs", "take_inputs"]


@dataclass(slots=True)
class Inputs:
    """Where the bytes are: ``source`` by their offset in the stream, ``channels`` beside it.

    ``name`` is that of what was opened, ``given`` all that the caller gave. ``start`` is where the stream starts in
    ``source``, None if that is to be looked for. ``pipe`` is what is read into ``source``, None for a file. ``outer``
    is what the others were unwrapped from.
    """

    name: str
    source: BufferSource | KeptSource
    given: tuple[object, ...]
    start: int | None = None
    pipe: BinaryIO | None = None
    container: Container = field(default_factory=Container)
    channels: tuple[BufferSource, ...] = ()
    outer: tuple[BufferSource, ...] = ()

    def close(self) -> None:
        """Let go of all of them."""
        for one in (self.source, *self.channels, *self.outer):
            one.close()

    def give_back(self) -> None:
        """Let go of what was made on the way, but not of what was given: whoever gave it closes it."""
        for one in (self.source, *self.channels, *self.outer):
            if all(one is not kept for kept in self.given):
                one.close()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors of all of them; none of what is in memory."""
        return tuple(one.fileno() for one in (self.source, *self.channels, *self.outer) if isinstance(one, FileSource))


def take_inputs(
    given: BufferSource | BinaryIO, channels: Sequence[BufferSource], snapshot: str | None, problems: list[QmigError]
) -> Inputs:
    """Unwrap what is given; what is wrong with it, but does not keep it from being read, goes to ``problems``."""
    opened, packed = _unpacked(channels)
    everything = (given, *channels)
    if not isinstance(given, BufferSource):
        name = getattr(given, "name", "<pipe>")
        return Inputs(str(name), KeptSource(name), everything, pipe=given, channels=opened, outer=packed)
    found = unwrap(given, snapshot)
    problems += found.problems
    return Inputs(
        str(getattr(given, "name", "<pipe>")),
        found.source,
        everything,
        found.start,
        container=found.container,
        channels=(*opened, *found.channels),
        outer=(*found.outer, *packed),
    )


def _unpacked(channels: Sequence[BufferSource]) -> tuple[tuple[BufferSource, ...], tuple[BufferSource, ...]]:
    """Return the extra channels, unpacked where they are packed, and those that only hold what is packed."""
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
