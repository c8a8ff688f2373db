"""The part of a stream that is in memory, addressed by absolute stream offsets.

One class serves a mapped file (everything is there and nothing will follow) and a pipe (bytes arrive, are read and
dropped). A reader requests what it needs; if that is missing yet it gets :class:`NeedMoreData`, and tries again from
the same position after the next feed. If nothing will follow, the same request is a
:class:`~qmigtool.errors.TruncatedError`. So a reader need not know which of the two it reads.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from qmigtool.errors import TruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

__all__ = ["NeedMoreData", "Window"]

BE16 = struct.Struct(">H")
BE32 = struct.Struct(">I")
BE64 = struct.Struct(">Q")


class NeedMoreData(Exception):  # noqa: N818 - a signal between reader and feeder, never seen by a caller
    """The window ends before the requested bytes, and more may follow."""


class Window:
    """Bytes ``[base, end)`` of a stream; ``final`` means that the stream ends at ``end``.

    ``passed(offset)`` is called from time to time: the bytes before it will not be read again soon.
    """

    __slots__ = ("_buffer", "base", "buf", "end", "final", "passed")

    def __init__(
        self,
        data: Buffer = b"",
        *,
        base: int = 0,
        final: bool = False,
        passed: Callable[[int], None] | None = None,
    ) -> None:
        self.final = final
        self.passed = passed
        self.base = base
        if final:
            self._buffer: bytearray | None = None
            self.buf = memoryview(data).cast("B").toreadonly()
        else:
            self._buffer = bytearray(data)
            self.buf = memoryview(self._buffer)
        self.end = base + len(self.buf)

    def feed(self, data: Buffer, *, keep: int) -> None:
        """Append bytes, and drop those before the absolute offset ``keep``.

        Earlier views are void: their buffer is reused.
        """
        if self._buffer is None:
            raise ValueError("this window is final: nothing can follow")
        new = memoryview(data).cast("B")
        drop = min(max(keep - self.base, 0), len(self.buf))
        # A reader may be far ahead of the bytes: it skips what it need not read.
        skip = min(max(keep - self.end, 0), len(new))
        left = len(self.buf) - drop
        size = left + len(new) - skip
        # The buffer keeps its size: freeing and allocating it again would cost more than reading the pipe.
        room = self._buffer
        rest = bytes(self.buf[drop:])
        self.buf.release()
        if size > len(room):
            room = self._buffer = bytearray(max(size, 2 * len(room)))
        with memoryview(room) as whole:
            whole[:left] = rest
            whole[left:size] = new[skip:]
        self.base += drop + skip
        self.buf = memoryview(room)[:size]
        self.end = self.base + size

    def close(self) -> None:
        """End the input: nothing will follow."""
        self.final = True

    def need(self, pos: int, count: int, what: str) -> None:
        """Check that there are ``count`` bytes at ``pos``.

        Raises :class:`NeedMoreData`, or :class:`~qmigtool.errors.TruncatedError` when nothing will follow.
        """
        if pos < self.base:
            raise ValueError(f"the bytes at {pos:#x} were dropped: the window starts at {self.base:#x}")
        if pos + count > self.end:
            if self.final:
                raise TruncatedError(
                    "the stream ends here",
                    offset=self.end,
                    expected=f"{count} bytes of {what} from {pos:#x}, of which {max(0, self.end - pos)} are there",
                )
            raise NeedMoreData

    def skip(self, pos: int, count: int, what: str) -> int:
        """Return ``pos + count``: skip bytes that need not be read, and so need not be available yet.

        Raises :class:`~qmigtool.errors.TruncatedError` if the stream ends before that.
        """
        if self.final:
            self.need(pos, count, what)
        return pos + count

    def view(self, pos: int, count: int, what: str) -> memoryview:
        """Return ``count`` bytes at ``pos``, without a copy."""
        self.need(pos, count, what)
        start = pos - self.base
        return self.buf[start : start + count]

    def bytes(self, pos: int, count: int, what: str) -> bytes:
        """Return a copy of ``count`` bytes at ``pos``."""
        return bytes(self.view(pos, count, what))

    def u8(self, pos: int, what: str) -> int:
        """Read one byte."""
        self.need(pos, 1, what)
        return self.buf[pos - self.base]

    def be16(self, pos: int, what: str) -> int:
        """Read a big-endian 16-bit word."""
        self.need(pos, 2, what)
        return int(BE16.unpack_from(self.buf, pos - self.base)[0])

    def be32(self, pos: int, what: str) -> int:
        """Read a big-endian 32-bit word."""
        self.need(pos, 4, what)
        return int(BE32.unpack_from(self.buf, pos - self.base)[0])

    def be64(self, pos: int, what: str) -> int:
        """Read a big-endian 64-bit word."""
        self.need(pos, 8, what)
        return int(BE64.unpack_from(self.buf, pos - self.base)[0])

    def at_end(self, pos: int) -> bool:
        """Return whether the stream ends at ``pos``; raises :class:`NeedMoreData` while that is not known."""
        if pos < self.end:
            return False
        if not self.final:
            raise NeedMoreData
        return True
