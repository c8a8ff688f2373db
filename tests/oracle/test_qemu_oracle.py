"""The harness and the guest alone: what the guest loaded is what QEMU's monitor and a second QEMU show."""

import struct
from pathlib import Path

import pytest

from tests.conftest import QemuStream, QemuStreamFactory
from tests.oracle import guest
from tests.support.qemu.machine import Machine, Qemu
from tests.support.qemu.process import QemuError
from tests.support.qemu.registers import MonitorRegisters, parse_registers

TCG = Machine(accel="tcg", smp=2)
TCG_Q35 = Machine(accel="tcg", machine="q35", smp=4)
TCG_SSE = Machine(accel="tcg", cpu="qemu64")
KVM = Machine(accel="kvm", cpu="host", smp=2)

MACHINES = [
    pytest.param(TCG, id="tcg-pc", marks=pytest.mark.qemu),
    pytest.param(TCG_Q35, id="tcg-q35", marks=pytest.mark.qemu),
    pytest.param(TCG_SSE, id="tcg-qemu64", marks=pytest.mark.qemu),
    pytest.param(KVM, id="kvm-pc", marks=[pytest.mark.qemu, pytest.mark.kvm]),
]


@pytest.fixture(params=MACHINES)
def stream(request: pytest.FixtureRequest, qemu_stream: QemuStreamFactory) -> QemuStream:
    return qemu_stream(request.param)


@pytest.fixture(params=[MACHINES[0], MACHINES[1], MACHINES[3]])
def saving_stream(request: pytest.FixtureRequest, qemu_stream: QemuStreamFactory) -> QemuStream:
    """Return a stream whose guest XSAVEs into its own memory all the time."""
    return qemu_stream(request.param, self_save=True)


def check_monitor(
    registers: MonitorRegisters, pattern: guest.VcpuPattern, status: guest.VcpuStatus, accel: str
) -> None:
    """Assert that the monitor shows what the guest was told to load."""
    kind, count, width = "XMM", 16, 16
    if status.xcr0 & 0x7 == 0x7:
        kind, width = "YMM", 32
    if status.xcr0 & 0xE7 == 0xE7:
        kind, count, width = "ZMM", 32, 64
    assert registers.vector_kind == kind
    # What is not loaded is zero since reset.
    widths = [
        size for bits, size in ((guest.SSE, 16), (guest.AVX, 32), (guest.AVX512, 64)) if status.loaded & bits == bits
    ]
    loaded = min(width, max(widths, default=0))
    expected = [
        (z if loaded == 64 or n < 16 else bytes(64))[:loaded].ljust(width, b"\0") for n, z in enumerate(pattern.zmm)
    ]
    assert [v.hex() for v in registers.vectors] == [v.hex() for v in expected[:count]]
    if kind == "ZMM":
        assert registers.opmask == (pattern.opmask if status.loaded & guest.OPMASK else (0,) * 8)
    if status.loaded & guest.SSE:
        assert registers.mxcsr == pattern.mxcsr
    if status.loaded & guest.X87:
        assert registers.fcw == pattern.fcw
        assert registers.top == pattern.top
        assert registers.fsw == pattern.top << 11
        assert registers.ftw == 0xFF << pattern.top & 0xFF
        st = registers.st(accel=accel)
        assert st == pattern.st + [(0, 0)] * (8 - len(pattern.st))


def check_own_xsave(area: bytes, pattern: guest.VcpuPattern, status: guest.VcpuStatus) -> None:
    """Assert that the area which the vCPU wrote holds what it loaded (AVX is at 576 on every CPU)."""
    fcw, fsw, ftw = struct.unpack_from("<HHB", area)
    assert (fcw, fsw, ftw) == (pattern.fcw, pattern.top << 11, 0xFF << pattern.top & 0xFF)
    assert [struct.unpack_from("<QH", area, 32 + 16 * i) for i in range(len(pattern.st))] == pattern.st
    assert struct.unpack_from("<I", area, 24) == (pattern.mxcsr,)
    assert area[160:416] == b"".join(register[:16] for register in pattern.zmm[:16])
    if status.loaded & guest.AVX:
        assert area[576:832] == b"".join(register[16:32] for register in pattern.zmm[:16])
    assert struct.unpack_from("<Q", area, 520) == (0,)


def test_monitor_shows_what_the_guest_loaded(stream: QemuStream) -> None:
    assert len(stream.registers) == stream.machine.smp
    for registers, pattern, status in zip(stream.registers, stream.patterns, stream.status, strict=True):
        assert status.xcr0 == (pattern.xcr0 & status.cpuid_xcr0 or guest.X87 | guest.SSE)
        assert status.loaded == status.xcr0 & pattern.touch
        check_monitor(registers, pattern, status, stream.machine.accel)


@pytest.mark.qemu
def test_tcg_has_avx(qemu_stream: QemuStreamFactory) -> None:
    # `-cpu max` since QEMU 7.2; without this, the tests above might all check nothing but SSE.
    assert [record.vector_kind for record in qemu_stream(TCG).registers] == ["YMM"] * 2


