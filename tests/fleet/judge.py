"""Run preflight on every row of a table, and compare the result with that of real QEMU.

    python -m tests.fleet judge FOLDER [--only GLOB] [--version given|not-given] [--words] [--write TABLE] [--jobs N]
      [--cases FILE]

Each stream is predicted for the target's reference twice: with QEMU's version given, and without it. ``--write`` writes
the table with a column for each. Exit status 1 if a prediction is wrong.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import sys
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import qmigtool
from qmigtool.preflight import Verdict, predict, read_targets
from tests.fleet.cases import CASES, Case, Row, read_cases, read_rows

RIGHT, UNDECIDED, WRONG_LOADS, WRONG_REFUSAL, BUG = "right", "undecided", "WRONG loads", "WRONG refusal", "BUG"
WRONG = (WRONG_LOADS, WRONG_REFUSAL, BUG)


class Judged(NamedTuple):
    """The prediction for one row, compared with real QEMU: ``why`` is its message, or its doubts."""

    row: Row
    known: bool
    """Whether the version was given."""
    kind: str
    why: str

    @property
    def across(self) -> bool:
        """Whether another version saved the stream."""
        return self.row.saved_by != self.row.loaded_by


def judge(row: Row, stream: Path, reference: Path, version: str | None) -> Judged:
    """Predict one row."""
    try:
        target = read_targets([str(reference), *([version] if version else [])])
        with qmigtool.open(str(stream)) as opened:
            found = predict(opened, target)
    except Exception:  # any exception is a bug of qmigtool
        return Judged(row, version is not None, BUG, traceback.format_exc().strip().split("\n")[-1])
    return Judged(row, version is not None, kind(row, found.loads), why(found))


def kind(row: Row, loads: bool | None) -> str:
    """Compare a verdict with the result of QEMU."""
    if loads is None:
        return UNDECIDED
    if loads == (row.outcome == "loads"):
        return RIGHT
    return WRONG_LOADS if loads else WRONG_REFUSAL


def why(verdict: Verdict) -> str:
    """Return the message of a refusal, or the reasons why it is undecided."""
    said = verdict.errors if verdict.loads is False else verdict.unknown if verdict.loads is None else ()
    return " / ".join(map(str, said))


def judge_row(folder: Path, row: Row, given: bool | None = None) -> list[Judged]:
    """Predict a row whose files are in a folder: with the version, without it, or both."""
    versions = {True: [row.loaded_by], False: [None], None: [row.loaded_by, None]}[given]
    return [judge(row, folder / row.stream, folder / row.reference, version) for version in versions]


def judge_all(folder: Path, rows: Iterable[Row], given: bool | None, jobs: int) -> Iterator[Judged]:
    """Predict rows in several processes."""
    with ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(partial(judge_row, folder, given=given), rows, chunksize=8):
            yield from found


def figures(judged: list[Judged], architectures: dict[str, str]) -> Iterator[str]:
    """Yield the lines of a table of the counts of each kind."""
    groups: dict[str, collections.Counter[str]] = {}
    for one in judged:
        x86 = architectures.get(one.row.case) in ("x86_64", "i386")
        name = (
            f"{'x86' if x86 else 'other targets'}, {'across versions' if one.across else 'one version'}, "
            f"version {'given' if one.known else 'not given'}"
        )
        groups.setdefault(name, collections.Counter())[one.kind] += 1
    for name, counts in sorted(groups.items()):
        total = counts.total()
        decided = 100 * (total - counts[UNDECIDED]) / total
        parts = ", ".join(f"{counts[one]} {one}" for one in (RIGHT, UNDECIDED, *WRONG) if counts[one])
        yield f"{name}: {total} pairs, {decided:.1f} % decided: {parts}"


def main(*arguments: str) -> None:
    """Predict a fleet."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet judge")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--cases", type=Path, default=CASES, help="the command lines that the folder was made from")
    parser.add_argument("--write", type=Path, metavar="TABLE")
    parser.add_argument("--version", choices=["given", "not-given"])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--words", action="store_true", help="also print refusals whose message differs from QEMU's")
    given = parser.parse_args(arguments)
    cases: dict[str, Case] = {case.name: case for case in read_cases(given.cases)}
    table = [row for row in read_rows(given.folder / "table.tsv") if fnmatch.fnmatch(row.case, given.only)]
    judged = []
    known = None if given.version is None else given.version == "given"
    for one in judge_all(given.folder, table, known, given.jobs):
        judged.append(one)
        row = one.row
        place = f"{row.case} {row.saved_by} -> {row.loaded_by}{'' if one.known else ' (version not given)'}"
        if one.kind != RIGHT:
            print(f"{one.kind}: {place}: {one.why}")
        if one.kind in WRONG or (given.words and row.outcome != "loads" and one.known and one.why != row.words):
            print(f"    preflight: {one.why}\n    QEMU {row.outcome}: {row.words}")
    print(*figures(judged, {name: case.architecture for name, case in cases.items()}), sep="\n")
    if given.write is not None:
        _write(given.write, judged)
    sys.exit(1 if any(one.kind in WRONG for one in judged) else 0)


def _write(path: Path, judged: list[Judged]) -> None:
    """Write the table with the predictions: with the version given, and without."""
    verdicts: dict[Row, list[str]] = {}
    for one in judged:
        verdicts.setdefault(one.row, []).append(one.kind)
    lines = ["# " + "\t".join((*Row._fields, "version_given", "version_not_given"))]
    lines += ["\t".join((*row, *kinds)) for row, kinds in verdicts.items()]
    path.write_text("\n".join(lines) + "\n")
