"""No remedy drops or truncates the guest's memory."""

from __future__ import annotations

from dataclasses import replace

from qmigtool.preflight import TargetBlock
from tests.preflight.remedies.remedied import judge, pc
from tests.support.paths import SAMPLES


def test_guest_memory_is_never_left_out() -> None:
    aim = replace(pc(), blocks={"a": TargetBlock(1 << 20), "b": TargetBlock(1 << 20)})
    result = judge(SAMPLES / "pc-7.2.mig", aim)
    assert result.remedy is not None
    assert result.remedy.command is None
    assert "pc.ram" in result.remedy.why
