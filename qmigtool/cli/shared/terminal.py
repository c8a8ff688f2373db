"""The terminal: its width, colours, and a pager for output that is longer than it is high.

Output is folded to the width of the terminal. If stdout is not a terminal it is not folded, so that it can be searched;
COLUMNS sets a width in both cases. NO_COLOR turns colours off, FORCE_COLOR turns them on without a terminal.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from qmigtool.cli.shared.standard import STDERR, STDOUT, WholeWriter
from qmigtool.util.progress import reporter

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["NO_PAGER", "coloured", "columns", "error_columns", "on_terminal", "paged", "styled"]

NO_PAGER = "qmigtool.no_pager"  # in click's ``Context.meta``: --no-pager was given
PAGER, OPTIONS = "less", "FRX"  # what git takes: quit if it fits, colours, leave the screen as it is


def on_terminal() -> bool:
    """Whether stdout is a terminal (also through our pager)."""
    return sys.stdout.isatty()


def columns() -> int | None:
    """Return the width to which output is folded; None: it is not."""
    with contextlib.suppress(ValueError):
        given = int(os.environ.get("COLUMNS", ""))
        if given > 0:
            return given
    return shutil.get_terminal_size().columns if on_terminal() else None


def error_columns() -> int | None:
    """Return the width to which messages on standard error are folded; None: it is not a terminal."""
    if not sys.stderr.isatty():
        return None
    size = shutil.get_terminal_size().columns  # of COLUMNS, of standard output, or 80
    if not os.environ.get("COLUMNS"):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(STDERR).columns or size
    return size


def coloured() -> bool:
    """Whether output has colours."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") != "0":
        return True
    return on_terminal() and os.environ.get("TERM") != "dumb"


def styled(text: str, colour: str | None, *, bold: bool = False) -> str:
    """Return text in a colour, if output has colours."""
    return click.style(text, fg=colour, bold=bold or None) if coloured() and (colour or bold) else text


class PagingWriter(io.RawIOBase):
    """Standard output that keeps what fits on the terminal, and starts the pager when more comes."""

    def __init__(self, command: str, height: int) -> None:
        super().__init__()
        self._command = command
        self._height = height
        self._kept = bytearray()
        self._out: WholeWriter | None = None
        self._pager: subprocess.Popen[bytes] | None = None
        self._saved: int | None = None

    def writable(self) -> bool:
        """It is written to, and nothing else."""
        return True

    def fileno(self) -> int:
        """The file descriptor of standard output."""
        return STDOUT

    def isatty(self) -> bool:
        """What is written ends on a terminal."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Write all of ``data``, or keep it."""
        whole = memoryview(data).cast("B")
        if self._out is not None:
            return self._out.write(whole)
        self._kept += whole
        if self._kept.count(b"\n") >= self._height:
            self._start()
        return len(whole)

    def _start(self) -> None:
        """Start the pager."""
        shown = reporter()
        if shown is not None:
            shown.stop()
        environment = {"LESS": OPTIONS, "LV": "-c", **os.environ}
        try:
            # As git does: PAGER is a command line of the shell.
            self._pager = subprocess.Popen(["/bin/sh", "-c", self._command], stdin=subprocess.PIPE, env=environment)  # noqa: S603
        except OSError:
            self._pager = None
        if self._pager is not None and self._pager.stdin is not None:
            self._saved = os.dup(STDOUT)
            os.dup2(self._pager.stdin.fileno(), STDOUT)
            self._pager.stdin.close()
        self._out = WholeWriter(STDOUT)
        self._out.write(self._kept)
        self._kept.clear()

    def finish(self) -> None:
        """Write what was kept, and wait until the pager ends."""
        try:
            if self._out is None:
                self._out = WholeWriter(STDOUT)
                self._out.write(self._kept)
                self._kept.clear()
        finally:
            if self._saved is not None:
                os.dup2(self._saved, STDOUT)  # this closes the pager's input
                os.close(self._saved)
            if self._pager is not None:
                before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the pager's now
                try:
                    self._pager.wait()
                finally:
                    signal.signal(signal.SIGINT, before)


@contextmanager
def paged() -> Iterator[None]:
    """Send what is written in the block through a pager if it is longer than the terminal, and stdout is one."""
    command = os.environ.get("PAGER", PAGER).strip()
    context = click.get_current_context(silent=True)
    unwanted = context is not None and context.meta.get(NO_PAGER, False)
    program = command.split(" ")[0]
    if unwanted or command in ("", "cat") or not os.isatty(STDOUT) or not shutil.which(program):
        yield
        return
    plain = sys.stdout
    if not isinstance(plain, io.TextIOWrapper) or not plain.isatty():  # a stand-in, as in a test
        yield
        return
    plain.flush()
    writer = PagingWriter(command, shutil.get_terminal_size().lines)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(writer, 1 << 16), encoding=plain.encoding, errors=plain.errors, line_buffering=True
    )
    # Messages keep their place among the lines, in the pager, too: both are shown on the same terminal.
    messages = contextlib.redirect_stderr(sys.stdout) if sys.stderr.isatty() else contextlib.nullcontext()
    try:
        with messages:
            yield
    finally:
        try:
            with contextlib.suppress(BrokenPipeError):  # the pager was left before the end: nothing is lost to anyone
                sys.stdout.flush()
        finally:
            sys.stdout.detach()
            sys.stdout = plain
            with contextlib.suppress(BrokenPipeError):
                writer.finish()
