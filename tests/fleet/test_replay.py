"""Preflight compared with the results of real QEMU for the fleet's pairs in the tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet import packed
from tests.fleet.cases import read_cases
from tests.fleet.judge import RIGHT, UNDECIDED, judge
from tests.fleet.pack import CASES

UNDECIDED_STILL: frozenset[str] = frozenset(
    {"microvm", "virtio-net-old", "isapc", "isapc-old", "arm-virt", "riscv-virt", "sparc-ss5", "loongarch", "s390"}
)
"""Cases with undecided pairs: virtio, isapc's displays, targets whose tables are unknown."""


def test_the_packed_cases_are_cases() -> None:
    assert set(CASES) <= {case.name for case in read_cases()}
    assert {row.case for row in packed.rows()} == set(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("given", [True, False], ids=["version-given", "version-not-given"])
def test_every_pair_is_predicted_as_real_qemu_did_or_undecided(name: str, given: bool, tmp_path: Path) -> None:
    for row in packed.put(tmp_path, name):
        version = row.loaded_by if given else None
        found = judge(row, tmp_path / row.stream, tmp_path / row.reference, version)
        assert found.kind in (RIGHT, UNDECIDED), (row, found.why)
        assert found.kind == RIGHT or not given or name in UNDECIDED_STILL, (row, found.why)
