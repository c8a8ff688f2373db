"""A stopped guest that real QEMU saves twice, with and without a register changed in between by its gdbstub."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from qmigtool.diff import Comparison, default_noise
from tests.conftest import QemuStreamFactory
from tests.diff.comparing import compared, places
from tests.oracle.gdbstub import GdbStub
from tests.support.qemu.machine import Machine, Qemu

MACHINES = [
    pytest.param(Machine(smp=2), id="tcg", marks=pytest.mark.qemu),
    pytest.param(Machine(accel="kvm", cpu="host"), id="kvm", marks=pytest.mark.kvm),
]


def saved_again(machine: Machine, first: Path, second: Path, meanwhile: Callable[[Qemu], None] | None = None) -> Path:
    """Load a stream into a QEMU that stays stopped, and save it again: QEMU saves a VM only once."""
    with Qemu(machine, incoming=True) as qemu:
        qemu.load(first)
        if meanwhile is not None:
            meanwhile(qemu)
        qemu.migrate_to_file(second)
    return second


def flip(qemu: Qemu, socket: Path, register: str) -> tuple[int, int]:
    """Change the lowest bit but one of a register; return it before and after."""
    qemu.hmp(f"gdbserver unix:{socket},server=on,wait=off")
    with GdbStub(socket) as stub:
        before = stub.read(register)
        stub.write(register, bytes([before[0] ^ 2]) + before[1:])
        after = stub.read(register)
    return int.from_bytes(before, "little"), int.from_bytes(after, "little")


@pytest.mark.parametrize("machine", MACHINES)
def test_saved_twice_there_is_no_difference(qemu_stream: QemuStreamFactory, machine: Machine, tmp_path: Path) -> None:
    first = qemu_stream(machine).path
    second = saved_again(machine, first, tmp_path / "second.mig")
    third = saved_again(machine, first, tmp_path / "third.mig")
    assert places(compared(first, second)) == []
    assert places(compared(second, third)) == []


@pytest.mark.kvm
def test_the_noise_rules_are_not_idle(qemu_stream: QemuStreamFactory, tmp_path: Path) -> None:
    """A VM that is stopped under KVM has clocks that advance: without the rules there is a difference."""
    first = qemu_stream(Machine(accel="kvm", cpu="host")).path
    second = saved_again(Machine(accel="kvm", cpu="host"), first, tmp_path / "second.mig")
    assert "kvmclock@0/clock" in places(compared(first, second, noise=default_noise().strict()))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("register", "where", "meaning"),
    [
        ("rbx", r"cpu@0/env\.regs\[3\]", "RBX"),
        ("xmm3", r"cpu@0/env\.xmm_regs\[0\]\[3\]", "XMM3"),
        # Not st1: since 8.0 the stub reads env.fpregs[(TOP + 1) % 8] there and writes env.fpregs[1].
        ("fctrl", r"cpu@0/env\.fpuc", "FCW: .*"),
        ("mxcsr", r"cpu@0/env\.mxcsr", "MXCSR: .*"),
        ("k_gs_base", r"cpu@0/env\.kernelgsbase", "KERNEL_GS_BASE"),
    ],
)
def test_exactly_the_register_that_was_changed_is_reported(
    qemu_stream: QemuStreamFactory, machine: Machine, register: str, where: str, meaning: str, tmp_path: Path
) -> None:
    first = qemu_stream(machine).path
    values: list[int] = []

    def meanwhile(qemu: Qemu) -> None:
        values.extend(flip(qemu, tmp_path / "gdb", register))

    found: Comparison = compared(first, saved_again(machine, first, tmp_path / "second.mig", meanwhile))
    assert len(found.differences) == 1, [(d.where, d.a, d.b) for d in found.differences]
    (difference,) = found.differences
    assert re.fullmatch(where, difference.where)
    assert re.fullmatch(meaning, difference.meaning)
    assert [difference.a, difference.b] == values
    assert values[0] ^ values[1] == 2
