"""Further containers of a stream: those that are read from the front, piece by piece, and others.

Each is a row of :data:`PACKINGS`, with the function that unwraps it. One that needs more (snapshots, connections, a
header that is kept) is a :class:`~qmigtool.stream.unwrapped.Wrapping` there; :mod:`.wrappings` has those whose magic is
in :mod:`qmigtool.parsers.container`. Other distributions add either as an entry point in ``qmigtool.containers``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from qmigtool.errors import QmigError, StreamError
from qmigtool.parsers.container import Magic
from qmigtool.stream.unwrapped import Unwrapped, Wrapping, spooled
from qmigtool.util.plugins import CONTAINERS, conflict, plugins

__all__ = ["PACKINGS", "Packing", "packing_of"]


@dataclass(frozen=True, slots=True)
class Packing:
    """A container: ``name`` as ``info`` shows it, ``magic`` its first bytes.

    ``pieces`` accepts the whole container and yields the bytes of the stream in it, in order.
    """

    name: str
    magic: bytes
    pieces: Callable[[memoryview], Iterable[bytes]]

    def open(self, found: Unwrapped, _magic: Magic, _snapshot: str | None) -> Unwrapped:
        """Take the stream out of it."""
        pieces = self.unpack(found.source.whole[found.start or 0 :])
        return spooled(found, found.container.without(self.name, name=self.name), pieces)

    def unpack(self, data: memoryview) -> Iterator[bytes]:
        """Yield the stream; any error inside becomes a :class:`~qmigtool.errors.StreamError` that names it."""
        try:
            yield from self.pieces(data)
        except (QmigError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise StreamError(f"the container {self.name} cannot be read: {type(error).__name__}: {error}") from error


PACKINGS: tuple[Packing | Wrapping, ...] = (
    # None yet: a row is Packing("name", b"MAGIC", function), or a Wrapping.
)


def packing_of(head: bytes) -> Packing | Wrapping | None:
    """Return the container that begins with ``head``, or None.

    Raises :class:`~qmigtool.errors.UsageError` for an entry point that is not a container.
    """
    for point, found in plugins(CONTAINERS):
        if not isinstance(found, Packing | Wrapping) or not found.magic:
            raise conflict(point, "is not a qmigtool.stream.containers.Packing with a magic")
    every = (*PACKINGS, *(found for _, found in plugins(CONTAINERS)))
    return next((one for one in every if head.startswith(one.magic)), None)
