"""``make`` and ``judge`` for a few command lines, with the installed QEMU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.fleet.cases import read_cases
from tests.fleet.judge import RIGHT, judge
from tests.fleet.make import Fleet
from tests.support.qemu.process import find_qemu

# Machine types that every QEMU from 7.2 to 11.1 has, and devices whose streams are read by special rules.
NAMES = ("pc-6.2", "root-ports", "dc390", "x-address", "x-timers")


@pytest.mark.qemu
@pytest.mark.parametrize("name", NAMES)
def test_the_installed_qemu_loads_its_own_streams_as_predicted(name: str, tmp_path: Path) -> None:
    binary = find_qemu()
    if binary is None or binary.name != "qemu-system-x86_64":
        pytest.skip("no program named qemu-system-x86_64")
    said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+\.\d+)", said)
    assert found is not None
    version = found[1]
    case = next(case for case in read_cases() if case.name == name)
    fleet = Fleet(tmp_path, {version: str(binary.parent)})
    fleet.case(case._replace(versions=(version,), seconds=0.3))
    failed = tmp_path / "failed.txt"
    assert len(fleet.rows) == 1, failed.read_text() if failed.exists() else "no row"
    (row,) = fleet.rows
    verdict = judge(row, tmp_path / row.stream, tmp_path / row.reference, version)
    assert verdict.kind == RIGHT, (row, verdict.why)
    if name != "x-timers":  # 10.0 and later refuse it, 7.2 does not
        assert row.outcome == ("refused" if name == "x-address" else "loads")
