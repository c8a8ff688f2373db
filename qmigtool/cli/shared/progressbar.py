"""Progress on stderr: one line, for what takes longer than two seconds, on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from qmigtool.util.progress import Task
from qmigtool.util.text import printable

__all__ = ["Bar"]

PATIENCE = 2.0  # seconds before anything is shown
PAUSE = 0.2  # seconds between two lines
CLEAR = "\r\x1b[K"
UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


class Bar:
    """A line with the tasks: what is done, how fast, the time that is left."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, stream: TextIO | None = None) -> None:
        self._stream = stream  # None: what sys.stderr is when something is shown
        self._stopped = False
        self.tasks: list[Task] = []
        self._clock = clock
        self._began: list[tuple[Task, float]] = []
        self._next = 0.0
        self._shown = False

    def update(self) -> None:
        """Show the tasks, if they take long and it is time."""
        now = self._clock()
        self._began = [(one, next((then for old, then in self._began if old is one), now)) for one in self.tasks]
        started = [then for _, then in self._began]
        if self._stopped or not started or now < max(self._next, started[0] + PATIENCE):
            return
        self._next = now + PAUSE
        line = "  ".join(_line(one, now - start) for one, start in zip(self.tasks, started, strict=True))
        self._write(CLEAR + line[: shutil.get_terminal_size().columns - 1])
        self._shown = True

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._write(CLEAR)
            self._shown = False

    def stop(self) -> None:
        """Show nothing from now on."""
        self.clear()
        self._stopped = True

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stderr
        stream.write(text)
        stream.flush()


def _line(one: Task, seconds: float) -> str:
    """Return a task as text: ``reading 1.2 GiB of 4.0 GiB, 512 MiB/s, 6 s left``."""
    amount = _bytes if one.unit is None else str
    words = f"{printable(one.name)} {amount(one.done)}"
    if one.total:
        words += f" of {amount(one.total)}"
    words += f" {one.unit}" if one.unit is not None else ""
    rate = one.done / seconds if seconds > 0 else 0.0
    if one.unit is None and rate:
        words += f", {_bytes(int(rate))}/s"
    if one.total and rate and one.done < one.total:
        words += f", {_time((one.total - one.done) / rate)} left"
    return words


def _bytes(count: int) -> str:
    return next((f"{count / size:.1f} {unit}" for unit, size in UNITS if count >= size), f"{count} bytes")


def _time(seconds: float) -> str:
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
