"""A stream taken out of a container, and how it is written to a temporary file where it cannot be read in place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from qmigtool.errors import BudgetError, LimitError, QmigError, StreamError, UnsupportedError
from qmigtool.parsers.container import ContainerKind, Magic
from qmigtool.parsers.records import QEVM
from qmigtool.parsers.saveimage import SaveImage
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.stream.probe import MAX_PREFIX, Follower
from qmigtool.util.budget import current
from qmigtool.util.files import skip_zeros
from qmigtool.util.progress import reach, task

__all__ = [
    *("MAX_LAYERS", "Container", "Unwrapped", "Wrapping"),
    *("check_room", "cut", "head_of", "require_stream", "spooled", "write_pieces"),
]

MAGIC_SIZE = 16
MAX_LAYERS = 4  # a compressed save image of a compressed stream is three
SPARE = 256 << 20  # bytes of the temporary file system that are left free
CHECKED = 64 << 20
MAX_STREAM = 1 << 40  # bytes; a file system may not even allow more
GRACE = 1.0  # seconds of decompressing after the stream's first error
ZEROS = bytes(2 << 20)  # as long as the longest piece, a cluster of 2 MiB


@dataclass(frozen=True, slots=True)
class Container:
    """The container of a stream: ``raw``, ``libvirt``, ``qcow2``, ``pcap``; and its compression (``none``).

    ``details`` describes it further, for people and JSON; ``removed`` lists the removed layers, outermost first.
    ``header`` is that of a libvirt save image.
    """

    name: str = "raw"
    compression: str = "none"
    details: dict[str, Any] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    header: SaveImage | None = None

    @property
    def in_place(self) -> bool:
        """Whether the stream is read in place, so that its offsets are the file's."""
        return not self.removed

    def without(self, *layers: str, **more: Any) -> Container:
        """Return the container after more layers were removed."""
        return replace(self, removed=(*self.removed, *layers), **more)


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A stream taken out of its container.

    ``start`` is where it starts in ``source``, None if that must be searched for. ``channels`` are the channels of the
    same migration in a capture; ``outer`` the sources that only contain it; ``problems`` the errors met.
    """

    source: BufferSource
    container: Container = Container()
    start: int | None = None
    channels: tuple[BufferSource, ...] = ()
    outer: tuple[BufferSource, ...] = ()
    problems: tuple[QmigError, ...] = ()

    def close(self, kept: BufferSource) -> None:
        """Close the sources made while unwrapping, but not ``kept``, which belongs to the caller."""
        for one in (self.source, *self.channels, *self.outer):
            if one is not kept:
                one.close()


@dataclass(frozen=True, slots=True)
class Wrapping:
    """A kind of container that has more than a stream: snapshots, connections, a header that a rewrite keeps.

    ``open`` accepts what was unwrapped so far, the magic that was recognised, and which of several states is asked for:
    what the option ``selects`` says (``snapshot`` or ``migration``). The ``details`` of what it returns have that name,
    if it has a choice. One that :mod:`qmigtool.parsers.container` does not recognise has its own ``name`` and
    ``magic``, its first bytes.
    """

    kind: ContainerKind
    open: Callable[[Unwrapped, Magic, str | None], Unwrapped]
    name: str = ""
    magic: bytes = b""
    selects: str = "snapshot"


def spooled(found: Unwrapped, container: Container, pieces: Iterable[bytes | int], *, follow: bool = True) -> Unwrapped:
    """Write a stream to a temporary file; the pieces before an error are kept."""
    problems = list(found.problems)
    with tempfile.TemporaryFile() as file:
        try:
            with task("unwrapping"):
                write_pieces(file, pieces, Follower() if follow else None)
        except BudgetError:
            raise
        except (StreamError, UnsupportedError) as error:
            if not file.tell():
                raise
            problems.append(error)
        file.flush()
        source = FileSource.of_handle(os.dup(file.fileno()), found.source.name)
    return Unwrapped(source, container, None, found.channels, (*found.outer, found.source), tuple(problems))


def write_pieces(file: BinaryIO, pieces: Iterable[bytes | int], follower: Follower | None) -> None:
    """Write a stream's pieces; zeros become holes, so that a decompression bomb costs time but no space.

    Where ``follower`` finds the stream broken, its end may still be readable, so decompressing continues for a while.
    """
    budget = current()
    size = 0
    until: float | None = None
    unchecked = CHECKED
    for piece in pieces:
        length = piece if isinstance(piece, int) else len(piece)
        size += length
        budget.tick(size, "the stream in the container")
        reach(size)
        if size > MAX_STREAM:
            raise LimitError("the stream in the container is too long", expected=f"at most {MAX_STREAM} bytes")
        if follower is not None:
            if until is not None and budget.seconds > until:
                raise StreamError(
                    "decompressing stops here, because the stream is broken before this offset",
                    offset=size - length,
                    section=follower.failed.section if follower.failed is not None else None,
                )
            follower.feed(piece)
            if follower.failed is not None and until is None:
                until = budget.seconds + GRACE
        if isinstance(piece, int) or _is_zero(piece):
            skip_zeros(file, length)
            continue
        budget.charge("spool", length, size, "the stream in the container")
        unchecked = check_room(length, unchecked)
        file.write(piece)


def check_room(length: int, unchecked: int = CHECKED) -> int:
    """Check before ``length`` bytes are written that the temporary file system has room.

    Looks only where :data:`CHECKED` bytes were written since the last time; returns how many were since then.
    """
    if unchecked + length < CHECKED:
        return unchecked + length
    if shutil.disk_usage(tempfile.gettempdir()).free < SPARE:
        raise LimitError(f"no space in {tempfile.gettempdir()} for it", expected="TMPDIR with more space")
    return 0


def head_of(pieces: Iterator[Any]) -> tuple[list[Any], bytes, bool]:
    """Return the first pieces, the first bytes that are not zero (16 identify it), and whether zeros come first."""
    head: list[Any] = []
    data, zeros = b"", 0
    for piece in pieces:
        empty = not data and (isinstance(piece, int) or _is_zero(piece))
        # Zeros are counted, not kept: there may be GiBs of them.
        head.append(len(piece) if empty and isinstance(piece, bytes) else piece)
        if empty or isinstance(piece, int):
            zeros += head[-1] if isinstance(head[-1], int) else 0
        else:
            useful = piece if data else piece.lstrip(b"\0")
            zeros += len(piece) - len(useful)
            data += useful[:MAGIC_SIZE]
        if len(data) >= MAGIC_SIZE or zeros > MAX_PREFIX:
            break
    return head, data, zeros > 0


def _is_zero(piece: bytes) -> bool:
    return piece == ZEROS[: len(piece)]


def require_stream(data: bytes, what: str) -> None:
    """Raise :class:`~qmigtool.errors.StreamError` if content that begins with ``data`` is not a stream."""
    if not data.startswith(QEVM[: len(data)] or QEVM):
        raise StreamError(
            f"{what} is not a migration stream: it starts with {data[:4].hex(' ') or 'zeros'}",
            offset=0,
            expected=f"{QEVM.hex(' ')} ('QEVM')",
        )


def cut(source: BufferSource, size: int) -> BufferSource:
    """Truncate a spooled stream to ``size`` bytes."""
    handle = os.dup(source.fileno()) if isinstance(source, FileSource) else -1
    name = source.name
    source.close()
    os.ftruncate(handle, size)
    return FileSource.of_handle(handle, name)
