"""Compressed files: gzip, bzip2, xz, zstd, lz4 and lzop, decompressed piece by piece.

Several members in a row (``cat a.gz b.gz``) are one file, as for the programs of these names; bytes after the last one
that are not a member (padding) are ignored, and so are the skippable frames of zstd and lz4.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from qmigtool.errors import LimitError, QmigError, StreamError, TruncatedError, UnsupportedError
from qmigtool.parsers.container import SKIPPABLE
from qmigtool.parsers.lz4frame import LZ4_MAGIC, Lz4Frame
from qmigtool.parsers.lzop import LZOP_MAGIC, LzopMember
from qmigtool.parsers.multifd import zstd_decompressor
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["PACKERS", "behind_frames", "framed", "unpack", "unpack_pieces", "without_frames"]

PIECE = 1 << 20  # bytes, of input and of output
FIRST = 1 << 12
MAX_EMPTY = 1000  # members in a row
FRAME_HEAD = 8  # bytes: magic and length, little-endian
SMALL, MAX_SMALL = 512, 10_000  # bytes of a member, members; bgzip's have 64 KiB


class _Gzip:
    """One gzip member; zlib's own interface does not limit what it keeps."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


# Name of the compression -> (magic, decompressor of one member within a number of bytes of memory).
PACKERS: dict[str, tuple[bytes, Callable[[int], Any]]] = {
    "gzip": (b"\x1f\x8b", lambda _: _Gzip()),
    "bzip2": (b"BZh", lambda _: bz2.BZ2Decompressor()),
    # xz -9e needs 65 MiB to decompress; a file may require 4 GiB
    "xz": (b"\xfd7zXZ\x00", lambda memory: lzma.LZMADecompressor(memlimit=memory)),
    "zstd": (b"\x28\xb5\x2f\xfd", lambda memory: zstd_decompressor(memory)),
    "lz4": (LZ4_MAGIC, lambda _: Lz4Frame()),
    "lzop": (LZOP_MAGIC, lambda _: LzopMember()),
}
FRAMED = ("zstd", "lz4")  # may have skippable frames


def unpack(source: BufferSource, packer: str, start: int = 0) -> Iterator[bytes]:
    """Yield the decompressed bytes from ``start`` on, in pieces of at most 1 MiB.

    Raises :class:`~qmigtool.errors.StreamError` for damaged data, :class:`~qmigtool.errors.TruncatedError` for
    truncated data, :class:`~qmigtool.errors.UnsupportedError` for a compression without an installed decompressor, and
    :class:`~qmigtool.errors.BudgetError` if it needs more memory than allowed. The bytes before the error have been
    yielded by then.
    """
    return _unpacked(_Mapped(source, start), packer, 0)


def unpack_pieces(pieces: Iterator[bytes], packer: str, layer: int) -> Iterator[bytes]:
    """Do the same to decompressed data, piece by piece; ``layer`` is the number of compressions around it."""
    return _unpacked(_Pieces(pieces), packer, layer)


def behind_frames(source: BufferSource, start: int) -> tuple[int, str]:
    """Return the offset after the skippable frames at ``start``, and the compression of what is there.

    Raises :class:`~qmigtool.errors.StreamError` if that has none.
    """
    feed = _Mapped(source, start)
    for _ in _skipped(feed):
        pass
    return feed.at, framed(bytes(source.whole[feed.at : feed.at + FRAME_HEAD]), feed.at)


def framed(head: bytes, at: int | None = None) -> str:
    """Return the compression of data that follows skippable frames, by its first bytes."""
    for name in FRAMED:
        if head.startswith(PACKERS[name][0]):
            return name
    raise StreamError("skippable frames before something else", offset=at, expected="zstd or lz4 data")


