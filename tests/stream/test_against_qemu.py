"""What qmigtool reads from a stream is what real QEMU's monitor printed for the same stopped guest."""

import json
import struct
import subprocess
import sys
from dataclasses import replace

import pytest

import qmigtool
from qmigtool.xsave import XsaveArea, parse_cpuid_dump
from tests.conftest import QemuStream, QemuStreamFactory
from tests.oracle import guest
from tests.support.qemu.machine import Machine, Qemu
from tests.support.qemu.registers import MonitorRegisters

pytestmark = pytest.mark.qemu

TCG = [Machine(smp=4), Machine(machine="q35", smp=3), Machine(machine="microvm", smp=2), Machine(cpu="qemu64", smp=2)]
KVM = [Machine(accel="kvm", cpu="host", smp=2), Machine(accel="kvm", machine="q35", cpu="host", smp=1)]
MACHINES = [*TCG, *(pytest.param(machine, marks=pytest.mark.kvm) for machine in KVM)]


def name_of(machine: Machine) -> str:
    return f"{machine.accel}-{machine.machine}-{machine.cpu}"


def check_registers(area: XsaveArea, printed: MonitorRegisters, accel: str) -> None:
    """Compare every x87, MXCSR and vector value that the monitor prints."""
    assert (area.fcw, area.fsw, area.ftw) == (printed.fcw, printed.fsw, printed.ftw)
    assert [struct.unpack("<QH", area.st(i)) for i in range(8)] == printed.st(accel=accel)
    assert area.mxcsr == printed.mxcsr
    assert [area.xmm(i) for i in range(16)] == [vector[:16] for vector in printed.vectors[:16]]
    if printed.vector_kind != "XMM":
        upper = area.component("AVX")
        assert [upper[16 * i : 16 * i + 16] for i in range(16)] == [vector[16:32] for vector in printed.vectors[:16]]
    if printed.vector_kind == "ZMM":
        high, rest = area.component("ZMM_Hi256"), area.component("Hi16_ZMM")
        assert [high[32 * i : 32 * i + 32] for i in range(16)] == [vector[32:] for vector in printed.vectors[:16]]
        assert [rest[64 * i : 64 * i + 64] for i in range(16)] == list(printed.vectors[16:])
        assert struct.unpack("<8Q", area.component("opmask")) == printed.opmask


@pytest.fixture(params=MACHINES, ids=name_of)
def saved(request: pytest.FixtureRequest, qemu_stream: QemuStreamFactory) -> QemuStream:
    return qemu_stream(request.param)


def test_every_register_is_what_the_monitor_printed(saved: QemuStream) -> None:
    with qmigtool.open(saved.path) as stream:
        assert stream.complete
        assert stream.accelerator.name == saved.machine.accel
        assert len(stream.vcpus) == saved.machine.smp
        for vcpu, printed in zip(stream.vcpus, saved.registers, strict=True):
            check_registers(vcpu.xsave, printed, saved.machine.accel)


def test_every_register_is_what_the_guest_loaded(saved: QemuStream) -> None:
    with qmigtool.open(saved.path) as stream:
        for vcpu, pattern, status in zip(stream.vcpus, saved.patterns, saved.status, strict=True):
            area = vcpu.xsave
            # Without XSAVE (qemu64) there is no XCR0 to set: QEMU keeps its reset value.
            assert vcpu.xcr0 == (status.xcr0 if status.cpuid_xcr0 else 1)
            assert area.mxcsr == pattern.mxcsr
            assert [struct.unpack("<QH", area.st(i)) for i in range(len(pattern.st))] == pattern.st
            assert [area.xmm(i) for i in range(16)] == [zmm[:16] for zmm in pattern.zmm[:16]]
            if vcpu.xcr0 & 4:
                upper = area.component("AVX")
                assert upper == b"".join(zmm[16:32] for zmm in pattern.zmm[:16])


def test_command_line_reads_the_stream(saved: QemuStream) -> None:
    for command in (["info"], ["sections"], ["xsave", "table"]):
        done = subprocess.run(
            [sys.executable, "-m", "qmigtool", *command, str(saved.path), "--json"], capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(done.stdout)["schema"] == 1


def test_a_compacted_area_still_holds_every_register(saved: QemuStream) -> None:
    target = qmigtool.layout("intel-spr")
    with qmigtool.open(saved.path) as stream:
        for vcpu, printed in zip(stream.vcpus, saved.registers, strict=True):
            compacted = vcpu.xsave.compact(target, drop=qmigtool.xsave.parse_mask("bndregs,bndcsr"))
            check_registers(compacted, printed, saved.machine.accel)
            check_registers(compacted.expand(), printed, saved.machine.accel)


@pytest.mark.parametrize("machine", [Machine(smp=2), pytest.param(KVM[0], marks=pytest.mark.kvm)], ids=name_of)
def test_area_equals_what_xsave_in_the_guest_wrote(qemu_stream: QemuStreamFactory, machine: Machine) -> None:
    """The guest executed XSAVE itself: the area that we build from the vmstate has to mean the same."""
    saved = qemu_stream(machine, self_save=True)
    with qmigtool.open(saved.path) as stream:
        for vcpu, written in zip(stream.vcpus, saved.xsave, strict=True):
            layout = qmigtool.layout("tcg") if machine.accel == "tcg" else guest_layout(machine)
            theirs = XsaveArea(written, layout).architectural_state()
            ours = vcpu.xsave.expand(layout).architectural_state()
            if machine.accel == "tcg":
                # TCG's XSAVE writes FOP, FIP and FDP as 0, although it has them and streams them.
                ours[0] = ours[0][:6] + bytes(18) + ours[0][24:]
            assert ours == theirs


def guest_layout(machine: Machine) -> qmigtool.xsave.Layout:
    """Return the layout that the KVM guest sees: this CPU's own."""
    from tests.oracle import xsave_cpu

    rows = [(i, xsave_cpu.cpuid(0xD, i)) for i in range(63)]
    text = "CPU 0:\n" + "\n".join(
        f"   0x0000000d 0x{i:02x}: eax=0x{a:08x} ebx=0x{b:08x} ecx=0x{c:08x} edx=0x{d:08x}" for i, (a, b, c, d) in rows
    )
    return parse_cpuid_dump(text, "this CPU")


def test_a_change_in_one_register_is_seen_in_one_place(qemu_stream: QemuStreamFactory) -> None:
    """The comparison above can fail: another value in one register of one vCPU changes just that."""
    machine = Machine(smp=2)
    plain = qemu_stream(machine)
    zmm = list(plain.patterns[1].zmm)
    zmm[5] = bytes(range(100, 164))
    other = qemu_stream(machine, (plain.patterns[0], replace(plain.patterns[1], zmm=tuple(zmm))))
    with qmigtool.open(plain.path) as one, qmigtool.open(other.path) as two:
        assert one.vcpus[0].contents(1) == two.vcpus[0].contents(1)
        before, after = one.vcpus[1].xsave, two.vcpus[1].xsave
        assert [i for i in range(16) if before.xmm(i) != after.xmm(i)] == [5]


def test_qemu_loads_what_was_read(qemu_stream: QemuStreamFactory) -> None:
    """A stream that we call complete is one that QEMU itself takes, with the same registers."""
    saved = qemu_stream(Machine(smp=4))
    with Qemu(saved.machine, incoming=True) as target:
        target.load(saved.path)
        assert target.all_registers() == list(saved.registers)


def test_guest_program_is_the_documented_one() -> None:
    assert guest.build_guest([guest.distinct_pattern(0)])[:4] == bytes.fromhex("02b0ad1b")
