"""Standard output that takes every byte or fails: slow readers, full disks, pipes that do not block, unbuffered Python.

With ``PYTHONUNBUFFERED`` Python's own standard output writes to the descriptor at once and does not look at how much of
it was taken; with a descriptor that does not block it gives up half way. Here a write is repeated until all is taken.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["drop_errors", "flush_output", "take_standard_streams"]

STDIN, STDOUT, STDERR = 0, 1, 2
NAME = "standard output"
PAUSE = 0.01  # seconds


class WholeWriter(io.RawIOBase):
    """A file descriptor to which a write writes all, or raises :class:`OSError`; after that it takes nothing more."""

    def __init__(self, handle: int) -> None:
        super().__init__()
        self._handle = handle
        self._failed = False

    def writable(self) -> bool:
        """It is written to, and nothing else."""
        return True

    def fileno(self) -> int:
        """The file descriptor."""
        return self._handle

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._handle)

    def write(self, data: Buffer, /) -> int:
        """Write all of ``data``; waits for a reader that is slow."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left and not self._failed:
            try:
                left = left[os.write(self._handle, left) :]
            except BlockingIOError:
                _wait(self._handle)
            except OSError as error:
                self._failed = True  # buffered data must not raise again when the process ends
                raise OSError(error.errno, error.strerror, NAME) from None
        return size


def _wait(handle: int) -> None:
    """Wait until a descriptor can be written to, or a little while where that cannot be asked."""
    if not hasattr(select, "poll"):
        time.sleep(PAUSE)
        return
    ready = select.poll()
    ready.register(handle, select.POLLOUT)
    ready.poll()


def take_standard_streams() -> None:
    """Make ``sys.stdout`` one that loses nothing; what is not in a terminal's encoding is escaped."""
    # They may be closed (>&-). The next file to be opened must not get their numbers.
    for handle in (STDIN, STDOUT, STDERR):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if handle == STDERR else os.O_RDONLY)
    plain = sys.stdout
    buffered = io.BufferedWriter(WholeWriter(STDOUT), 1 << 16)
    sys.stdout = io.TextIOWrapper(
        buffered,
        encoding="utf-8" if plain is None else plain.encoding,
        errors="backslashreplace",
        line_buffering=os.isatty(STDOUT) or bool(os.environ.get("PYTHONUNBUFFERED")),
    )
    if sys.stderr is None:
        sys.stderr = open(STDERR, "w", closefd=False)  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


def flush_output() -> OSError | None:
    """Write what is still in buffers; return what kept it from being written.

    If the reader has exited (``| head``) there is no message, as from a program that is killed by SIGPIPE.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        _silence(sys.stdout)
        return error
    return None


def drop_errors() -> None:
    """Give up words that standard error does not take: they change no exit status."""
    try:
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def _silence(text: TextIO) -> None:
    """Lead a file elsewhere: Python's own flush at exit must not complain again."""
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), text.fileno())