@pytest.mark.qemu
@pytest.mark.kvm
def test_kvm_has_avx(qemu_stream: QemuStreamFactory) -> None:
    stream = qemu_stream(KVM)
    if not stream.status[0].xcr0 & guest.AVX:
        pytest.skip("this host's KVM does not announce AVX (KVM_GET_SUPPORTED_CPUID), so QEMU cannot save it")
    assert stream.registers[0].vector_kind in {"YMM", "ZMM"}


@pytest.mark.parametrize("machine", [MACHINES[0], MACHINES[3]])
def test_vcpus_with_less_enabled_or_touched(machine: Machine, qemu_stream: QemuStreamFactory) -> None:
    x87_sse = guest.X87 | guest.SSE
    patterns = (
        guest.distinct_pattern(0, xcr0=x87_sse),
        guest.distinct_pattern(1, xcr0=x87_sse | guest.AVX if machine.accel == "tcg" else x87_sse, touch=guest.SSE),
    )
    stream = qemu_stream(machine, patterns)
    assert [status.loaded for status in stream.status] == [x87_sse, guest.SSE]
    for registers, pattern, status in zip(stream.registers, patterns, stream.status, strict=True):
        check_monitor(registers, pattern, status, machine.accel)
    assert stream.registers[1].ftw == 0


def test_guests_own_xsave(saving_stream: QemuStream) -> None:
    for area, pattern, status in zip(saving_stream.xsave, saving_stream.patterns, saving_stream.status, strict=True):
        check_own_xsave(area, pattern, status)


def test_file_is_a_migration_stream(stream: QemuStream) -> None:
    data = stream.path.read_bytes()
    assert data.startswith(b"QEVM\x00\x00\x00\x03")
    assert data.endswith(b"}")


def test_second_qemu_shows_the_same(stream: QemuStream) -> None:
    with Qemu(stream.machine, incoming=True) as qemu:
        qemu.load(stream.path)
        assert qemu.all_registers() == list(stream.registers)


def test_loaded_guest_runs_on_with_its_registers(saving_stream: QemuStream) -> None:
    stream = saving_stream
    with Qemu(stream.machine, incoming=True) as qemu:
        qemu.load(stream.path)
        qemu.cont()
        qemu.wait_for_self_save()
        qemu.stop()
        for vcpu, (pattern, status) in enumerate(zip(stream.patterns, stream.status, strict=True)):
            check_monitor(qemu.registers(vcpu), pattern, status, stream.machine.accel)
            check_own_xsave(qemu.guest_xsave(vcpu), pattern, status)


def test_same_parameters_same_stream(qemu_stream: QemuStreamFactory, stream: QemuStream) -> None:
    assert qemu_stream(stream.machine) is stream


@pytest.mark.qemu
def test_refused_stream_is_an_error_with_stderr(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mig"
    bad.write_bytes(b"QEVM\x00\x00\x00\x04")
    with Qemu(TCG, incoming=True) as qemu, pytest.raises(QemuError, match="nsupported migration stream version"):
        qemu.load(bad)


@pytest.mark.qemu
def test_refused_argument_is_an_error_with_stderr() -> None:
    with pytest.raises(QemuError, match="unable to find CPU model 'nothing'"), Qemu(Machine(cpu="nothing")):
        pass


@pytest.mark.qemu
def test_migration_that_fails(tmp_path: Path) -> None:
    with Qemu(TCG, timeout=10) as qemu, pytest.raises(QemuError):
        qemu.migrate_to_file(tmp_path / "missing" / "vm.mig")


@pytest.mark.qemu
def test_guest_that_never_spins() -> None:
    with Qemu(TCG, timeout=0.5) as qemu, pytest.raises(QemuError, match="the guest is prelaunch"):
        qemu.wait_until_spinning()


def test_parse_registers() -> None:
    text = (
        "\nCPU#0\nRAX=00000000ffffffff RBX=0000000000000240 R8 =00000000f6d8320b\n"
        "FCW=037f FSW=2800 [ST=5] FTW=e0 MXCSR=00009fc0\n"
        "FPR0=0000000000000000 0000 FPR1=0000000000000000 0000\nFPR2=0000000000000000 0000 FPR3=0000000000000000 0000\n"
        "FPR4=0000000000000000 0000 FPR5=b8aa3b295c17f0bc 3fff\nFPR6=8000000000000000 3fff FPR7=c90fdaa22168c235 4000\n"
        "YMM00=01005a030c6ea713 01005a026e372d62 01005a01cfffb3b1 01005a0031c83a00\n"
    )
    (only,) = parse_registers(text)
    assert only.other == {"RAX": 0xFFFFFFFF, "RBX": 0x240, "R8": 0xF6D8320B}
    assert only.st(accel="tcg")[:3] == [guest.LOG2E, guest.ONE, guest.PI]
    assert only.st(accel="kvm")[5:] == [guest.LOG2E, guest.ONE, guest.PI]
    assert only.vectors[0] == guest.distinct_pattern(0).zmm[0][:32]
    with pytest.raises(ValueError, match="no FCW line"):
        parse_registers("nothing")
