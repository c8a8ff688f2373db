"""The command lines of ``cases.txt``, and the rows of the table of real QEMU's results."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
CASES = FOLDER / "cases.txt"
_HEAD = re.compile(r"\[(?P<target>\w+) (?P<seconds>[\d.]+)\]")
_DEFAULTS = (("-m", "16"), ("-accel", "tcg"))


class Case(NamedTuple):
    """One command line: ``source`` to save, ``target`` to load and for its reference."""

    name: str
    architecture: str
    seconds: float
    versions: tuple[str, ...]
    source: tuple[str, ...]
    target: tuple[str, ...]


class Row(NamedTuple):
    """The result of loading one stream with one real QEMU: a line of the table, its columns in this order.

    ``outcome`` is ``loads``, ``refused`` (it ends with an error), ``aborts`` (it is killed by a signal) or ``hangs``;
    ``status`` is its exit status, or empty; ``words`` are the lines of its stderr that it does not print without the
    stream, joined by `` / ``.
    """

    case: str
    saved_by: str
    loaded_by: str
    outcome: str
    status: str
    words: str

    @property
    def stream(self) -> str:
        """The name of the stream's file."""
        return f"{self.case}-{self.saved_by}.mig"

    @property
    def reference(self) -> str:
        """The name of the target's reference."""
        return f"{self.case}-{self.loaded_by}.ref"


def read_cases(path: Path = CASES) -> Iterator[Case]:
    """Yield all cases of a file."""
    architecture, seconds = "", 0.0
    for line in path.read_text().splitlines():
        head = _HEAD.fullmatch(line)
        if head is not None:
            architecture, seconds = head["target"], float(head["seconds"])
        elif line and not line.startswith("#"):
            name, versions, source, *target = (one.strip() for one in line.split(" | "))
            arguments = _arguments(source)
            other = _arguments(target[0]) if target else arguments
            yield Case(name, architecture, seconds, tuple(versions.split()), arguments, other)


def _arguments(text: str) -> tuple[str, ...]:
    words = shlex.split(text)
    for option, value in _DEFAULTS:
        if option not in words:
            words += [option, value]
    return ("-display", "none", *words)


def read_rows(path: Path) -> Iterator[Row]:
    """Read the table of a file."""
    yield from parse_rows(path.read_text())


def parse_rows(text: str) -> Iterator[Row]:
    """Read a table; lines that begin with ``#`` are comments."""
    for line in text.splitlines():
        if not line.startswith("#"):
            yield Row(*line.split("\t")[: len(Row._fields)])


def write_rows(path: Path, rows: list[Row]) -> None:
    """Write a table, sorted in the order of the cases."""
    order = {case.name: at for at, case in enumerate(read_cases())}

    def place(row: Row) -> tuple[int, list[int], list[int]]:
        return order.get(row.case, -1), _number(row.saved_by), _number(row.loaded_by)

    lines = ["# " + "\t".join(Row._fields), *("\t".join(row) for row in sorted(rows, key=place))]
    path.write_text("\n".join(lines) + "\n")


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
