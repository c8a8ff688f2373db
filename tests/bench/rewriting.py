"""An edit of a stream with 2 GiB of RAM, against `cp` of the same file; changes of its format against the same."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.bench import synthetic
from tests.bench.measure import Command, Figure, mib, run_processes
from tests.bench.synthetic import Pattern

TITLE = "Rewriting 2 GiB of RAM (figure: wall and CPU; ratio: our wall time by that of cp)"
RAM = 2 << 30
REPEAT = 3
CP = "cp --reflink=auto"
FICLONE = 0x40049409  # linux/fs.h
EDITS = {
    "--set cpu@0/env.mxcsr=0x1fa0 (in place)": ("--set", "cpu@0/env.mxcsr=0x1fa0"),
    "--machine-type pc-i440fx-10.0 (moves all)": ("--machine-type", "pc-i440fx-10.0"),
    "--drop-section hpet (moves what follows)": ("--drop-section", "hpet"),
    "--to-accelerator kvm": ("--to-accelerator", "kvm", "--xcr0", "0x7"),
    "--ram mapped-ram": ("--ram", "mapped-ram"),
    "--squeeze-zero-pages": ("--squeeze-zero-pages",),
    "--scrub-ram": ("--scrub-ram",),
}


def figures() -> Iterator[Figure]:
    """Measure each edit against cp."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 4 * RAM:
        yield Figure(f"2 GiB of RAM: left out, {tempfile.gettempdir()} has only {mib(free)} free", "")
        return
    with tempfile.TemporaryDirectory(prefix="qmigtool-bench-") as name:
        folder = Path(name)
        source = folder / "vm.mig"
        with source.open("wb") as file:
            synthetic.write(file, RAM, Pattern.MIX)
        yield Figure(
            f"{tempfile.gettempdir()}: reflinks {'yes' if _reflinks(folder) else 'no'}; {mib(source.stat().st_size)}",
            "",
        )
        target = str(folder / "out.mig")
        code = f"import os; os.execvp('cp', ['cp', '--reflink=auto', {str(source)!r}, {target!r}])"
        commands = {CP: Command(("-I", "-S", "-c", code), makes=target)}
        for edit, options in EDITS.items():
            rewrite = Command.qmigtool("rewrite", str(source), "-o", target, "--json", *options)
            commands[edit] = replace(rewrite, makes=target)
        done = run_processes(commands, REPEAT)
        for edit in EDITS:
            ours, theirs = done[edit], done[CP]
            what = f"{edit}; {mib(ours.anonymous)} allocated"
            yield Figure(what, str(ours), CP, str(theirs), ours.wall / theirs.wall)


def _reflinks(folder: Path) -> bool:
    """Say whether the file system shares blocks between files."""
    one, other = folder / "one", folder / "other"
    one.write_bytes(bytes(1 << 16))
    with one.open("rb") as source, other.open("wb") as target:
        try:
            fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
        except OSError:
            return False
    return True
