"""Whole commands on 64 MiB and 4 GiB of RAM, and what starting one costs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import qmigtool
from qmigtool.parsers.section import Type
from tests.bench import rivals, synthetic
from tests.bench.measure import Command, Figure, Process, mib, run_processes
from tests.bench.synthetic import Pattern

TITLE = "Whole processes, everything in the page cache (figure: wall and CPU; ratio: our wall time by the rival's)"
READ_CODE = "import sys\nwhile sys.stdin.buffer.read(1 << 20): pass"
SMALL, LARGE = 64 << 20, 4 << 30
REPEAT = 5
TABLE, INFO, FORWARD, STDIN, LOOP = "xsave table", "info", "open(forward=True)", "xsave table < FILE", "plain loop"
READ = "read() of it all"
FORWARD_CODE = "import qmigtool, sys; s = qmigtool.open(sys.argv[1], forward=True); [v.xsave for v in s.vcpus]"


def figures() -> Iterator[Figure]:
    """Measure start-up, then the two sizes."""
    yield from _start_up()
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 2 * (LARGE + SMALL):
        yield Figure(f"4 GiB of RAM: left out, {tempfile.gettempdir()} has only {mib(free)} free", "")
        return
    with tempfile.TemporaryDirectory(prefix="qmigtool-bench-") as folder:
        for pattern in (Pattern.NORMAL, Pattern.MIX):
            yield from _sizes(Path(folder), pattern)


def _start_up() -> Iterator[Figure]:
    sample = str(synthetic.SAMPLES / "q35-7.2.mig")
    rival = "python -c pass"
    commands = {
        rival: Command.python("-c", "pass"),
        "import qmigtool": Command.python("-c", "import qmigtool"),
        "import qmigtool.stream.model": Command.python("-c", "import qmigtool.stream.model"),
        "import numpy": Command.python("-c", "import numpy"),
        "qmigtool --version": Command.qmigtool("--version"),
        "qmigtool xsave table q35-7.2.mig --json": Command.qmigtool("xsave", "table", sample, "--json"),
        "qmigtool info q35-7.2.mig --json": Command.qmigtool("info", sample, "--json"),
        "qmigtool show q35-7.2.mig --json": Command.qmigtool("show", sample, "--json"),
    }
    done = run_processes(commands, 2 * REPEAT)
    for name in commands:
        if name != rival:
            yield _against(name, done[name], rival, done[rival])


def _sizes(folder: Path, pattern: Pattern) -> Iterator[Figure]:
    commands: dict[tuple[str, int], Command] = {}
    for ram in (SMALL, LARGE):
        path = folder / f"{ram}.mig"
        with path.open("wb") as file:
            synthetic.write(file, ram, pattern)
        start = _first_part(path, ram)
        commands[TABLE, ram] = Command.qmigtool("xsave", "table", str(path), "--json")
        commands[INFO, ram] = Command.qmigtool("info", str(path), "--json")
        commands[FORWARD, ram] = Command.python("-c", FORWARD_CODE, str(path))
        commands[STDIN, ram] = Command.qmigtool("xsave", "table", "-", "--json", stdin=str(path))
        commands[READ, ram] = Command(("-c", READ_CODE), str(path))
        commands[LOOP, ram] = Command.python(str(Path(rivals.__file__)), str(path), str(start))
    done = run_processes(commands, REPEAT)
    for way, rival in ((TABLE, LOOP), (INFO, LOOP), (FORWARD, LOOP), (STDIN, READ), (LOOP, None)):
        large = done[way, LARGE]
        yield _against(f"{way}, 4 GiB {pattern}", large, f"{way}, 64 MiB", done[way, SMALL])
        if rival is not None:
            yield _against("", large, f"{rival}, 4 GiB", done[rival, LARGE])


def _first_part(path: Path, ram: int) -> int:
    """Return where the first PART starts, having seen that the stream is what it should be."""
    with qmigtool.open(path) as stream:
        assert stream.complete
        assert stream.strategy == "tail-first"
        assert stream.ram_blocks[0].used_length == ram
        assert len(stream.vcpus) == 4
        return next(section.offset for section in stream.sections if section.type is Type.PART)


def _against(what: str, ours: Process, rival: str, theirs: Process) -> Figure:
    memory = f"; {mib(ours.max_rss)} resident, {mib(ours.anonymous)} of it allocated"
    return Figure(what and what + memory, str(ours), rival, str(theirs), ours.wall / theirs.wall)
