"""Run the whole ``qmigtool preflight`` over every row of a table, and let real QEMU load what its remedies make.

    python -m tests.fleet remedies FOLDER 5.2=BINARIES 7.2=/usr/bin ... [--only GLOB] [--jobs N] [--cases FILE]

Of each row it is asked: does preflight end without an exception, is its exit status what its document says, is the
verdict what real QEMU did; does the remedy's command run, does it keep the guest's memory, does preflight say of its
result what the remedy has promised, and does real QEMU then do it, with the options that the remedy needs; does QEMU
take the options that it offers instead. One line for each remedy, ``WRONG`` before whatever is wrong.
Exit status 1 if anything is.
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
from tests.fleet.judge import kind
from tests.fleet.make import load

LIMIT = 300.0  # seconds of one command
PROGRAM = [sys.executable, "-m", "qmigtool"]
MAIN_MEMORY = ("pc.ram", "mach-virt.ram", "riscv_virt_board.ram", "ppc_spapr.ram", "s390.ram", "ram", "dimm", "main")


class Trial:
    """One row: what is asked about it, and what came out."""

    def __init__(self, folder: Path, binaries: dict[str, str], case: Case, row: Row) -> None:
        self.folder, self.case, self.row = folder, case, row
        self.binary = str(Path(binaries.get(row.loaded_by, "/nowhere"), f"qemu-system-{case.architecture}"))
        self.wrong: list[str] = []
        self.done: list[str] = []
        self.made = Path(tempfile.mkdtemp(prefix="qmigtool-remedy-")) / "out.mig"

    def run(self) -> None:
        """Ask everything."""
        row = self.row
        document = self.preflight(self.folder / row.stream)
        if document is None:
            return
        if kind(row, document["loads"]).startswith("WRONG"):
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
        """Run the command; its document, if there is one."""
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
        """Run a command of ours."""
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr

    def command(self, remedy: dict[str, Any]) -> None:
        """Run the remedy's command, judge what it makes, and let QEMU load it."""
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
                self.wrong.append(f"promised {remedy['then']['loads']}, of the result it says {said}")
        self.loads("mended", self.made, remedy["needed"], remedy["then"])

    def loads(self, what: str, path: Path, options: list[str], then: dict[str, Any] | None) -> None:
        """Let the real QEMU load a stream, with options where they are options."""
        expected = None if then is None else then["loads"]
        if not all(option.startswith("-") and " if that QEMU" not in option for option in options):
            self.done.append(f"{what} {options}: not an option to try")
            return
        words = [word for option in options for word in shlex.split(option)]
        outcome, _, lines = load(self.binary, (*self.case.target, *words), path)
        said = f"{what}{f' {shlex.join(words)}' if words else ''}: predicted {expected}, QEMU {outcome}"
        if expected is not None and expected != (outcome == "loads"):
            self.wrong.append(f"{said}: {' / '.join(lines)}")
        else:
            self.done.append(said if outcome == "loads" else f"{said}: {' / '.join(lines)}")

    def close(self) -> None:
        """Leave nothing behind."""
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
        loaded += any("QEMU loads" in line for line in trial.done)
        for head, lines in (("WRONG", trial.wrong), ("remedy", trial.done)):
            for line in lines:
                print(f"{head}: {row.case} {row.saved_by} -> {row.loaded_by}: {line}", flush=True)
    print(f"{tried} rows, {wrong} wrong, {loaded} loaded by real QEMU after a remedy")
    sys.exit(1 if wrong else 0)
