"""Clocks, processes and the table that the figures are printed in."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from tests.support.paths import ROOT

Name = TypeVar("Name")
LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table: what was measured, and its rival. ``ratio`` is ours by the rival's."""

    what: str
    ours: str
    rival: str = ""
    theirs: str = ""
    ratio: float | None = None


def medians(runs: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """Call every function ``repeat`` times, in turn, after one call to warm up; return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(repeat + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak(run: Callable[[], object]) -> int:
    """Return the most bytes that ``run`` had allocated at one time, as tracemalloc sees it (numpy's arrays too)."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@dataclass(frozen=True, slots=True)
class Command:
    """A Python process: its arguments behind ``python``, what its stdin is, and the file that it makes, if any.

    Before each run that file is removed, and what is not yet on disk written: no run pays for the one before it.
    """

    arguments: tuple[str, ...]
    stdin: str = os.devnull
    makes: str | None = None

    @classmethod
    def python(cls, *arguments: str) -> Command:
        """Make the command ``python ARGUMENTS``."""
        return cls(arguments)

    @classmethod
    def qmigtool(cls, *arguments: str, stdin: str = os.devnull) -> Command:
        """Make the command ``qmigtool ARGUMENTS``."""
        return cls(("-m", "qmigtool", *arguments), stdin)


@dataclass(frozen=True, slots=True)
class Process:
    """What a process took: seconds, and bytes of memory (``max_rss`` = allocated + mapped and touched)."""

    wall: float
    cpu: float
    max_rss: int
    anonymous: int
    file: int

    def __str__(self) -> str:
        return f"{ms(self.wall)} wall, {ms(self.cpu)} CPU"


@functools.cache
def _environment() -> dict[str, str]:
    """Return the environment of the processes: byte code is kept, as for an installed program, but not in the tree."""
    folder = tempfile.mkdtemp(prefix="qmigtool-bench-pyc-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return inherited | {"PYTHONPYCACHEPREFIX": folder}


def run_process(command: Command, *, memory: bool = False) -> Process:
    """Run a command once, from the checkout; raises RuntimeError unless it exits with 0."""
    if command.makes is not None:
        Path(command.makes).unlink(missing_ok=True)
        os.sync()
    launcher = (sys.executable, "-I", "-S", str(LAUNCH), str(int(memory)), command.stdin)
    done = subprocess.run(
        [*launcher, sys.executable, *command.arguments],
        cwd=ROOT,
        env=_environment(),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    told = json.loads(done.stdout)
    if told.pop("exit_code"):
        raise RuntimeError(f"python {' '.join(command.arguments)} failed")
    return Process(**told)


def run_processes(commands: Mapping[Name, Command], repeat: int) -> dict[Name, Process]:
    """Run every command ``repeat`` times, in turn, after one run to warm up, and once more to watch its memory."""
    runs: dict[Name, list[Process]] = {name: [] for name in commands}
    for round_ in range(repeat + 1):
        for name, command in commands.items():
            run = run_process(command)
            if round_:
                runs[name].append(run)
    result = {}
    for name, command in commands.items():
        watched = run_process(command, memory=True)
        result[name] = Process(
            statistics.median(run.wall for run in runs[name]),
            statistics.median(run.cpu for run in runs[name]),
            max(run.max_rss for run in runs[name]),
            watched.anonymous,
            watched.file,
        )
    return result


def ms(seconds: float) -> str:
    """Write a time."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"


def mib(size: float) -> str:
    """Write an amount of memory."""
    return f"{size / (1 << 20):.1f} MiB" if size >= 1 << 18 else f"{size / 1024:.1f} KiB"


def show(title: str, figures: Iterable[Figure]) -> None:
    """Print the figures of one group."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("what", "figure", "rival", "its figure"):
        table.add_column(name)
    table.add_column("ratio", justify="right")
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.3g}"
        table.add_row(figure.what, figure.ours, figure.rival, figure.theirs, ratio)
    # A pipe or a log has no width of its own; a table that is cut there is of no use.
    console = Console() if sys.stdout.isatty() else Console(width=180)
    console.print(table)
    console.print()
