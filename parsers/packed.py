"""Files that a compressor has packed: gzip, bzip2, xz and zstd, unpacked piece by piece.

Several members in a row (``cat a.gz b.gz``) are one file, as for the programs of these names; what follows the last one
and is no member (padding) is left.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from qmigtool.errors import LimitError, QmigError, StreamError, TruncatedError, UnsupportedError
from qmigtool.parsers.multifd import zstd_decompressor

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["PACKERS", "unpack"]

PIECE = 1 << 20  # bytes, of what is read and of what is given
FIRST = 1 << 12
MAX_EMPTY = 1000
MAX_MEMORY = 1 << 30  # xz -9e wants 65 MiB to unpack; a file may ask for more


class _Gzip:
    """One gzip member; zlib's own interface has no bound on what it keeps."""

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


# The words by which a container is recognised -> (magic, what unpacks one member in so many bytes of memory).
PACKERS: dict[str, tuple[bytes, Callable[[int], Any]]] = {
    "gzip": (b"\x1f\x8b", lambda _: _Gzip()),
    "bzip2": (b"BZh", lambda _: bz2.BZ2Decompressor()),
    "xz": (b"\xfd7zXZ\x00", lambda memory: lzma.LZMADecompressor(memlimit=memory)),
    "zstd": (b"\x28\xb5\x2f\xfd", lambda _: zstd_decompressor()),
}


def unpack(source: BufferSource, packer: str, start: int = 0, *, memory: int = MAX_MEMORY) -> Iterator[bytes]:
    """Give the bytes that are packed from ``start`` on, in pieces of at most 1 MiB.

    ``memory`` bounds what xz may ask for to unpack it; the others ask for little.
    Raises :class:`~qmigtool.errors.StreamError` where the packed data is damaged,
    :class:`~qmigtool.errors.TruncatedError` where it ends early, and :class:`~qmigtool.errors.UnsupportedError` for a
    packer that nobody here can undo. What comes before has been given by then.
    """
    if packer not in PACKERS:
        raise UnsupportedError(f"{packer} compression", offset=start)
    magic, make = PACKERS[packer]
    whole, at, empty = source.whole, start, 0
    while at < len(whole) and bytes(whole[at : at + len(magic)]) == magic:
        member, data = make(memory), b""
        taken = FIRST  # a file may have very many members: each is offered a little first
        given = False
        while not member.eof:
            if member.needs_input and not data:
                data = bytes(whole[at : at + taken])
                if not data:
                    raise TruncatedError(f"the {packer} data ends early", offset=at)
                at, taken = at + len(data), min(2 * taken, PIECE)
                source.passed(at)
            piece = _piece(member, data, packer, at)
            data = b""
            if piece:
                given = True
                yield piece
        at -= len(member.unused_data)
        empty = 0 if given else empty + 1
        if empty > MAX_EMPTY:
            raise LimitError(f"{empty} members with nothing in them", offset=at, expected=f"at most {MAX_EMPTY}")


def _piece(member: Any, data: bytes, packer: str, at: int) -> bytes:
    try:
        return bytes(member.decompress(data, PIECE))
    except QmigError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise StreamError(f"damaged {packer} data: {error}", offset=at) from None
    except Exception as error:  # zstd's own error type lives in whichever module provides it
        if type(error).__name__ != "ZstdError":
            raise
        raise StreamError(f"damaged {packer} data: {error}", offset=at) from None