def without_frames(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield decompressed data without the skippable frames that it begins with."""
    feed = _Pieces(pieces)
    for _ in _skipped(feed):
        pass
    while data := feed.take(PIECE):
        yield data


def _skipped(feed: _Feed) -> Iterator[None]:
    """Step over skippable frames, one at a time."""
    count = 0
    while True:
        head = feed.take(FRAME_HEAD)
        if len(head) < 4 or head[1:4] != SKIPPABLE or head[0] & 0xF0 != 0x50:
            feed.back(head)
            return
        size = int.from_bytes(head[4:], "little")
        if len(head) < FRAME_HEAD or feed.skip(size) < size:
            raise TruncatedError("a skippable frame is truncated", offset=feed.at)
        count += 1
        if count > MAX_EMPTY:
            raise LimitError(f"{count} skippable frames", offset=feed.at, expected=f"at most {MAX_EMPTY} in a row")
        yield


class _Feed(Protocol):
    """Compressed bytes, in order; ``at`` is the offset of the next."""

    at: int

    def take(self, count: int) -> bytes:
        """Return this many bytes, or the rest."""
        ...

    def back(self, data: bytes) -> None:
        """Put back bytes that were just read."""
        ...

    def skip(self, count: int) -> int:
        """Step over this many bytes, or the rest; return how many."""
        ...


class _Mapped:
    """The bytes of a source from an offset on."""

    def __init__(self, source: BufferSource, start: int) -> None:
        self._source = source
        self.at = start

    def take(self, count: int) -> bytes:
        data = bytes(self._source.whole[self.at : self.at + count])
        self.at += len(data)
        self._source.passed(self.at)
        return data

    def back(self, data: bytes) -> None:
        self.at -= len(data)

    def skip(self, count: int) -> int:
        there = max(0, min(count, len(self._source.whole) - self.at))
        self.at += there
        return there


class _Pieces:
    """The bytes of an iterator of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""
        self.at = 0

    def take(self, count: int) -> bytes:
        while len(self._left) < count and (piece := next(self._pieces, b"")):
            self._left += piece
        data, self._left = self._left[:count], self._left[count:]
        self.at += len(data)
        return data

    def back(self, data: bytes) -> None:
        self._left = data + self._left
        self.at -= len(data)

    def skip(self, count: int) -> int:
        left = count
        while left and (data := self.take(min(left, PIECE))):
            left -= len(data)
        return count - left


def _unpacked(feed: _Feed, packer: str, layer: int) -> Iterator[bytes]:
    if packer not in PACKERS:
        raise UnsupportedError(f"{packer} compression", offset=feed.at)
    magic, make = PACKERS[packer]
    budget = current()
    memory = int(budget.limit("memory")) >> layer
    empty = small = 0
    while True:
        if packer in FRAMED:
            for _ in _skipped(feed):
                budget.tick(feed.at, f"{packer} data")
        if (data := feed.take(len(magic))) != magic:
            break
        feed.back(data)
        member, data = make(memory), b""
        taken = FIRST  # a file may have very many members: each gets a little first
        given = 0
        while not member.eof:
            if member.needs_input and not data:
                data = feed.take(taken)
                if not data:
                    raise TruncatedError(f"the {packer} data is truncated", offset=feed.at)
                taken = min(2 * taken, PIECE)
            piece = _piece(member, data, packer, feed.at)
            budget.tick(feed.at, f"{packer} data")
            data = b""
            if piece:
                given += len(piece)
                yield piece
        feed.back(member.unused_data)
        empty = 0 if given else empty + 1
        if empty > MAX_EMPTY:
            raise LimitError(f"{empty} empty members", offset=feed.at, expected=f"at most {MAX_EMPTY}")
        small += given < SMALL
        if small > MAX_SMALL:
            raise LimitError(
                f"{small} members of less than {SMALL} bytes", offset=feed.at, expected=f"at most {MAX_SMALL}"
            )


def _piece(member: Any, data: bytes, packer: str, at: int) -> bytes:
    try:
        return bytes(member.decompress(data, PIECE))
    except QmigError as error:
        error.offset = at if error.offset is None else error.offset
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, RuntimeError) as error:  # RuntimeError: lz4
        _refuse_memory(error, packer, at)
        raise StreamError(f"damaged {packer} data: {error}", offset=at) from None
    except Exception as error:  # zstd's error type is in the module that provides it
        if type(error).__name__ != "ZstdError":
            raise
        _refuse_memory(error, packer, at)
        raise StreamError(f"damaged {packer} data: {error}", offset=at) from None


def _refuse_memory(error: Exception, packer: str, at: int) -> None:
    """Distinguish a file that needs too much memory from a damaged one: only the error's message shows it."""
    if "memory" in str(error).lower():
        current().refuse("memory", f"decompressing the {packer} data needs more than", at)
