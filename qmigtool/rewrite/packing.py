"""Compressing a stream while it is written: the formats that :mod:`qmigtool.parsers.packed` reads."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, cast

from qmigtool.parsers.extras import lacking
from qmigtool.parsers.lzop import LZOP_MAGIC, LzopFlag

__all__ = ["PACKINGS", "PackedFile"]

BLOCK = 256 << 10  # bytes of a block of lzop, as the program writes it


class Compressor(Protocol):
    """What compresses piece by piece."""

    def compress(self, data: bytes) -> bytes:
        """Return what is made of more data so far."""
        ...

    def flush(self) -> bytes:
        """Return the rest."""
        ...


class _Lz4:
    def __init__(self) -> None:
        try:
            from lz4.frame import LZ4FrameCompressor
        except ImportError:
            raise lacking("lz4 compression", "lz4", "lz4") from None
        self._inner: Any = LZ4FrameCompressor(content_checksum=True)
        self._head: bytes = self._inner.begin()

    def compress(self, data: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + cast("bytes", self._inner.compress(data))

    def flush(self) -> bytes:
        return self._head + cast("bytes", self._inner.flush())


class _Lzop:
    """Blocks of 256 KiB with an Adler-32, as libvirt has lzop write them."""

    def __init__(self) -> None:
        try:
            import lzokay
        except ImportError:
            raise lacking("lzop compression", "lzokay", "lzop") from None
        self._pack: Callable[[bytes], bytes] = lzokay.compress
        words = (0x1040, 2), (0x20A0, 2), (0x0940, 2), (1, 1), (5, 1), (LzopFlag.ADLER32_D, 4), (0, 12), (0, 1)
        header = b"".join(value.to_bytes(size, "big") for value, size in words)
        self._head = LZOP_MAGIC + header + zlib.adler32(header).to_bytes(4, "big")
        self._left = b""

    def compress(self, data: bytes) -> bytes:
        out, self._head = bytearray(self._head), b""
        data = self._left + data
        whole = len(data) // BLOCK * BLOCK
        for at in range(0, whole, BLOCK):
            out += self._block(data[at : at + BLOCK])
        self._left = data[whole:]
        return bytes(out)

    def flush(self) -> bytes:
        return self._head + (self._block(self._left) if self._left else b"") + bytes(4)

    def _block(self, data: bytes) -> bytes:
        packed = self._pack(data)
        packed = packed if len(packed) < len(data) else data
        words = (len(data), len(packed), zlib.adler32(data))
        return b"".join(word.to_bytes(4, "big") for word in words) + packed


def _zstd() -> Compressor:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise lacking("zstd compression", "backports.zstd", "zstd") from None
    return cast("Compressor", zstd.ZstdCompressor())


PACKINGS: dict[str, Callable[[], Compressor]] = {
    "gzip": lambda: zlib.compressobj(wbits=31),
    "bzip2": bz2.BZ2Compressor,
    "xz": lzma.LZMACompressor,
    "zstd": _zstd,
    "lz4": _Lz4,
    "lzop": _Lzop,
}


class PackedFile:
    """A file object that compresses what is written to it; :meth:`end` writes the rest."""

    def __init__(self, target: BinaryIO, name: str) -> None:
        self._target = target
        self._inner = PACKINGS[name]()

    def write(self, data: Any) -> int:
        """Compress some bytes, and write what is made of them."""
        self._target.write(self._inner.compress(bytes(data)))
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is kept back is written by :meth:`end`."""

    def end(self) -> None:
        """Write what is left."""
        self._target.write(self._inner.flush())
