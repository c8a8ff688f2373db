"""Save and load the cases of ``cases.txt`` with real QEMUs, and record the results.

    python -m tests.fleet make FOLDER 5.2=BINARIES 7.2=/usr/bin 10.0=BINARIES 11.1=BINARIES [--jobs N] [--only GLOB]
      [--cases FILE]

FOLDER gets ``CASE-VERSION.mig`` (saved after some seconds), ``CASE-VERSION.ref`` (the target's command line, saved
fresh with ``-S``), ``table.tsv`` (:class:`~.cases.Row`) and ``failed.txt`` (cases that do not start, or do not save).
Existing files are not made again.
"""

from __future__ import annotations

import argparse
import fnmatch
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.fleet.cases import CASES, Case, Row, read_cases, read_rows, write_rows
from tests.support.qemu.process import Gone, QemuProcess, Refused

START, SAVE, LOAD = 40.0, 40.0, 40.0  # seconds
# Messages that depend on the time of day, or on other processes.
_NOISE = ("is deprecated", "has no peer", "Slirp: ", "TCG doesn't support requested feature")
HANGS = "it neither loads the stream nor ends"


class Failed(Exception):  # noqa: N818 - an outcome
    """A command line does not start, or does not save itself."""


@contextmanager
def swtpm(arguments: tuple[str, ...]) -> Iterator[list[str]]:
    """Start a fresh swtpm if the command line needs one; yield the command line."""
    if not any("{tpm}" in one for one in arguments):
        yield list(arguments)
        return
    program = shutil.which("swtpm")
    if program is None:
        raise Failed("no swtpm")
    folder = Path(tempfile.mkdtemp(prefix="qmigtool-tpm-"))
    path = folder / "socket"
    state = subprocess.Popen(
        [program, "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--ctrl", f"type=unixio,path={path}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield [one.replace("{tpm}", str(path)) for one in arguments]
    finally:
        state.kill()
        state.wait()
        shutil.rmtree(folder, ignore_errors=True)


def save(binary: str, arguments: tuple[str, ...], seconds: float, out: Path) -> list[str]:
    """Run QEMU for some seconds, or not at all, and save it; return its output."""
    part = out.with_name(out.name + ".part")
    stopped = [] if seconds else ["-S"]
    with swtpm(arguments) as line:
        try:
            with QemuProcess([binary, *stopped, *line], timeout=START) as qemu:
                time.sleep(seconds)
                uri = f"exec:cat > {shlex.quote(str(part))} && mv {shlex.quote(str(part))} {shlex.quote(str(out))}"
                qemu.execute("migrate", uri=uri)
                end = qemu.wait_while("query-migrate", ("setup", "active", "device", "pre-switchover"), SAVE)
                if end.get("status") != "completed":
                    raise Failed(f"{end.get('status')}: {end.get('error-desc', '')} {' / '.join(qemu.lines())}")
                # QEMU reports completion before cat has written everything.
                deadline = time.monotonic() + SAVE
                while not out.exists() and time.monotonic() < deadline:
                    time.sleep(0.02)
                return qemu.lines()
        except (Gone, Refused) as why:
            out.unlink(missing_ok=True)  # cat succeeds even if QEMU does not
            raise Failed(" / ".join(getattr(why, "lines", [])) or str(why)) from None


def load(binary: str, arguments: tuple[str, ...], path: Path) -> tuple[str, str, list[str]]:
    """Load a stream with QEMU; return the outcome, the exit status and its output."""
    command = ["-S", "-incoming", f"exec:cat {shlex.quote(str(path))}"]
    with swtpm(arguments) as line:
        try:
            with QemuProcess([binary, *line, *command], timeout=LOAD) as qemu:
                end = qemu.wait_while("query-status", ("inmigrate",), LOAD)
                if end.get("status") == "inmigrate":
                    return "hangs", "", qemu.lines()
                time.sleep(0.1)  # 7.2 may still end now, because of a KVM refusal
                qemu.execute("query-status")
                return "loads", "", qemu.lines()
        except Gone as why:
            if why.status is None:
                return "hangs", "", why.lines
            # A shell that has started it in a chroot returns 128 + the signal.
            aborts = why.status < 0 or why.status > 128
            return "aborts" if aborts else "refused", str(why.status), why.lines


class Fleet:
    """The fleet of one folder."""

    def __init__(self, folder: Path, binaries: dict[str, str]) -> None:
        self._folder = folder
        self._binaries = binaries
        self._lock = threading.Lock()
        self._table = folder / "table.tsv"
        self.rows = list(read_rows(self._table)) if self._table.exists() else []
        self._failed = folder / "failed.txt"

    def case(self, case: Case) -> None:
        """Make the missing files and rows of one case."""
        said: dict[str, list[str]] = {}
        for version in case.versions:
            binary = self._binary(case, version)
            if binary is None:
                continue
            try:
                self._save(binary, case.source, case.seconds, f"{case.name}-{version}.mig")
                said[version] = self._save(binary, case.target, 0, f"{case.name}-{version}.ref")
            except Failed as why:
                with self._lock, self._failed.open("a") as file:
                    print(case.name, version, why, sep="\t", file=file)
        made = {(row.case, row.saved_by, row.loaded_by) for row in self.rows}
        for target, usual in said.items():
            for source in said:
                if (case.name, source, target) not in made:
                    self._load(case, source, target, usual)

    def _binary(self, case: Case, version: str) -> str | None:
        folder = self._binaries.get(version)
        binary = Path(folder or "/nowhere", f"qemu-system-{case.architecture}")
        return str(binary) if folder is not None and binary.exists() else None

    def _save(self, binary: str, arguments: tuple[str, ...], seconds: float, name: str) -> list[str]:
        out = self._folder / name
        printed = out.with_name(out.name + ".said")
        if not out.exists():
            printed.write_text("\n".join(save(binary, arguments, seconds, out)))
        return printed.read_text().split("\n")

    def _load(self, case: Case, source: str, target: str, usual: list[str]) -> None:
        binary = self._binary(case, target)
        assert binary is not None
        try:
            outcome, status, lines = load(binary, case.target, self._folder / f"{case.name}-{source}.mig")
        except Failed:
            return
        words = [line for line in lines if line not in usual and not any(one in line for one in _NOISE)]
        row = Row(case.name, source, target, outcome, status, " / ".join(words).replace("\t", " "))
        with self._lock:
            self.rows.append(row)
            write_rows(self._table, self.rows)
            print(*row, sep=" | ", flush=True)


def main(*arguments: str) -> None:
    """Make a fleet."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet make")
    parser.add_argument("folder", type=Path)
    parser.add_argument("binaries", nargs="+", metavar="VERSION=FOLDER")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--cases", type=Path, default=CASES, help="a file of command lines instead of cases.txt")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    binaries = dict(one.split("=", 1) for one in given.binaries)
    fleet = Fleet(given.folder.absolute(), binaries)
    cases = [case for case in read_cases(given.cases) if fnmatch.fnmatch(case.name, given.only)]
    with ThreadPoolExecutor(given.jobs) as pool:
        for done in [pool.submit(fleet.case, case) for case in cases]:
            try:
                done.result()
            except Exception as error:  # continue with the next case
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
