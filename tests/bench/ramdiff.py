"""Guest memory of two streams compared, against `cmp` on the same memory extracted: whole processes, 1 GiB each.

`cmp` stops at the first difference, so where there are some it is told to list them (-l), and reads both files whole.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import qmigtool
from qmigtool.diff.ram import PageClass, compare_ram
from tests.bench import synthetic
from tests.bench.measure import Command, Figure, Process, mib, run_processes
from tests.bench.synthetic import BLOCK, PAGE_SIZE, Pattern

TITLE = "RAM of two streams compared, 1 GiB each (figure: wall and CPU; ratio: our wall time by that of cmp)"
RAM = 1 << 30
REPEAT = 5
SHARE = 0.03  # of the pages with content differs, each in one byte
CODE = """
import sys
import qmigtool
from qmigtool.diff.ram import compare_ram
with qmigtool.open(sys.argv[1], keep_runs=True) as a, qmigtool.open(sys.argv[2], keep_runs=True) as b:
    sum(len(part) for block in compare_ram(a, b).blocks for part in block.ranges())
"""


def figures() -> Iterator[Figure]:
    """Measure each pattern, the same memory twice and with pages that differ."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 6 * RAM:
        yield Figure(f"1 GiB of RAM: left out, {tempfile.gettempdir()} has only {mib(free)} free", "")
        return
    for pattern in (Pattern.MIX, Pattern.NORMAL):
        with tempfile.TemporaryDirectory(prefix="qmigtool-bench-") as folder:
            yield from _pattern(Path(folder), pattern)


def _pattern(folder: Path, pattern: Pattern) -> Iterator[Figure]:
    one, same, other = (folder / f"{name}.mig" for name in ("one", "same", "other"))
    for path in (one, same, other):  # written, as QEMU does it: copies are in the page cache in smaller pieces
        with path.open("wb") as file:
            synthetic.write(file, RAM, pattern)
    _change(other)
    memory = [_extract(path) for path in (one, same, other)]
    listed = subprocess.run(["cmp", "-l", memory[0], memory[2]], stdout=subprocess.PIPE, check=False).stdout
    with qmigtool.open(one) as a, qmigtool.open(other) as b:
        pages = compare_ram(a, b).blocks[0].counts[PageClass.CHANGED]
    assert listed.count(b"\n") == pages  # a byte of each
    done = run_processes(
        {
            "cmp": _cmp(memory[0], memory[1]),
            "cmp -l": _cmp("-l", memory[0], memory[2]),
            "same": Command.python("-c", CODE, str(one), str(same)),
            "differ": Command.python("-c", CODE, str(one), str(other)),
        },
        REPEAT,
    )
    yield _figure(f"{pattern}, the same", done["same"], "cmp of the extracted files", done["cmp"])
    what = f"{pattern}, {pages} of {RAM // PAGE_SIZE} pages differ"
    yield _figure(what, done["differ"], "cmp -l of the extracted files", done["cmp -l"])


def _extract(path: Path) -> str:
    """Write the memory of a stream next to it; without holes, which cmp would find quicker to read."""
    memory = path.with_suffix(".ram")
    with qmigtool.open(path) as stream, memory.open("wb") as file:
        for _, part in stream.ram.pages(BLOCK):
            file.write(part.tobytes())
    return str(memory)


def _cmp(*arguments: str) -> Command:
    # Not to /dev/null, which the launcher gives: cmp looks, and would stop at the first difference there too.
    shell = f"cmp {shlex.join(arguments)} | wc -l"
    return Command(("-I", "-S", "-c", f"import os; os.execvp('sh', ['sh', '-c', {shell!r}])"))


def _figure(what: str, ours: Process, rival: str, theirs: Process) -> Figure:
    return Figure(f"{what}; {mib(ours.anonymous)} allocated", str(ours), rival, str(theirs), ours.wall / theirs.wall)


def _change(path: Path) -> None:
    """Change a byte in some pages that a stream holds; the sample's own, sent later, win over some of them."""
    with qmigtool.open(path) as stream:
        ram = stream.ram
        runs = ram.runs[ram.runs_of(BLOCK)]
        runs = runs[runs["payload"] > 0]
        pages = runs["pages"].astype(np.int64)
        stride = (runs["head"] + runs["payload"]).astype(np.int64)
        index = np.arange(pages.sum()) - np.repeat(np.cumsum(pages) - pages, pages)
        places = np.repeat((runs["offset"] + runs["head"]).astype(np.int64), pages) + index * np.repeat(stride, pages)
    rng = np.random.default_rng(3)
    chosen = np.sort(rng.choice(places, int(len(places) * SHARE), replace=False))
    with path.open("r+b") as file:
        for at in (chosen + rng.integers(0, PAGE_SIZE, len(chosen))).tolist():
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0xFF]))
