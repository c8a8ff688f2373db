"""The sources of a stream's bytes: a mapped file, a buffer, or the kept parts of a pipe.

Everything above this module addresses bytes by their offset in the stream whichever of the three it is.
A file is opened for reading only.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from qmigtool.errors import ClosedError, GapError, StreamError, TruncatedError
from qmigtool.util.budget import current
from qmigtool.util.files import open_input, reopen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from typing_extensions import Buffer

__all__ = ["BufferSource", "FileSource", "KeptSource", "PartSource", "Source"]

PASSED = 16 << 20
# Where it is missing, the system decides itself which pages stay in memory.
_RELEASE: int | None = getattr(mmap, "MADV_DONTNEED", None) if hasattr(mmap.mmap, "madvise") else None


class Source:
    """Bytes by absolute offset; ``size`` is None if it is not known."""

    closed = False
    size: int | None = None
    name: str = "<stream>"
    holes: tuple[tuple[int, int], ...] = ()
    """(offset, length) of what the input does not have, ascending; only :meth:`view` refuses these bytes."""

    def view(self, offset: int, length: int) -> memoryview:
        """Return ``length`` bytes at ``offset``; raises :class:`~qmigtool.errors.TruncatedError` beyond the end."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the bytes; after that :meth:`view` raises :class:`~qmigtool.errors.ClosedError`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class BufferSource(Source):
    """Bytes that are in memory; ``whole`` is all of them."""

    whole: memoryview

    def __init__(self, data: Buffer, name: str = "<bytes>") -> None:
        self.whole = memoryview(data).cast("B").toreadonly()
        self.size = len(self.whole)
        self.name = name

    def __getattr__(self, name: str) -> Any:
        # Only called for missing attributes: ``whole`` is deleted on close.
        if name == "whole":
            raise ClosedError("the stream is closed")
        raise AttributeError(name)

    def close(self) -> None:
        """Release the bytes. Existing views stay valid."""
        if not self.closed:
            self.closed = True
            del self.whole

    def passed(self, offset: int) -> None:
        """Record that the bytes before ``offset`` will not be read again soon."""

    def restart(self) -> None:
        """Record that it is read from the front again."""

    def release(self, start: int, end: int) -> None:
        """Record that the bytes between two offsets will not be read again soon."""

    @property
    def occupied(self) -> int:
        """The space that it occupies, in bytes: holes of a file do not count."""
        return len(self.whole)

    def first_data(self) -> int:
        """Return an offset before which there are only zeros, as far as that is known without reading them."""
        return 0

    def view(self, offset: int, length: int) -> memoryview:
        """Return a view, without a copy."""
        if offset < 0 or length < 0 or offset + length > len(self.whole):
            raise TruncatedError(
                "the stream ends here", offset=len(self.whole), expected=f"{length} bytes from {offset:#x}"
            )
        for start, size in self.holes:
            if start < offset + length and offset < start + size:
                raise GapError(size, offset=start)
        return self.whole[offset : offset + length]


