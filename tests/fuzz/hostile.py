"""Every command on every hostile file: its exit status, processor time and memory.

The files are those of ``tests/data/cases/hostile`` and variants of them: another device, container, order or nesting,
larger. ``python -m tests.fuzz hostile`` runs all pairs, which takes a while, and prints a table;
``tests/test_hostile_cases.py`` runs some.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.hostilefiles import VARIANTS
from tests.support import casefiles
from tests.support.measured import MEMORY, SECONDS, Run, measured

COMMANDS = (
    "info F", "info F --json", "info F --quick", "sections F", "sections F --json", "show F", "show F --json",
    "show F --csv", "show F DEVICE", "show F FIELD", "ram F", "flows F", "check F", "check F --json",
    "check F --baseline F",
    "preflight F --target F", "preflight F --target kvm", "preflight F --target 11.1", "diff F F", "diff F F --json",
    "diff F F --ram", "analyze F", "analyze F -d desc", "xsave table F", "xsave table F --json",
    "xsave export F --vcpu 0 --format standard --layout intel-spr -o OUT", "xsave check F",
    "xsave convert F OUT --to compacted --layout intel-spr",
    "mshv export F --layout intel-spr -o OUT", "rewrite F -o OUT", "rewrite F --set FIELD=1 -o OUT",
    "rewrite F --repair xstate-bv -o OUT", "rewrite F --ram plain -o OUT", "schema learn F -o OUT",
    "schema diff F F", "dissect F", "dissect F --section DEVICE", "info F --channel F",
)  # fmt: skip
"""F is the input, OUT the output, DEVICE and FIELD the paths of :data:`PLACES`."""

DOCUMENTED = {0, 1, 2, 3, 63}

# -- the matrix --------------------------------------------------------------------------------------------------------

PLACES: dict[str, tuple[str, str]] = {
    "cpu-array.mig": ("cpu@0", "cpu@0/arr[5]"),
    "structs-in-cpu.mig": ("cpu@0", "cpu@0/in[5]"),
    "array-in-subsection.mig": ("a", "a/a/s/arr[5]"),
}
"""File -> DEVICE and FIELD, if not ``a`` and ``a/arr[5]``."""


class Row(NamedTuple):
    """A pair and its result."""

    file: str
    command: str
    run: Run

    @property
    def faults(self) -> list[str]:
        """Return the violated requirements."""
        found = []
        if self.run.status not in DOCUMENTED:
            found.append(f"exit status {self.run.status}")
        if self.run.seconds >= SECONDS:
            found.append(f"{self.run.seconds:.1f} s")
        if self.run.memory >= MEMORY:
            found.append(f"{self.run.memory >> 20} MiB")
        if "Traceback" in self.run.said:
            found.append("a traceback")
        if (
            self.run.status in (2, 3, 63)
            and not self.run.said.strip()
            and self.command.split()[0] not in ("check", "preflight")
        ):
            found.append("no message")
        return found


def names() -> list[str]:
    """Return the names of all files."""
    stored = sorted(path.name.removesuffix(".xz") for path in (casefiles.CASES / "hostile").iterdir())
    stored = [f"{one}.xz" if one in ("dict768", "golden") else one for one in stored]
    return [*stored, *VARIANTS]


def put(name: str, into: Path) -> str:
    """Write a file."""
    if name not in VARIANTS:
        return casefiles.put("hostile", name, into)
    path = into / name
    path.write_bytes(VARIANTS[name]())
    return str(path)


def try_one(name: str, command: str, file: str, folder: Path) -> Row:
    """Run one pair."""
    device, field = PLACES.get(name, ("a", "a/arr[5]"))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        places = {"F": file, "OUT": f"{out}/out", "DEVICE": device, "FIELD": field, "FIELD=1": f"{field}=1"}
        return Row(name, command, measured(*(places.get(word_, word_) for word_ in command.split())))


def matrix(only: list[str], commands: list[str], workers: int = 2) -> int:
    """Run the pairs; print a table of the maxima of each file and all faults; return the number of faulty pairs."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="qmigtool-hostile-") as name_, ThreadPoolExecutor(workers) as pool:
        folder = Path(name_)
        for name in only or names():
            file = put(name, folder)
            wanted = commands or list(COMMANDS)
            done = list(pool.map(lambda command: try_one(name, command, file, folder), wanted))  # noqa: B023
            rows += done
            Path(file).unlink()
            slowest = max(done, key=lambda row: row.run.seconds)
            largest = max(done, key=lambda row: row.run.memory)
            statuses = " ".join(str(row.run.status) for row in done)
            print(
                f"{name}: at most {slowest.run.seconds:.1f} s ({slowest.command}), "
                f"{largest.run.memory >> 20} MiB ({largest.command}); exit statuses {statuses}",
                flush=True,
            )
            for row in done:
                for fault in row.faults:
                    said = row.run.said.strip().splitlines()[-1:] or [""]
                    print(f"  FAULT {row.command}: {fault}: {said[0][:200]}", flush=True)
                if os.environ.get("MATRIX_LOG"):
                    with Path(os.environ["MATRIX_LOG"]).open("a") as log:
                        print(json.dumps([*row[:2], *row.run[:3], row.run.said[-300:]]), file=log)
    faults = [row for row in rows if row.faults]
    print(f"{len(rows)} pairs, {len(faults)} with a fault")
    return len(faults)


if __name__ == "__main__":
    sys.exit(1 if matrix(sys.argv[1:], []) else 0)
