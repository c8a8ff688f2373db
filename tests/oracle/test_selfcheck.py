"""The self-checking guest finds what was damaged, that alone, and nothing where nothing was."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import pytest

import qmigtool
from tests.oracle import guest, selfcheck
from tests.oracle.selfcheck import Error, SelfCheckStatus, read_status, wait_ticks
from tests.oracle.test_guest import ARCHITECTURES, disassemble
from tests.support.qemu.machine import Machine, Qemu

AVX, SSE = guest.X87 | guest.SSE | guest.AVX, guest.X87 | guest.SSE
TCG = Machine(accel="tcg")
TCG_SMP = Machine(accel="tcg", machine="q35", smp=2)
TCG_SSE = Machine(accel="tcg", cpu="qemu64")
KVM = Machine(accel="kvm", cpu="host")
KVM_SMP = Machine(accel="kvm", cpu="host", smp=2)
TICKS = 20

INVALID_OPCODE, GENERAL_PROTECTION = 6, 13
ALWAYS = Error.X87 | Error.CONTROL | Error.XMM | Error.EXCEPTION | Error.GENERAL | Error.TSC
HFLAGS_AVX = 1 << 28
TSS_BUSY = 2 << 8
PIT = "i8254/channels/channels[0]"

Changes = Mapping[str, Callable[[int], int]]


class SelfCheckStreams(Protocol):
    """Makes a stream of the guest after TICKS ticks, or returns the one made earlier."""

    def __call__(self, machine: Machine, xcr0: int = ..., park: int = ...) -> Path: ...


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function (xcr0, park=0) -> path of the guest for -kernel."""

    @functools.cache
    def make(xcr0: int, park: int = 0) -> Path:
        path = tmp_path_factory.mktemp("selfcheck") / "guest.bin"
        path.write_bytes(selfcheck.build_selfcheck(xcr0=xcr0, park=park))
        return path

    return make


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, image: Callable[..., Path]) -> SelfCheckStreams:
    @functools.cache
    def make(machine: Machine, xcr0: int = AVX, park: int = 0) -> Path:
        path = tmp_path_factory.mktemp("selfcheck") / "vm.mig"
        with Qemu(machine, kernel=image(xcr0, park)) as qemu:
            qemu.cont()
            assert_healthy(wait_ticks(qemu, TICKS))
            qemu.stop()
            qemu.migrate_to_file(path)
        return path

    return make


def assert_healthy(status: SelfCheckStatus, ticks: int = TICKS) -> None:
    assert status.ready
    assert status.errors == Error(0)
    assert status.ticks >= ticks
    assert status.rounds >= 2


def go_on(machine: Machine, path: Path, *, timeout: float = 10) -> tuple[SelfCheckStatus, int]:
    """Load a healthy guest and run it for TICKS ticks; return its record and how many there were."""
    with Qemu(machine, incoming=True) as qemu:
        qemu.load(path)
        before = read_status(qemu)
        assert_healthy(before)
        qemu.cont()
        after = wait_ticks(qemu, TICKS, timeout=timeout)
        return after, after.ticks - before.ticks


def patched(path: Path, to: Path, changes: Changes) -> Path:
    """Copy a stream with some numbers changed."""
    raw = bytearray(path.read_bytes())
    with qmigtool.open(path) as stream:
        for name, change in changes.items():
            field = stream.field(name)
            place = slice(field.offset, field.offset + field.length)
            value = change(int.from_bytes(raw[place], "big")) % (1 << 8 * field.length)
            raw[place] = value.to_bytes(field.length, "big")
    to.write_bytes(raw)
    return to


@pytest.mark.needs("objdump")
@pytest.mark.parametrize("bits", ARCHITECTURES)
def test_guest_disassembles_as_commented(bits: int, tmp_path: Path) -> None:
    _, listing = selfcheck.assemble(park=3)
    lines = [line for line in listing if line.bits == bits]
    shown = disassemble(b"".join(line.code for line in lines), lines[0].address, bits, tmp_path / "code")
    assert shown == [(line.address, line.code, line.text) for line in lines]


@pytest.mark.parametrize("xcr0", [0, guest.SSE, AVX | guest.OPMASK])
def test_an_xcr0_that_the_guest_does_not_check(xcr0: int) -> None:
    with pytest.raises(ValueError, match="XCR0"):
        selfcheck.build_selfcheck(xcr0=xcr0)


def boots(machine: Machine, path: Path) -> SelfCheckStatus:
    with Qemu(machine, kernel=path) as qemu:
        qemu.cont()
        status = wait_ticks(qemu, TICKS, timeout=20)
    assert_healthy(status)
    return status


@pytest.mark.qemu
@pytest.mark.parametrize("park", [0, 1])
def test_tcg_alone(image: Callable[..., Path], usable_xcr0: Callable[[Machine], int], park: int) -> None:
    status = boots(TCG_SMP, image(AVX, park))
    assert status.xcr0 == usable_xcr0(TCG_SMP) & AVX
    assert status.checks == ALWAYS | Error.XCR0 | (Error.YMM if status.xcr0 == AVX else 0)


@pytest.mark.qemu
def test_without_avx_in_xcr0(image: Callable[..., Path]) -> None:
    status = boots(TCG, image(SSE))
    assert (status.xcr0, status.checks) == (SSE, ALWAYS | Error.XCR0)


@pytest.mark.qemu
def test_without_xsave(image: Callable[..., Path]) -> None:
    status = boots(TCG_SSE, image(AVX))
    assert (status.xcr0, status.checks) == (SSE, ALWAYS)