class FileSource(BufferSource):
    """A regular file or block device, mapped read-only: nothing is read before it is used.

    Reading a mapped page that the file no longer has kills the process (SIGBUS), and Python cannot prevent that. So the
    length is checked again with every :meth:`view` and :meth:`passed`; a program that truncates the file during a walk
    may still be faster.
    """

    def __init__(self, path: Path) -> None:
        self._open(open_input(path), str(path))

    @classmethod
    def of_handle(cls, handle: int, name: str) -> Self:
        """Map the file of an open file descriptor, such as a temporary file; it is closed with the source."""
        made = cls.__new__(cls)
        made._open(handle, name)
        return made

    @classmethod
    def of_open_file(cls, handle: int) -> Self:
        """Map the file of a descriptor that stays open, such as an output that is read again."""
        return cls.of_handle(reopen(handle), f"/dev/fd/{handle}")

    def _open(self, handle: int, name: str) -> None:
        self._passed = 0
        self._fd = handle
        try:
            self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
            size = os.lseek(self._fd, 0, os.SEEK_END)  # also right for a block device, where stat says 0
            self._map = mmap.mmap(self._fd, size, access=mmap.ACCESS_READ) if size else None
        except BaseException:
            os.close(self._fd)
            raise
        super().__init__(self._map if self._map is not None else b"", name)

    def check(self) -> None:
        """Check that the file has not become shorter; raises :class:`~qmigtool.errors.StreamError`."""
        if self._regular and self._fd >= 0:
            size = os.fstat(self._fd).st_size
            if size < len(self.whole):
                raise StreamError(
                    "the file became shorter while it was read", offset=size, expected=f"{len(self.whole)} bytes"
                )

    @property
    def occupied(self) -> int:
        """The space that it occupies on disk, in bytes: holes do not count."""
        # Not every system counts blocks: then the file is as large as it says.
        blocks = getattr(os.fstat(self._fd), "st_blocks", None) if self._regular else None
        return len(self.whole) if blocks is None else min(len(self.whole), blocks * 512)

    def view(self, offset: int, length: int) -> memoryview:
        """Return a view, without a copy."""
        self.check()
        return super().view(offset, length)

    def first_data(self) -> int:
        """Return where the file's first hole ends, if it starts with one."""
        if not hasattr(os, "SEEK_DATA"):
            return 0
        try:
            return os.lseek(self._fd, 0, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: only a hole. Anything else: this file system (or a block device) does not report holes.
            return len(self.whole) if error.errno == errno.ENXIO else 0

    def passed(self, offset: int) -> None:
        """Release the pages before ``offset``, so that a walk through a large file does not make the process large."""
        self.check()
        offset = min(offset, len(self.whole))  # a length in the file may lead anywhere
        if self._map is not None and offset - self._passed >= PASSED and _RELEASE is not None:
            start, end = (at // mmap.PAGESIZE * mmap.PAGESIZE for at in (self._passed, offset))
            self._map.madvise(_RELEASE, start, end - start)
            self._passed = offset

    def release(self, start: int, end: int) -> None:
        """Release the pages between two offsets, which were read from the back."""
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if self._map is not None and last > first and _RELEASE is not None:
            self._map.madvise(_RELEASE, first, last - first)

    def restart(self) -> None:
        """Release pages again from the front on."""
        self._passed = 0

    def fileno(self) -> int:
        """The file descriptor, for the kernel to copy from."""
        return self._fd

    def close(self) -> None:
        """Unmap the file. Existing views keep it mapped until they are released."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:
                # A field or a numpy view still uses it; the mapping is released with the last one.
                self._map = None


class PartSource(BufferSource):
    """A part of a mapped file; all parts share one mapping, and none has a file descriptor."""

    def __init__(self, mapped: mmap.mmap, start: int, size: int, name: str) -> None:
        super().__init__(memoryview(mapped)[start : start + size], name)
        self._map, self._start, self._passed = mapped, start, 0

    @classmethod
    def of_file(cls, handle: int, parts: Sequence[tuple[int, int, str]]) -> list[BufferSource]:
        """Map an open file, and return its parts (start, size, name); ``start`` is the start of a page."""
        mapped = mmap.mmap(handle, 0, access=mmap.ACCESS_READ)
        return [cls(mapped, *part) for part in parts]

    def passed(self, offset: int) -> None:
        """Release the pages before ``offset``."""
        offset = min(offset, len(self.whole))
        if offset - self._passed >= PASSED and _RELEASE is not None:
            start, end = (at // mmap.PAGESIZE * mmap.PAGESIZE for at in (self._passed, offset))
            self._map.madvise(_RELEASE, self._start + start, end - start)
            self._passed = offset

    def restart(self) -> None:
        """Release pages again from the front on."""
        self._passed = 0


class KeptSource(Source):
    """The spans that were kept of a stream from a pipe; their sum is bounded."""

    def __init__(self, name: str = "<pipe>") -> None:
        self.name = name
        self._starts: list[int] = []
        self._spans: list[bytes] = []
        self._kept = 0

    def close(self) -> None:
        """Release the spans."""
        self.closed = True
        self._starts, self._spans = [], []

    def keep(self, offset: int, data: bytes) -> None:
        """Keep a span; spans are added in ascending order."""
        self._kept += len(data)
        # Twice: while it is kept, the same amount may wait for the end of its section.
        current().ask("memory", 2 * self._kept, f"of a pipe, {self._kept} bytes of device state are kept twice", offset)
        self._starts.append(offset)
        self._spans.append(data)

    def view(self, offset: int, length: int) -> memoryview:
        """Return a view of a kept span."""
        if self.closed:
            raise ClosedError("the stream is closed")
        index = bisect_right(self._starts, offset) - 1
        if index >= 0:
            start = offset - self._starts[index]
            if start + length <= len(self._spans[index]):
                return memoryview(self._spans[index])[start : start + length]
        raise StreamError(f"{length} bytes were not kept: the stream was read from a pipe", offset=offset)
