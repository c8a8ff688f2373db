"""The bytes of a stream as QEMU's loader reads them (``migration/qemu-file.c``).

The loader does not stop at the end of the file: every byte beyond it reads as zero, and the error is only found by a
check (:attr:`Cursor.failed`). What the loader did with the zeros until then decides what it prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.parsers.record import decode_name

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["Cursor"]

MAX_TAKEN = 1 << 20  # bytes held for a length in the file; nothing that is checked is longer


class Cursor:
    """A position in a stream, ``pos``; the stream ends at ``end``."""

    __slots__ = ("_source", "data", "end", "failed", "pos")

    def __init__(self, source: BufferSource, pos: int, end: int | None = None) -> None:
        self._source = source
        self.data = source.whole
        self.pos = pos
        self.end = len(self.data) if end is None else end
        self.failed = False

    @property
    def left(self) -> int:
        """The number of bytes up to the end."""
        return max(0, self.end - self.pos)

    def take(self, count: int) -> bytes:
        """Read ``count`` bytes (and return at most 1 MiB of them); bytes beyond the end are zeros."""
        held = min(count, MAX_TAKEN)
        found = bytes(self.data[self.pos : min(self.pos + held, self.end)])
        self.skip(count)
        return found.ljust(held, b"\0")

    def skip(self, count: int) -> None:
        """Skip ``count`` bytes."""
        self.failed = self.failed or count > self.left
        self.pos = min(self.pos + count, max(self.end, self.pos))

    def peek(self, count: int, ahead: int = 0) -> bytes:
        """Return the next bytes without consuming them; fewer at the end."""
        start = self.pos + ahead
        return bytes(self.data[start : min(start + count, self.end)])

    def look(self) -> int:
        """Return the next byte without consuming it, as the loader does; this also detects the end of the file."""
        self.failed = self.failed or not self.left
        return (self.peek(1) or b"\0")[0]

    def passed(self) -> None:
        """Tell the source that the bytes before ``pos`` will not be read again soon."""
        self._source.passed(self.pos)

    def u8(self) -> int:
        """Read one byte."""
        return self.take(1)[0]

    def be16(self) -> int:
        """Read a big-endian 16-bit word."""
        return int.from_bytes(self.take(2), "big")

    def be32(self) -> int:
        """Read a big-endian 32-bit word."""
        return int.from_bytes(self.take(4), "big")

    def be64(self) -> int:
        """Read a big-endian 64-bit word."""
        return int.from_bytes(self.take(8), "big")

    def name(self) -> str:
        """Read a counted string up to a NUL, as in C; an empty one is legal here."""
        return decode_name(self.take(self.u8()).partition(b"\0")[0])
