"""lz4 frames (``lz4_Frame_format.md``): one of several in a file, decompressed within bounds.

Legacy frames (``lz4 -l``, 0x184C2102), which have neither an end nor checksums, are recognised and not read.
"""

from __future__ import annotations

from typing import Any

from qmigtool.errors import UnsupportedError
from qmigtool.parsers.extras import lacking

__all__ = ["LZ4_MAGIC", "Lz4Frame"]

LZ4_MAGIC = b"\x04\x22\x4d\x18"
FLG = 4  # the descriptor's first byte, after the magic
DICT_ID = 0x01


class Lz4Frame:
    """One frame, with the interface of :class:`bz2.BZ2Decompressor`."""

    def __init__(self) -> None:
        try:
            from lz4.frame import LZ4FrameDecompressor
        except ImportError:
            raise lacking("lz4 compression", "lz4", "lz4") from None
        self._inner: Any = LZ4FrameDecompressor()
        self._head: bytes | None = b""

    @property
    def eof(self) -> bool:
        """Whether the frame's end has been read."""
        return bool(self._inner.eof)

    @property
    def needs_input(self) -> bool:
        """Whether it needs more data before it gives output."""
        return self._head is not None or bool(self._inner.needs_input)

    @property
    def unused_data(self) -> bytes:
        """What follows the frame."""
        return self._inner.unused_data or b""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return the next bytes, at most ``max_length``.

        Raises :class:`RuntimeError` for damaged data, and :class:`~qmigtool.errors.UnsupportedError` for a frame that
        needs a dictionary, which is not in the file.
        """
        if self._head is not None:
            self._head += data
            if len(self._head) <= FLG:
                return b""
            if self._head[FLG] & DICT_ID:
                raise UnsupportedError("an lz4 frame that needs a dictionary")
            data, self._head = self._head, None
        return bytes(self._inner.decompress(data, max_length))
