"""Splices: copy a stream with some spans replaced. Bytes that no splice touches are copied unchanged.

An empty list of splices gives the identical file for every readable stream, because nothing is re-encoded. A splice
inserts bytes, or :data:`Part` s that are produced, or copied by the kernel, while they are written: so a splice may
replace all of a guest's memory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeAlias

from qmigtool.errors import StreamError, UnsupportedError, UsageError
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.util.files import copy_range, skip_zeros
from qmigtool.util.progress import advance, reach, task

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream

__all__ = ["Hole", "Made", "Moved", "Part", "Splice", "differing", "readable_again", "seekable_source", "write_stream"]

BLOCK = 1024
NEAR = 16  # bytes: differences that are closer than that are one splice


@dataclass(frozen=True, slots=True)
class Moved:
    """``size`` bytes that the source has at ``offset``."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Hole:
    """``size`` zero bytes, which take no space where the output is a file."""

    size: int


@dataclass(frozen=True, slots=True)
class Made:
    """``size`` bytes that ``chunks`` yields in pieces when they are written."""

    size: int
    chunks: Callable[[], Iterable[bytes]]


Part: TypeAlias = bytes | Moved | Hole | Made


class Splice(NamedTuple):
    """``length`` bytes at ``offset`` of the source are replaced by ``data`` (nothing: removed; length 0: inserted)."""

    offset: int
    length: int
    data: bytes | tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The inserted data as parts."""
        return (self.data,) if isinstance(self.data, bytes) else self.data

    @property
    def size(self) -> int:
        """The number of inserted bytes."""
        return sum(len(part) if isinstance(part, bytes) else part.size for part in self.parts)

    @property
    def growth(self) -> int:
        """How much longer the output is."""
        return self.size - self.length


def differing(offset: int, old: bytes, new: bytes) -> Iterator[Splice]:
    """Yield the splices that turn ``old``, which is at ``offset``, into ``new``.

    For equal lengths, one splice for each stretch of bytes that differ; otherwise one, from the first to the last byte
    that differ.
    """
    if len(old) != len(new):
        start = _common(old, new)
        end = _common(old[start:][::-1], new[start:][::-1])
        yield Splice(offset + start, len(old) - start - end, new[start : len(new) - end])
        return
    start = last = -1
    for at in _unlike(old, new):
        if start >= 0 and at - last > NEAR:
            yield Splice(offset + start, last + 1 - start, new[start : last + 1])
            start = -1
        start = at if start < 0 else start
        last = at
    if start >= 0:
        yield Splice(offset + start, last + 1 - start, new[start : last + 1])


def _unlike(old: bytes, new: bytes) -> Iterator[int]:
    """Yield the indexes of bytes that differ; equal bytes are skipped in blocks."""
    for start in range(0, len(old), BLOCK):
        one, other = old[start : start + BLOCK], new[start : start + BLOCK]
        if one != other:
            yield from (start + at for at in range(len(one)) if one[at] != other[at])


def _common(one: bytes, other: bytes) -> int:
    """Return the length of the common prefix."""
    same = min(len(one), len(other))
    return next(_unlike(one[:same], other[:same]), same)


def readable_again(file: BinaryIO) -> int | None:
    """Return the descriptor of an output that can be read again: of a regular file, not of a pipe or a buffer."""
    try:
        handle = file.fileno()
        return handle if stat.S_ISREG(os.fstat(handle).st_mode) else None
    except (OSError, AttributeError):
        return None


def seekable_source(stream: Stream) -> BufferSource:
    """Return the source of a stream, which must have all of its bytes.

    Raises :class:`~qmigtool.errors.UnsupportedError` for a stream that came through a pipe: its RAM was not kept.
    """
    source = stream.source
    if not isinstance(source, BufferSource):
        raise UnsupportedError(
            "rewriting a pipe",
            "a stream that came through a pipe cannot be rewritten",
            expected="one opened with spool=True, which keeps all of it",
        )
    return source


def write_stream(stream: Stream, target: BinaryIO, splices: Iterable[Splice] = ()) -> int:
    """Write ``stream`` with ``splices`` applied to ``target``; return the number of bytes written.

    Raises :class:`~qmigtool.errors.UsageError` for splices that overlap or leave the stream, and what
    :func:`seekable_source` raises.
    """
    source = seekable_source(stream)
    size = len(source.whole)
    _check_spans(stream, size)
    found = ordered(splices, size)
    at = written = 0
    with task("writing", size + sum(splice.growth for splice in found)):
        for splice in found:
            written += _copy(source, at, splice.offset - at, target)
            for part in splice.parts:
                written += _put(source, part, target)
                reach(written)
            at = splice.offset + splice.length
        return written + _copy(source, at, size - at, target)


def ordered(splices: Iterable[Splice], size: int) -> list[Splice]:
    """Return splices in the order of the stream; raises :class:`~qmigtool.errors.UsageError` if they overlap."""
    # Stable: several insertions at one place keep the caller's order, and precede a replacement.
    found = sorted(splices, key=lambda splice: (splice.offset, splice.length > 0))
    at = 0
    for splice in found:
        if splice.offset < at or splice.offset + splice.length > size:
            raise UsageError(f"edits overlap or leave the stream at {splice.offset:#x}")
        at = splice.offset + splice.length
    return found


def _check_spans(stream: Stream, size: int) -> None:
    """Check that every byte belongs to a section: unknown bytes must not be copied silently."""
    end = 0
    for section in stream.sections:
        if section.offset != end:
            raise StreamError(f"no section has the bytes from {end:#x}", offset=end)
        end = section.end
    if end != size:
        raise StreamError(f"no section has the bytes from {end:#x} on", offset=end)


def _copy(source: BufferSource, offset: int, length: int, target: BinaryIO) -> int:
    if isinstance(source, FileSource) and length:
        copy_range(source.fileno(), offset, length, target)
    else:
        target.write(source.view(offset, length))
    return length


def _put(source: BufferSource, part: Part, target: BinaryIO) -> int:
    if isinstance(part, bytes):
        target.write(part)
        return len(part)
    if isinstance(part, Moved):
        return _copy(source, part.offset, part.size, target)
    if isinstance(part, Hole):
        skip_zeros(target, part.size)
        return part.size
    written = 0
    for chunk in part.chunks():
        target.write(chunk)
        written += len(chunk)
        advance(len(chunk))
    if written != part.size:
        # Every later offset has been computed from its size.
        raise StreamError(f"{written} bytes were written instead of {part.size}")
    return written
