"""Only options that the target's QEMU has are proposed."""

from __future__ import annotations

from dataclasses import replace

from qmigtool.preflight import Target
from tests.preflight.recorded import target
from tests.preflight.remedies.remedied import judge
from tests.support.paths import SAMPLES


def test_no_option_that_the_target_has_not() -> None:
    """QEMU has romsize since 6.0, and no machine type of a later version."""
    path = SAMPLES / "q35-7.2.mig"
    aim = target("t24", "7.2")
    offered = judge(path, aim).remedy
    assert offered is not None
    assert [one for one in offered.options if one.startswith("romsize=")]
    for version, options in ((5, 2), ()), ((7, 2), ("-M pc-q35-7.2",)):
        found = judge(path, replace(aim, qemu=version, machine="pc-q35-5.2")).remedy
        assert found is not None
        machines = tuple(one for one in found.options if one.startswith("-M "))
        assert machines == options
        assert any(one.startswith("romsize=") for one in found.options) is (version > (6, 0))


def test_what_only_the_target_can_mend() -> None:
    def needed(file: str, aim: Target) -> tuple[str, ...]:
        result = judge(SAMPLES / f"{file}.mig", aim)
        assert result.remedy is not None
        assert result.remedy.command is None
        return result.remedy.needed

    assert needed("pc-7.2", target("t01", "7.2")) == ("-smp 4",)  # case I1
    assert needed("pc-7.2", target("t02", "7.2")) == ("-M pc-i440fx-7.2",)  # I9: another machine is no upgrade
