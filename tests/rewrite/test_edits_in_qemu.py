"""Every kind of edit, loaded by real QEMU, and the changed state read back from it.

What failed (or was not there) before the edit is shown first: an edit that changes nothing would pass otherwise.
"""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import qmigtool
from qmigtool.parsers.vmstate import Kind
from qmigtool.rewrite import Rewriter
from tests.conftest import QemuStream, QemuStreamFactory
from tests.oracle import guest
from tests.support.qemu.machine import Machine, Qemu
from tests.support.qemu.registers import parse_registers
from tests.support.qemu.reloaded import Edits, Loaded, edited, load, refusal

pytestmark = pytest.mark.qemu

MACHINE = Machine(smp=2)

Run = Callable[[Edits], Loaded]


@pytest.fixture
def saved(qemu_stream: QemuStreamFactory) -> QemuStream:
    return qemu_stream(MACHINE)


@pytest.fixture
def run(saved: QemuStream, tmp_path: Path) -> Run:
    """Edit the stream, load it in the same machine, save it again."""

    def edit_and_load(edits: Edits) -> Loaded:
        return load(MACHINE, edited(saved.path, tmp_path / "edited.mig", edits), tmp_path / "again.mig")

    return edit_and_load


def subsections(path: Path, device: str = "cpu@0") -> dict[str, bytes]:
    with qmigtool.open(path) as stream:
        return {f.name: f.raw for f in stream.device(device).fields if f.kind is Kind.SUBSECTION}


def number(path: Path, where: str) -> int:
    with qmigtool.open(path) as stream:
        value: int = stream.field(where).value
        return value


# -- values ----------------------------------------------------------------------------------------------------------


def test_mxcsr(saved: QemuStream, run: Run) -> None:
    assert [one.mxcsr for one in saved.registers] == [0x9FC0, 0x1F80]
    loaded = run(lambda r: r.set("cpu@1/env.mxcsr", "0x3fa0"))
    assert [one.mxcsr for one in loaded.registers] == [0x9FC0, 0x3FA0]


def test_an_array_and_a_struct(saved: QemuStream, run: Run) -> None:
    def edits(r: Rewriter) -> None:
        regs = r.draft.section("cpu@0").device.field("env.regs").value
        r.set("cpu@0/env.regs", [0x1122334455667788, *regs[1:]])
        r.set("cpu@0/env.gdt", {"base": 0x9000, "limit": 0x7F})
        r.set("cpu@1/env.xmm_regs[0][3]", {"_q_ZMMReg[0]": 5, "_q_ZMMReg[1]": 6})

    loaded = run(edits)
    assert loaded.registers[0].other["RAX"] == 0x1122334455667788
    assert saved.registers[0].other["RBX"] == loaded.registers[0].other["RBX"]
    assert loaded.registers[1].vectors[3][:16] == struct.pack("<2Q", 5, 6)
    assert number(loaded.again, "cpu@0/env.gdt/base") == 0x9000


# -- subsections -----------------------------------------------------------------------------------------------------


def test_avx512_is_put_in(saved: QemuStream, run: Run, tmp_path: Path) -> None:
    assert "cpu/avx512" not in subsections(saved.path)
    loaded = run(lambda r: r.add_subsection("cpu@0", "cpu/avx512", {"env.opmask_regs": [1, 2, 3, 4, 5, 6, 7, 8]}))
    # QEMU sends again what it was given, in the same place among the others, and describes it as we do.
    with qmigtool.open(loaded.again) as again, qmigtool.open(tmp_path / "edited.mig") as made:
        assert again.device("cpu@0").body == made.device("cpu@0").body
        assert again.device("cpu@0").description == made.device("cpu@0").description
        assert again.field("cpu@0/cpu/avx512/env.opmask_regs").value == [1, 2, 3, 4, 5, 6, 7, 8]


# Sent again by QEMU 7.2 under TCG when a field in them is not 0.
SENT_AGAIN = (
    *("cpu/async_pf_msr", "cpu/async_pf_int_msr", "cpu/async_pv_eoi_msr", "cpu/steal_time_msr", "cpu/msr_tsc_adjust"),
    *("cpu/msr_tscdeadline", "cpu/msr_ia32_feature_control", "cpu/mpx", "cpu/msr_hyperv_hypercall"),
    *("cpu/msr_hyperv_vapic", "cpu/msr_hyperv_time", "cpu/msr_hyperv_crash", "cpu/msr_hyperv_synic"),
    *("cpu/msr_hyperv_stimer", "cpu/msr_hyperv_reenlightenment", "cpu/avx512", "cpu/xss", "cpu/umwait"),
    *("cpu/tsc_khz", "cpu/pkru", "cpu/pkrs", "cpu/spec_ctrl", "cpu/virt_ssbd"),
)


