"""Run the whole ``qmigtool preflight`` on every row of a table, and load the results of its remedies with real QEMU.

    python -m tests.fleet remedies FOLDER 5.2=BINARIES 7.2=/usr/bin ... [--only GLOB] [--jobs N] [--cases FILE]

Each row is checked: preflight ends without an exception, its exit status matches its document, and the verdict is what
real QEMU did; the remedy's command runs and keeps the guest's memory, preflight of its result is what the remedy
predicted, and so is real QEMU with the options that the remedy needs; QEMU accepts the options that replace the edits.
Prints one line for each remedy, with ``WRONG`` before each fault. Exit status 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.fleet.cases import CASES, Case, Row, read_cases, read_rows
from tests.fleet.judge import WRONG, kind
from tests.fleet.make import load

LIMIT = 300.0  # seconds of one command
PROGRAM = [sys.executable, "-m", "qmigtool"]
MAIN_MEMORY = ("pc.ram", "mach-virt.ram", "riscv_virt_board.ram", "ppc_spapr.ram", "s390.ram", "ram", "dimm", "main")


class Trial:
    """One row: its checks and their results."""

    def __init__(self, folder: Path, binaries: dict[str, str], case: Case, row: Row) -> None:
        self.folder, self.case, self.row = folder, case, row
        self.binary = str(Path(binaries.get(row.loaded_by, "/nowhere"), f"qemu-system-{case.architecture}"))
        self.wrong: list[str] = []
        self.done: list[str] = []
        self.loaded = False  # by real QEMU, after a remedy
        self.made = Path(tempfile.mkdtemp(prefix="qmigtool-remedy-")) / "out.mig"

    def run(self) -> None:
        """Run all checks."""
        row = self.row
        document = self.preflight(self.folder / row.stream)
        if document is None:
            return
        if kind(row, document["loads"]) in WRONG:
            self.wrong.append(f"verdict {document['loads']}: QEMU {row.outcome}: {row.words}")
        remedy = document["remedy"]
        if remedy is None:
            return
        if remedy["command"] is not None:
            self.command(remedy)
        elif remedy["needed"]:
            self.loads("with what is needed", self.folder / row.stream, remedy["needed"], remedy["then"])
        if remedy["options"]:
            self.loads("with options instead", self.folder / row.stream, remedy["options"], remedy["then"])

    def preflight(self, path: Path, *more: str) -> dict[str, Any] | None:
        """Run the command; return its document, if there is one."""
        targets = ["--target", str(self.folder / self.row.reference), "--target", self.row.loaded_by]
        status, out, err = self.spawn([*PROGRAM, "preflight", str(path), *targets, *more, "--json"])
        try:
            document: dict[str, Any] = json.loads(out)
        except ValueError:
            self.wrong.append(f"preflight: exit status {status}, no document: {err[-300:]}")
            return None
        lost = any(one["severity"] != "note" for one in document["losses"])
        decided = 1 if document["loads"] is False or lost else 63 if document["doubts"] else 0
        expected = 63 if document["loads"] is None else decided
        if status != expected or "Traceback" in err:
            self.wrong.append(f"preflight: exit status {status}, not {expected}: {err[-300:]}")
        return document

    def spawn(self, command: list[str]) -> tuple[int, str, str]:
        """Run a command of qmigtool."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr

    def command(self, remedy: dict[str, Any]) -> None:
        """Run the remedy's command, check its output, and load it with QEMU."""
        words = shlex.split(remedy["command"])
        self.done.append(shlex.join(words[3:-2]))
        words = [str(self.made) if word == "OUT" else word for word in words[1:]]
        status, _, err = self.spawn([*PROGRAM, *words])
        if status != 0 or not self.made.exists():
            self.wrong.append(f"the command: exit status {status}: {err[-300:]}")
            return
        for one in remedy["edits"]:
            name = str(one.get("name", one.get("path", "")))
            if one["op"] in ("drop-block", "drop-section") and name.removeprefix("/objects/") in MAIN_MEMORY:
                self.wrong.append(f"drops main memory: {one}")
        if remedy["then"] is None:
            return
        if not remedy["needed"]:
            again = remedy["preflight"]
            more = shlex.split(again)[-2:] if again else []
            document = self.preflight(self.made, *more)
            if document is not None and document["loads"] != remedy["then"]["loads"]:
                said = f"{document['loads']} {document['refusal']} {document['doubts']}"
                self.wrong.append(f"predicted {remedy['then']['loads']}, preflight of the result is {said}")
        self.loads("fixed", self.made, remedy["needed"], remedy["then"])

    def loads(self, what: str, path: Path, options: list[str], then: dict[str, Any] | None) -> None:
        """Load a stream with real QEMU and these options, if all of them are options."""
        expected = None if then is None else then["loads"]
        words = [word for option in options for word in shlex.split(option)]
        if not all(name.startswith("-") for option in options for name in shlex.split(option)[::2]):  # name, value, ...
            self.done.append(f"{what} {options}: not an option to try")
            return
        outcome, _, lines = load(self.binary, (*self.case.target, *words), path)
        said = f"{what}{f' {shlex.join(words)}' if words else ''}: predicted {expected}, QEMU {outcome}"
        if expected is not None and expected != (outcome == "loads"):
            self.wrong.append(f"{said}: {' / '.join(lines)}")
        else:
            self.loaded |= outcome == "loads"
            self.done.append(said if outcome == "loads" else f"{said}: {' / '.join(lines)}")

    def close(self) -> None:
        """Remove the output."""
        self.made.unlink(missing_ok=True)
        self.made.parent.rmdir()


def try_all(
    folder: Path, binaries: dict[str, str], cases: dict[str, Case], rows: list[Row], jobs: int
) -> Iterator[Trial]:
    """Try all rows in several threads."""

    def one(row: Row) -> Trial:
        trial = Trial(folder, binaries, cases[row.case], row)
        try:
            trial.run()
        except Exception as error:
            trial.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            trial.close()
        return trial

    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(one, rows)


def main(*arguments: str) -> None:
    """Try the remedies of a fleet."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet remedies")
    parser.add_argument("folder", type=Path)
    parser.add_argument("binaries", nargs="+", metavar="VERSION=FOLDER")
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cases", type=Path, default=CASES, help="the command lines that the folder was made from")
    given = parser.parse_args(arguments)
    cases = {case.name: case for case in read_cases(given.cases)}
    binaries = dict(one.split("=", 1) for one in given.binaries)
    rows = [row for row in read_rows(given.folder / "table.tsv") if fnmatch.fnmatch(row.case, given.only)]
    tried = wrong = loaded = 0
    for trial in try_all(given.folder.absolute(), binaries, cases, rows, given.jobs):
        row = trial.row
        tried, wrong = tried + 1, wrong + bool(trial.wrong)
        loaded += trial.loaded
        for head, lines in (("WRONG", trial.wrong), ("remedy", trial.done)):
            for line in lines:
                print(f"{head}: {row.case} {row.saved_by} -> {row.loaded_by}: {line}", flush=True)
    print(f"{tried} rows, {wrong} wrong, {loaded} loaded by real QEMU after a remedy")
    sys.exit(1 if wrong else 0)
