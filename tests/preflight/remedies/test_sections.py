"""Fixes of sections that the target does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmigtool.findings import Severity
from tests.preflight.recorded import target
from tests.preflight.remedies.remedied import judge, remedied
from tests.support.paths import SAMPLES


@pytest.mark.parametrize(
    ("reference", "file"), [("t12", "pc-7.2"), ("t14", "pc-7.2"), ("t15", "pc-7.2"), ("t29", "q35-7.2")]
)
def test_devices_that_the_target_has_not(reference: str, file: str, tmp_path: Path) -> None:
    # Cases I7, I10, I11 and R9: hpet=off; vmport=off; i8042=off; no virtio-net.
    aim, path = target(reference, "7.2"), SAMPLES / f"{file}.mig"
    result = judge(path, aim)
    assert result.remedy is not None
    assert result.remedy.loses
    assert result.remedy.options
    assert remedied(result, path, tmp_path / "out.mig", aim).verdict.loads is True


def test_more_vcpus_than_the_guest_has() -> None:
    # t06 has -smp 5, the stream four vCPUs: it loads without the option, and no edit does instead.
    result = judge(SAMPLES / "pc-7.2.mig", target("t06", "7.2"))
    assert result.verdict.loads is True
    assert [(one.rule, one.device) for one in result.losses if one.severity is Severity.WARNING] == [
        ("missing-vcpu", "cpu@4")
    ]
    assert not any("@4" in (one.device or "") for one in result.losses if one.rule == "missing-section")
    assert result.remedy is not None
    assert (result.remedy.command, result.remedy.needed, result.remedy.options) == (None, (), ("-smp 4",))