def test_every_subsection_is_where_qemu_has_it(saved: QemuStream, run: Run, tmp_path: Path) -> None:
    def edits(r: Rewriter) -> None:
        for name in reversed(SENT_AGAIN):
            if r.draft.section("cpu@0").device.subsection(name) is None:
                r.add_subsection("cpu@0", name)
            field = r.draft.section("cpu@0").device.field(name).children[0]
            r.set(f"cpu@0/{name}/{field.name}", field.raw[:-1] + b"\x01")

    again = subsections(run(edits).again)
    made = subsections(tmp_path / "edited.mig")
    assert set(SENT_AGAIN) <= set(again)
    assert again == made
    assert list(again) == list(made)


def test_a_subsection_that_goes(saved: QemuStream, run: Run) -> None:
    name = "cpu/fpop_ip_dp"
    assert name in subsections(saved.path)
    loaded = run(lambda r: r.drop_subsection(f"cpu@0/{name}"))
    assert name not in subsections(loaded.again)  # what a reset gives, 0, is not sent
    assert name in subsections(loaded.again, "cpu@1")


def test_a_subsection_of_another_name_or_version(saved: QemuStream, tmp_path: Path) -> None:
    path = "cpu@0/cpu/poll_control_msr"
    made = edited(saved.path, tmp_path / "name.mig", lambda r: r.rename_subsection(path, "cpu/poll_control_msX"))
    assert "error while loading state for instance 0x0 of device 'cpu'" in refusal(MACHINE, made)
    back = edited(made, tmp_path / "b.mig", lambda r: r.rename_subsection(f"{path[:-1]}X", "cpu/poll_control_msr"))
    assert back.read_bytes() == saved.path.read_bytes()
    load(MACHINE, back, tmp_path / "again.mig")
    newer = edited(saved.path, tmp_path / "version.mig", lambda r: r.set_version(path, 2))
    assert "cpu/poll_control_msr: incoming version_id 2 is too new" in refusal(MACHINE, newer)


# -- sections --------------------------------------------------------------------------------------------------------


def test_a_section_that_the_target_does_not_know_goes(saved: QemuStream, tmp_path: Path) -> None:
    clock = edited(saved.path, tmp_path / "c.mig", lambda r: r.add_section("kvmclock", 1, values={"clock": 5}))
    assert "section or instance 'kvmclock' 0" in refusal(MACHINE, clock)
    made = edited(clock, tmp_path / "made.mig", lambda r: r.drop_section("kvmclock"))
    assert made.read_bytes() == saved.path.read_bytes()


def test_a_section_comes_back(saved: QemuStream, run: Run, tmp_path: Path) -> None:
    with qmigtool.open(saved.path) as stream:
        body, version = stream.device("hpet").body, stream.device("hpet").version_id
    without = edited(saved.path, tmp_path / "without.mig", lambda r: r.drop_section("hpet"))
    changed = body[:8] + bytes([body[8] ^ 1]) + body[9:]
    made = edited(without, tmp_path / "made.mig", lambda r: r.add_section("hpet", version, data=changed))
    again = load(MACHINE, made, tmp_path / "again.mig").again
    with qmigtool.open(again) as stream:
        assert stream.device("hpet").body == changed


def test_a_section_under_another_name(saved: QemuStream, run: Run, tmp_path: Path) -> None:
    wrong = edited(saved.path, tmp_path / "w.mig", lambda r: r.rename_section("hpet", "hpex"))
    assert "section or instance 'hpex' 0" in refusal(MACHINE, wrong)
    # The name without the device's path is one that a loader takes.
    run(lambda r: r.rename_section("0000:00:01.3/piix4_pm", "piix4_pm"))
    wrong = edited(saved.path, tmp_path / "i.mig", lambda r: r.rename_section("hpet", instance_id=7))
    assert "'hpet' 7" in refusal(MACHINE, wrong)


# -- the head of the stream ------------------------------------------------------------------------------------------


def test_another_machine_type(saved: QemuStream, tmp_path: Path) -> None:
    other = replace(MACHINE, machine="pc-i440fx-7.1")
    assert "Machine type received is 'pc-i440fx-" in refusal(other, saved.path)
    made = edited(saved.path, tmp_path / "made.mig", lambda r: r.machine_type("pc-i440fx-7.1"))
    loaded = load(other, made, tmp_path / "again.mig")
    with qmigtool.open(loaded.again) as stream:
        assert stream.machine == "pc-i440fx-7.1"
    assert loaded.registers == list(saved.registers)


