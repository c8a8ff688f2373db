"""lzop files: a header, then blocks of LZO1X data with checksums (lzop 1.04: ``conf.h``, ``lzop.c``).

lzokay decompresses a block into as many bytes as the block says, and fills what the data does not give with zeros: so
the checksums decide whether a block is right. A file without checksums (``lzop -F``) is decompressed twice: into one
byte less, each block must not fit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from enum import IntFlag
from typing import Any

from qmigtool.errors import StreamError, UnsupportedError
from qmigtool.parsers.extras import lacking
from qmigtool.util.budget import current

__all__ = ["LZOP_MAGIC", "LzopMember"]

LZOP_MAGIC = b"\x89LZO\x00\r\n\x1a\n"
SECTION = "lzop"
METHODS = (1, 2, 3)  # LZO1X-1, LZO1X-1(15), LZO1X-999: one decompressor
LEVELS_SINCE, NEEDED_SINCE = 0x0940, 0x0940  # versions whose header has more words
MAX_BLOCK = 64 << 20  # MAX_BLOCK_SIZE; the program writes 256 KiB
COPIES = 4  # of a block, while it is decompressed
MAX_EXTRA = 1 << 20


class LzopFlag(IntFlag):
    """``F_*``: D is of the plain data, C of the compressed one."""

    ADLER32_D = 0x1
    ADLER32_C = 0x2
    H_EXTRA_FIELD = 0x40
    CRC32_D = 0x100
    CRC32_C = 0x200
    MULTIPART = 0x400
    H_FILTER = 0x800
    H_CRC32 = 0x1000


Count = Callable[[bytes], int]
PLAIN: tuple[tuple[LzopFlag, str, Count], ...] = (
    (LzopFlag.ADLER32_D, "Adler-32", zlib.adler32),
    (LzopFlag.CRC32_D, "CRC-32", zlib.crc32),
)
PACKED: tuple[tuple[LzopFlag, str, Count], ...] = (
    (LzopFlag.ADLER32_C, "Adler-32", zlib.adler32),
    (LzopFlag.CRC32_C, "CRC-32", zlib.crc32),
)


class _Short(Exception):  # noqa: N818 - a signal inside this module
    """More input is needed."""


class LzopMember:
    """One lzop file, with the interface of :class:`bz2.BZ2Decompressor`; a block is made when all of it is there."""

    def __init__(self) -> None:
        try:
            import lzokay
        except ImportError:
            raise lacking("lzop compression", "lzokay", "lzop") from None
        self._lzokay: Any = lzokay
        self._data = bytearray()
        self._out = memoryview(b"")
        self._flags: LzopFlag | None = None
        self.eof = False
        self.needs_input = True

    @property
    def unused_data(self) -> bytes:
        """What follows the member."""
        return bytes(self._data) if self.eof else b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return the next bytes, at most ``max_length``; none where more input is needed first.

        Raises :class:`~qmigtool.errors.StreamError` for damaged data and
        :class:`~qmigtool.errors.UnsupportedError` for a method or a filter that only lzop knows.
        """
        self._data += data
        self.needs_input = False
        try:
            if self._flags is None:
                self._flags = self._header()
            while not len(self._out) and not self.eof:
                self._block(self._flags)
        except _Short:
            self.needs_input = True
        piece, self._out = bytes(self._out[:max_length]), self._out[max_length:]
        return piece

    def _take(self, at: int, size: int) -> bytes:
        if at + size > len(self._data):
            raise _Short
        return bytes(self._data[at : at + size])

    def _number(self, at: int, size: int = 4) -> int:
        return int.from_bytes(self._take(at, size), "big")

    def _header(self) -> LzopFlag:
        start = at = len(LZOP_MAGIC)
        version = self._number(at, 2)
        at += 6 if version >= NEEDED_SINCE else 4
        method = self._number(at, 1)
        at += 2 if version >= LEVELS_SINCE else 1
        flags = self._number(at)
        at += 4
        if method not in METHODS:
            raise UnsupportedError(f"the lzop method {method}", section=SECTION)
        if flags & LzopFlag.H_FILTER or flags & LzopFlag.MULTIPART:
            what = "a filter" if flags & LzopFlag.H_FILTER else "several parts"
            raise UnsupportedError(f"an lzop file with {what}", section=SECTION)
        at += 12 if version >= LEVELS_SINCE else 8  # mode and modification time
        at += 1 + self._number(at, 1)  # the file's name is not used
        self._check_header(start, at, flags, "header")
        at += 4
        if flags & LzopFlag.H_EXTRA_FIELD:
            size = self._number(at)
            if size > MAX_EXTRA:
                raise StreamError(f"an extra field of {size} bytes", section=SECTION, expected=f"at most {MAX_EXTRA}")
            self._check_header(at, at + 4 + size, flags, "extra field")
            at += 8 + size
        del self._data[:at]
        return LzopFlag(flags)

    def _check_header(self, start: int, end: int, flags: int, what: str) -> None:
        _, kind, count = PLAIN[bool(flags & LzopFlag.H_CRC32)]
        said, found = self._number(end), count(self._take(start, end - start))
        if said != found:
            raise StreamError(f"the {what}'s {kind} is {said:#010x}", section=SECTION, expected=f"{found:#010x}")

    def _block(self, flags: LzopFlag) -> None:
        size = self._number(0)
        at = 4
        if not size:
            self.eof = True
            del self._data[:at]
            return
        packed = self._number(at)
        at += 4
        if size > MAX_BLOCK or not 0 < packed <= size:
            expected = f"at most {MAX_BLOCK}, and no more when packed"
            raise StreamError(f"a block of {size} bytes, packed {packed}", section=SECTION, expected=expected)
        current().ask("memory", COPIES * size + packed, f"an lzop block has {size} bytes")
        sums: list[tuple[bool, str, Count, int]] = []
        for plain, kinds in ((True, PLAIN), (False, PACKED if packed < size else ())):
            for flag, name, count in kinds:
                if flags & flag:
                    sums.append((plain, name, count, self._number(at)))
                    at += 4
        data = self._take(at, packed)
        out = data if packed == size else self._expanded(data, size, exact=not any(plain for plain, *_ in sums))
        for plain, name, count, said in sums:
            found = count(out if plain else data)
            if said != found:
                raise StreamError(
                    f"a block's {name} is {said:#010x}", section=SECTION, expected=f"{found:#010x}, that of its bytes"
                )
        del self._data[: at + packed]
        self._out = memoryview(out)

    def _expanded(self, data: bytes, size: int, *, exact: bool) -> bytes:
        """Decompress a block; ``exact``: no checksum proves that the data gives ``size`` bytes."""
        errors = self._lzokay
        try:
            out = bytes(errors.decompress(data, size))
        except errors.LzokayError as error:
            raise StreamError(f"a damaged block: {error}", section=SECTION) from None
        if exact and size > 1:
            try:
                errors.decompress(data, size - 1)
            except errors.OutputOverrunError:
                return out
            raise StreamError("a damaged block: it gives too few bytes", section=SECTION, expected=f"{size}")
        return out
