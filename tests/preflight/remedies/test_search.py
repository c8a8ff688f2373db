"""What fixes a stream: every command that is proposed is run, and what it writes is predicted and loaded by QEMU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import qmigtool
from qmigtool.findings import Severity
from qmigtool.preflight import Target
from qmigtool.preflight.loader.predict import predict
from qmigtool.preflight.losses.find import find_losses
from qmigtool.preflight.remedies import search as remedies
from qmigtool.rewrite import Rewriter
from tests.preflight.recorded import target
from tests.preflight.remedies.remedied import Edits, _version, judge, pc, remedied, run_command
from tests.support.paths import SAMPLES
from tests.support.qemu.machine import Machine, Qemu
from tests.support.qemu.process import QemuError

PC_CASES: dict[str, tuple[Edits, str, str]] = {
    # edits of pc-7.2.mig -> the rule that is broken, the options that mend it
    "machine": (
        lambda edits: edits.machine_type("pc-i440fx-7.1"),
        "machine-type",
        "--upgrade-machine pc-i440fx-7.2",
    ),
    "section": (lambda edits: edits.rename_section("hpet", "hpex"), "unknown-section", "--drop-section hpex@0"),
    "subsection": (
        lambda edits: edits.add_subsection("cpu@2", "cpu/foo", data="01020304"),
        "unknown-subsection",
        "--drop-subsection cpu@2/cpu/foo",
    ),
    "subsection of 11.1": (
        lambda edits: edits.add_subsection("cpu@1", "cpu/cet", {"env.u_cet": 1}),
        "unknown-subsection",
        "--drop-subsection cpu@1/cpu/cet",
    ),
    "nested subsection": (
        lambda edits: edits.add_subsection("fdc/state/drives[0]", "fdrive/foo", data="00"),
        "unknown-subsection",
        "--drop-subsection 'fdc@0/state/drives[0]/fdrive/foo'",
    ),
    "subsection version": (
        lambda edits: edits.set_version("cpu@0/cpu/poll_control_msr", 2),
        "version-too-new",
        "--drop-subsection cpu@0/cpu/poll_control_msr",
    ),
    "memory's name": (
        lambda edits: edits.rename_block("pc.ram", "my mem"),
        "unknown-block",
        "--rename-block 'my mem' pc.ram",
    ),
    "a ROM too many": (lambda edits: edits.rename_block("pc.rom", "x.rom"), "unknown-block", "--drop-block x.rom"),
    "a ROM's size": (
        lambda edits: edits.resize_block("pc.rom", 0x10000),
        "block-size",
        "--resize-block pc.rom 0x20000",
    ),
    "capability": (
        lambda edits: edits.add_capability("x-ignore-shared"),
        "capability",
        "--drop-capability x-ignore-shared",
    ),
    "unknown capability": (
        lambda edits: edits.add_capability("foo"),
        "unknown-capability",
        "--drop-capability foo",
    ),
}


@pytest.mark.parametrize("name", PC_CASES)
def test_one_edit_mends_it(name: str, edited: Callable[..., Path], tmp_path: Path) -> None:
    edit, rule, options = PC_CASES[name]
    path, out = edited("pc-7.2", edit), tmp_path / "out.mig"
    result = judge(path, pc())
    assert (result.verdict.loads, result.verdict.rule) == (False, rule)
    assert result.remedy is not None
    assert result.remedy.command == f"qmigtool rewrite '{path}' {options} -o OUT"
    after = remedied(result, path, out, pc())
    assert after.verdict.loads is True


@pytest.mark.slow
@pytest.mark.qemu
def test_real_qemu_loads_a_remedied_stream(edited: Callable[..., Path], tmp_path: Path) -> None:
    if _version() != (7, 2):
        pytest.skip("the targets are those of QEMU 7.2")
    everything = list(PC_CASES)
    for number, name in enumerate(everything):
        path, out = edited("pc-7.2", PC_CASES[name][0]), tmp_path / f"{number}.mig"
        run_command(judge(path, pc()), path, out)
    machine = Machine(machine="pc-i440fx-7.2", smp=4, extra=SERIAL)
    for number in range(len(everything)):
        with Qemu(machine, incoming=True) as qemu:
            qemu.load(tmp_path / f"{number}.mig")
    # And the control: without the remedy, it does not.
    with Qemu(machine, incoming=True) as qemu, pytest.raises(QemuError):
        qemu.load(edited("pc-7.2", PC_CASES["subsection"][0]))


SERIAL = ("-serial", "null")


MEM0 = ("-object", "memory-backend-ram,id=mem0,size=16M", *SERIAL)


OTHERS = {
    # The target of a reference, as in load_errors.json (F2, I7, I8, I10, I11, I13).
    "t03": Machine(machine="pc-i440fx-7.2", smp=4, memory="32M", extra=SERIAL),
    "t12": Machine(machine="pc-i440fx-7.2,hpet=off", smp=4, extra=SERIAL),
    "t13": Machine(machine="pc-i440fx-7.1", smp=4, extra=SERIAL),
    "t14": Machine(machine="pc-i440fx-7.2,vmport=off", smp=4, extra=SERIAL),
    "t15": Machine(machine="pc-i440fx-7.2,i8042=off", smp=4, extra=SERIAL),
    "t17": Machine(machine="pc-i440fx-7.2,memory-backend=mem0", smp=4, extra=MEM0),
}


@pytest.mark.slow
@pytest.mark.qemu
def test_real_qemu_of_other_machines_loads_a_remedied_stream(tmp_path: Path) -> None:
    if _version() != (7, 2):
        pytest.skip("the targets are those of QEMU 7.2")
    for name, machine in OTHERS.items():
        out = tmp_path / f"{name}.mig"
        run_command(judge(SAMPLES / "pc-7.2.mig", target(name, "7.2")), SAMPLES / "pc-7.2.mig", out)
        with Qemu(machine, incoming=True) as qemu:
            qemu.load(out)
    # And what was saved by 11.1 as pc-i440fx-11.1.
    out = tmp_path / "new.mig"
    run_command(judge(SAMPLES / "pc-11.1.mig", pc()), SAMPLES / "pc-11.1.mig", out)
    with Qemu(Machine(machine="pc-i440fx-7.2", smp=4, extra=SERIAL), incoming=True) as qemu:
        qemu.load(out)


def test_several_edits_are_one_command(edited: Callable[..., Path], tmp_path: Path) -> None:
    def spoil(edits: Rewriter) -> None:
        edits.machine_type("pc-i440fx-7.1")
        edits.rename_block("pc.ram", "mem0")
        edits.rename_section("hpet", "hpex")
        edits.add_subsection("cpu@2", "cpu/foo", data="01020304")
        edits.add_subsection("cpu@3", "cpu/foo", data="01020304")

    path = edited("pc-7.2", spoil)
    result = judge(path, pc())
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == (
        *("--upgrade-machine", "pc-i440fx-7.2"),
        *("--rename-block", "mem0", "pc.ram"),
        *("--drop-subsection", "cpu@2/cpu/foo", "--drop-subsection", "cpu@3/cpu/foo"),
        *("--drop-section", "hpex@0"),
    )
    assert "the state of hpex@0" in result.remedy.loses
    assert remedied(result, path, tmp_path / "out.mig", pc()).verdict.loads is True


def test_nothing_to_mend() -> None:
    result = judge(SAMPLES / "pc-7.2.mig", pc())
    assert result.clean
    assert result.remedy is None
    assert all(one.severity is Severity.NOTE for one in result.losses)


def test_what_nothing_is_known_of(edited: Callable[..., Path]) -> None:
    path = edited("pc-7.2", lambda edits: edits.set("PCIBUS/nirq", 5))
    result = judge(path, pc())
    assert result.verdict.rule == "not-equal"
    assert result.remedy is not None
    assert result.remedy.command is None
    assert "4 != 5" in result.remedy.why


def test_a_broken_stream_has_no_remedy(tmp_path: Path) -> None:
    path = tmp_path / "cut.mig"
    path.write_bytes((SAMPLES / "pc-7.2.mig").read_bytes()[:200_000])
    result = judge(path, pc())
    assert result.verdict.loads is False
    assert result.remedy is not None
    assert result.remedy.command is None
    assert "broken" in result.remedy.why


def test_a_large_stream_goes_through_a_file(monkeypatch: pytest.MonkeyPatch, edited: Callable[..., Path]) -> None:
    path = edited("pc-7.2", PC_CASES["section"][0])
    small = judge(path, pc())
    monkeypatch.setattr(remedies, "IN_MEMORY", 1000)
    assert judge(path, pc()) == small
    monkeypatch.setattr(remedies, "MAX_TRIAL", 1000)
    untried = judge(path, pc()).remedy
    assert untried is not None
    assert untried.verdict is None
    assert "not tried" in untried.why


def test_it_never_goes_round_and_round() -> None:
    # A planner that mends nothing.
    calls: list[Any] = []

    def never(stream: Any, aim: Target) -> Any:
        calls.append(aim)
        return replace(predict(stream, aim), loads=False, rule="unknown-section", section="hpet", offset=None)

    with qmigtool.open(SAMPLES / "pc-7.2.mig") as stream:
        remedy = remedies.find_remedy(stream, pc(), never(stream, pc()), find_losses(stream, pc()), never)
    assert remedy is not None
    assert len(calls) < 30
    assert remedy.why