def test_capabilities(saved: QemuStream, tmp_path: Path) -> None:
    made = edited(saved.path, tmp_path / "cap.mig", lambda r: r.add_capability("x-ignore-shared"))
    assert "Capability x-ignore-shared is off, but received capability is on" in refusal(MACHINE, made)
    with Qemu(MACHINE, incoming=True) as qemu:
        on = [{"capability": "x-ignore-shared", "state": True}]
        qemu.execute("migrate-set-capabilities", capabilities=on)
        qemu.load(made)
        assert parse_registers(qemu.info_registers()) == list(saved.registers)
    back = edited(made, tmp_path / "back.mig", lambda r: r.drop_capability("x-ignore-shared"))
    assert back.read_bytes() == saved.path.read_bytes()


# -- extended state --------------------------------------------------------------------------------------------------


def test_pkru_and_mpx_go(saved: QemuStream, run: Run) -> None:
    assert number(saved.path, "cpu@0/env.xcr0") & 0x218
    assert "cpu/pkru" in subsections(saved.path)
    loaded = run(lambda r: r.drop_component("mpx,pkru"))
    assert number(loaded.again, "cpu@0/env.xcr0") == number(saved.path, "cpu@0/env.xcr0") & ~0x218
    assert "cpu/pkru" not in subsections(loaded.again)
    assert loaded.registers[0].vectors == saved.registers[0].vectors


@pytest.mark.kvm
def test_what_the_host_has_not_costs_every_msr_until_it_goes(qemu_stream: QemuStreamFactory, tmp_path: Path) -> None:
    """QEMU 7.2 says nothing, later ones refuse: with XCR0 also every MSR of the vCPU is lost."""
    source = Machine(machine="pc,smm=off")
    target = Machine(accel="kvm", machine="pc,smm=off", cpu="host")
    saved = qemu_stream(source, (guest.distinct_pattern(0, xcr0=guest.X87 | guest.SSE | guest.PKRU),))

    def star(path: Path) -> int:
        return number(load(target, path, tmp_path / "again.mig").again, "cpu@0/env.star")

    def marked(r: Rewriter) -> None:
        r.set("cpu@0/env.star", 0x23001000000000)
        r.to_accelerator("kvm")

    before = edited(saved.path, tmp_path / "before.mig", marked)
    with qmigtool.open(before) as stream:
        assert stream.vcpus[0].xcr0 & 1 << 9
    if saved.qemu_version >= (10, 0, 0):
        assert "init: Failed to set" in refusal(target, before)
    else:
        assert star(before) == 0
    after = edited(before, tmp_path / "after.mig", lambda r: r.drop_component("mpx,pkru,avx"))
    assert star(after) == 0x23001000000000


def test_an_area_put_back(saved: QemuStream, run: Run) -> None:
    with qmigtool.open(saved.path) as stream:
        area = stream.vcpus[1].xsave
    data = bytearray(area.compact(qmigtool.layout("intel-spr"), mask=0x207).data)
    data[160:176] = bytes(range(16))  # XMM0
    struct.pack_into("<I", data, 24, 0x1FA0)
    made = qmigtool.XsaveArea(bytes(data), qmigtool.layout("intel-spr"))
    loaded = run(lambda r: r.import_area(1, made))
    assert loaded.registers[1].vectors[0][:16] == bytes(range(16))
    assert loaded.registers[1].mxcsr == 0x1FA0
    assert loaded.registers[1].vectors[1:] == saved.registers[1].vectors[1:]
    assert loaded.registers[1].fpr == saved.registers[1].fpr
    assert loaded.registers[0] == saved.registers[0]


# -- memory ----------------------------------------------------------------------------------------------------------


def test_a_block_that_goes_keeps_what_the_target_has(run: Run) -> None:
    loaded = run(lambda r: r.drop_block("/rom@etc/acpi/rsdp"))
    assert "pc.ram" in loaded.mtree


def test_memory_scrubbed(saved: QemuStream, run: Run, tmp_path: Path) -> None:
    loaded = run(lambda r: r.scrub_ram("pc.bios"))
    with qmigtool.open(loaded.again) as again, qmigtool.open(saved.path) as before:
        assert any(before.ram.read("pc.bios", 0, 0x40000))
        assert not any(again.ram.read("pc.bios", 0, 0x40000))
        assert again.ram.read("pc.ram", 0x100000, 0x1000) == before.ram.read("pc.ram", 0x100000, 0x1000)