@pytest.mark.kvm
@pytest.mark.parametrize("park", [0, 1])
def test_kvm_alone(image: Callable[..., Path], usable_xcr0: Callable[[Machine], int], park: int) -> None:
    xcr0 = usable_xcr0(KVM_SMP) & AVX
    assert boots(KVM_SMP, image(xcr0, park)).xcr0 == xcr0


@pytest.mark.qemu
def test_tcg_to_tcg(saved: SelfCheckStreams) -> None:
    status, ticks = go_on(TCG, saved(TCG))
    assert_healthy(status)
    assert ticks >= TICKS


@pytest.mark.kvm
def test_kvm_to_kvm(saved: SelfCheckStreams, usable_xcr0: Callable[[Machine], int]) -> None:
    status, ticks = go_on(KVM, saved(KVM, usable_xcr0(KVM) & AVX))
    assert_healthy(status)
    assert ticks >= TICKS


@pytest.mark.kvm
def test_tcg_to_kvm_unconverted_loses_registers(
    saved: SelfCheckStreams, usable_xcr0: Callable[[Machine], int], tmp_path: Path
) -> None:
    # What a converter is for. Only the TSS is marked busy, without which VMX might not run the guest at all.
    xcr0 = usable_xcr0(KVM) & AVX
    stream = patched(saved(TCG, xcr0), tmp_path / "busy.mig", {"cpu/env.tr/flags": lambda flags: flags | TSS_BUSY})
    # The timer may be dead, too, so its ticks are not waited for.
    status, _ = go_on(KVM, stream, timeout=1)
    lost = Error.X87 | Error.CONTROL | Error.XMM | (Error.YMM if xcr0 == AVX else 0)
    # The TSC begins again at 0, which a KVM that shows the host's hides.
    assert status.errors & ~Error.TSC == lost


def flip(bits: int) -> Callable[[int], int]:
    return lambda value: value ^ bits


def become(new: int) -> Callable[[int], int]:
    return lambda _: new


DAMAGE: dict[str, tuple[Changes, Error]] = {
    # TOP is 3, and TCG stores physical registers.
    "ST(0)": ({"cpu/env.fpregs/env.fpregs[3]/tmp/tmp_exp": flip(1)}, Error.X87),
    "ST(4)": ({"cpu/env.fpregs/env.fpregs[7]/tmp/tmp_mant": flip(1)}, Error.X87),
    "TOP": ({"cpu/env.fpus_vmstate": flip(1 << 11)}, Error.X87),
    "x87 tags": ({"cpu/env.fptag_vmstate": flip(1)}, Error.X87),
    "FCW": ({"cpu/env.fpuc": become(0x037F)}, Error.CONTROL),
    "MXCSR": ({"cpu/env.mxcsr": become(0x1F80)}, Error.CONTROL),
    "XMM0": ({"cpu/env.xmm_regs[0]/env.xmm_regs[0][0]/_q_ZMMReg[0]": flip(1)}, Error.XMM),
    "XMM15": ({"cpu/env.xmm_regs[0]/env.xmm_regs[0][15]/_q_ZMMReg[1]": flip(1 << 63)}, Error.XMM),
    "RBX": ({"cpu/env.regs/env.regs[3]": flip(1)}, Error.GENERAL),
    "R15": ({"cpu/env.regs/env.regs[15]": flip(1 << 63)}, Error.GENERAL),
    "TSC": ({"timer/cpu_ticks_offset": become(0)}, Error.TSC),
    "TR type": ({"cpu/env.tr/flags": flip(TSS_BUSY)}, Error.EXCEPTION),
}
DAMAGE_WITH_AVX: dict[str, tuple[Changes, Error]] = {
    "YMM0": ({"cpu/env.xmm_regs[1]/env.xmm_regs[1][0]/_q_ZMMReg[2]": flip(1)}, Error.YMM),
    "YMM15": ({"cpu/env.xmm_regs[1]/env.xmm_regs[1][15]/_q_ZMMReg[3]": flip(1 << 63)}, Error.YMM),
    "XCR0": ({"cpu/env.xcr0": flip(guest.AVX)}, Error.XCR0),
    "hflags": ({"cpu/env.hflags": flip(HFLAGS_AVX)}, Error.EXCEPTION),
}


@pytest.mark.qemu
@pytest.mark.parametrize("what", [*DAMAGE, *DAMAGE_WITH_AVX])
def test_damage_is_found(
    saved: SelfCheckStreams, usable_xcr0: Callable[[Machine], int], tmp_path: Path, what: str
) -> None:
    if what in DAMAGE_WITH_AVX and not usable_xcr0(TCG) & guest.AVX:
        pytest.skip("this QEMU emulates no AVX")
    changes, error = (DAMAGE | DAMAGE_WITH_AVX)[what]
    status, ticks = go_on(TCG, patched(saved(TCG), tmp_path / "damaged.mig", changes))
    assert status.errors == error
    if error == Error.EXCEPTION:
        assert status.vector == (INVALID_OPCODE if what == "hflags" else GENERAL_PROTECTION)
        assert guest.LOAD_ADDRESS <= status.rip < selfcheck.RECORD
    else:
        assert ticks >= TICKS


@pytest.mark.qemu
def test_a_dead_timer_is_seen_by_its_ticks(saved: SelfCheckStreams, tmp_path: Path) -> None:
    # What KVM's own PIT leaves in a stream: channel 0 was loaded when the VM was made.
    loaded = -63544
    names = (f"{PIT}/next_transition_time", "i8254/channels[0].next_transition_time")
    changes = {f"{PIT}/count_load_time": become(loaded), **dict.fromkeys(names, become(loaded + 1))}
    status, ticks = go_on(TCG, patched(saved(TCG), tmp_path / "damaged.mig", changes), timeout=1)
    assert status.errors == Error(0)
    assert ticks < TICKS
