"""Writing a stream: a list of splices over the source. What no splice touches is copied, byte for byte.

An empty list of splices gives the identical file, on every stream that can be read, because nothing is re-encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from qmigtool.errors import StreamError, UnsupportedError, UsageError
from qmigtool.files import copy_range
from qmigtool.parsers.source import BufferSource, FileSource

if TYPE_CHECKING:
    from qmigtool.stream import Stream

__all__ = ["Splice", "write_stream"]


class Splice(NamedTuple):
    """``length`` bytes at ``offset`` of the source are replaced by ``data`` (nothing: removed; length 0: inserted)."""

    offset: int
    length: int
    data: bytes


def write_stream(stream: Stream, target: BinaryIO, splices: Sequence[Splice] = ()) -> int:
    """Write ``stream`` with ``splices`` made to ``target``; return the bytes written.

    Raises :class:`~qmigtool.errors.UsageError` for splices that overlap or leave the stream,
    :class:`~qmigtool.errors.UnsupportedError` for a stream that came through a pipe: its RAM was not kept.
    """
    source = stream.source
    if not isinstance(source, BufferSource):
        raise UnsupportedError("rewriting a pipe", "a stream that came through a pipe cannot be rewritten")
    _check_spans(stream, source.size or 0)
    at = written = 0
    # Stable: of several insertions at one place the caller's order stays, and they stand before a replacement.
    for splice in sorted(splices, key=lambda splice: (splice.offset, splice.length > 0)):
        if splice.offset < at or splice.offset + splice.length > (source.size or 0):
            raise UsageError(f"edits overlap or leave the stream at {splice.offset:#x}")
        written += _copy(source, at, splice.offset - at, target) + len(splice.data)
        target.write(splice.data)
        at = splice.offset + splice.length
    return written + _copy(source, at, (source.size or 0) - at, target)


def _check_spans(stream: Stream, size: int) -> None:
    """Make sure that every byte belongs to a section: what is not understood must not be copied unseen."""
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
