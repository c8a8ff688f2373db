"""What mends a stream: every command that is proposed is run, and what it writes is predicted, and loaded by QEMU."""

from __future__ import annotations

import functools
import lzma
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import qmigtool
from qmigtool.cli import main
from qmigtool.findings import Severity
from qmigtool.preflight import Preflight, Target, TargetBlock, preflight
from qmigtool.preflight.loader.predict import predict
from qmigtool.preflight.losses.find import find_losses
from qmigtool.preflight.remedies import search as remedies
from qmigtool.preflight.target.builds import target_from_version
from qmigtool.preflight.target.reference import merge, target_from_stream
from qmigtool.rewrite import Rewriter
from tests.preflight.recorded import target
from tests.support.paths import SAMPLES
from tests.support.qemu.machine import Machine, Qemu
from tests.support.qemu.process import QemuError, find_qemu

PACKED = SAMPLES / "packed"
KVM_XCR0 = 0xE7

Edits = Callable[[Rewriter], object]


def judge(path: Path, aim: Target, accelerator: str | None = None) -> Preflight:
    with qmigtool.open(path, accelerator=accelerator) as stream:
        return preflight(stream, aim)


def run_command(result: Preflight, path: Path, out: Path) -> None:
    """Run the command as a shell would, but in this process."""
    assert result.remedy is not None
    assert result.remedy.command is not None
    words = shlex.split(result.remedy.command)
    assert words[:3] == ["qmigtool", "rewrite", str(path)]
    assert words[-2:] == ["-o", "OUT"]
    assert main.run([*words[1:-1], str(out)]) == 0


@pytest.fixture
def edited(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, *edits: Edits) -> Path:
        path = tmp_path / "edited file.mig"  # with a blank: it has to be quoted
        with qmigtool.open(SAMPLES / f"{name}.mig") as stream:
            rewriter = Rewriter(stream)
            for one in edits:
                one(rewriter)
            rewriter.save(path)
        return path

    return make


@functools.cache
def pc() -> Target:
    """The machine that saved pc-7.2.mig, fresh."""
    return target("t00", "7.2")


def remedied(result: Preflight, path: Path, out: Path, aim: Target, accelerator: str | None = None) -> Preflight:
    """Run the command that is proposed; return the preflight of what it wrote."""
    assert result.verdict.loads is False or not result.clean
    run_command(result, path, out)
    assert result.remedy is not None
    after = judge(out, aim, accelerator)
    assert after.verdict == result.remedy.verdict  # what was tried is what comes out
    return after


# -- one refusal each ------------------------------------------------------------------------------------------------

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


def _version() -> tuple[int, ...]:
    text = subprocess.run([str(find_qemu()), "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, text.split("version ")[1].split(".")[:2]))


# -- several at once -------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("reference", "options"),
    [
        # Cases R1, R5 and R7: the target's ROM is larger, smaller, not there; R8: memory-backend=mem0.
        ("t24", "--resize-block 0000:00:03.0/virtio-net-pci.rom 0x80000"),
        ("t26", "--resize-block 0000:00:03.0/virtio-net-pci.rom 0x10000"),
        ("t27", "--drop-block 0000:00:03.0/virtio-net-pci.rom"),
        ("t28", "--rename-block pc.ram mem0"),
    ],
)
def test_blocks_of_another_size_or_name(reference: str, options: str, tmp_path: Path) -> None:
    # The recorded runs of R2/R3, R6 and R8 loaded with these edits.
    aim, path = target(reference, "7.2"), SAMPLES / "q35-7.2.mig"
    result = judge(path, aim)
    assert result.remedy is not None
    assert result.remedy.command == f"qmigtool rewrite {path} {options} -o OUT"
    assert remedied(result, path, tmp_path / "out.mig", aim).verdict.loads is True


@pytest.mark.parametrize("size", [0x10000, 0x40000])
def test_memory_behind_a_bar_keeps_its_size(edited: Callable[..., Path], size: int) -> None:
    """The guest has placed the BAR by its size: with another one real QEMU 10.0 refuses the configuration space."""
    name = "0000:00:02.0/vga.vram"
    path = edited("pc-7.2", lambda edits: edits.rename_block("pc.rom", name))
    aim = target("t00", "7.2")
    blocks = {one: block for one, block in (aim.blocks or {}).items() if one != "pc.rom"}
    found = judge(path, replace(aim, blocks={**blocks, name: TargetBlock(size)})).remedy
    assert found is not None
    assert (found.command, found.needed) == (None, (f"a block {name} of 131072 bytes",))
    assert found.verdict is not None
    assert found.verdict.loads is True


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


def test_memory_grows_and_never_shrinks(tmp_path: Path) -> None:
    # Case F2: -m 32; I3: -m 15.
    path = SAMPLES / "pc-7.2.mig"
    grown = judge(path, target("t03", "7.2"))
    assert grown.remedy is not None
    assert grown.remedy.words[3:-2] == ("--resize-block", "pc.ram", "0x2000000")
    assert grown.remedy.options == ("-m 16M",)
    assert remedied(grown, path, tmp_path / "out.mig", target("t03", "7.2")).verdict.loads is True
    assert not grown.remedy.why  # the guest never had the new half
    cut = judge(path, target("t07", "7.2"))
    assert cut.remedy is not None
    assert cut.remedy.command is None
    assert cut.remedy.needed == ("-m 16M",)


def test_guest_memory_is_never_left_out() -> None:
    aim = replace(pc(), blocks={"a": TargetBlock(1 << 20), "b": TargetBlock(1 << 20)})
    result = judge(SAMPLES / "pc-7.2.mig", aim)
    assert result.remedy is not None
    assert result.remedy.command is None
    assert "pc.ram" in result.remedy.why


# -- options of QEMU -------------------------------------------------------------------------------------------------


def test_what_only_the_target_can_mend() -> None:
    def needed(file: str, aim: Target) -> tuple[str, ...]:
        result = judge(SAMPLES / f"{file}.mig", aim)
        assert result.remedy is not None
        assert result.remedy.command is None
        return result.remedy.needed

    assert needed("pc-7.2", target("t01", "7.2")) == ("-smp 4",)  # case I1
    assert needed("pc-7.2", target("t02", "7.2")) == ("-M pc-i440fx-7.2",)  # I9: another machine is no upgrade


@pytest.mark.parametrize(
    ("file", "properties", "options", "instead"),
    [
        # Cases A6, A7, C16.
        ("noconfig-7.2", None, "--add-configuration pc-i440fx-7.2", "send-configuration=off"),
        ("pc-7.2", {"send-configuration": False}, "--drop-configuration", "send-configuration=on"),
        ("pc-7.2", {"send-section-footer": False}, "--drop-footers", "send-section-footer=on"),
    ],
)
def test_framing(file: str, properties: dict[str, bool] | None, options: str, instead: str, tmp_path: Path) -> None:
    aim = target("t01", "7.2") if properties is None else replace(pc(), properties=properties)
    path = SAMPLES / f"{file}.mig"
    result = judge(path, aim)
    assert result.remedy is not None
    assert result.remedy.command == f"qmigtool rewrite {path} {options} -o OUT"
    assert result.remedy.options == (f"-global migration.{instead}",)
    assert remedied(result, path, tmp_path / "out.mig", aim).verdict.loads is True


def test_properties_of_the_targets_devices() -> None:
    # Cases R11c (mq=on) and R11d (num-queues=1): MSI-X has other vectors; R11e: queue-size=128, which 11.1 refuses.
    for name, version, words in (
        ("t33", "7.2", "vectors=4 for 0000:00:03.0/virtio-net"),
        ("t34", "7.2", "vectors=4 for 0000:00:02.0/virtio-blk"),
        ("t35", "11.1", "queue-size=256 for 0000:00:02.0/virtio-blk"),
    ):
        result = judge(SAMPLES / "q35-7.2.mig", target(name, version))
        assert result.verdict.loads is False
        assert result.remedy is not None
        assert result.remedy.needed[0].startswith(words)


def test_a_pcie_bit_of_another_machine_version() -> None:
    # A stream whose name alone was changed: the functions have no extended tags, those of pc-q35-9.2 have.
    aim = replace(target("t55", "10.0"), machine="pc-q35-7.2")
    result = judge(SAMPLES / "q35-7.2.mig", aim)
    assert result.verdict.rule == "pci-config"
    assert result.remedy is not None
    assert result.remedy.needed == ("-global pci-device.x-pcie-ext-tag=off",)
    assert result.remedy.verdict is not None
    assert result.remedy.verdict.loads is True


def test_another_uuid(tmp_path: Path) -> None:
    path = tmp_path / "uuid.mig"
    path.write_bytes(lzma.decompress((PACKED / "uuid-11.1.mig.xz").read_bytes()))
    with qmigtool.open(path) as stream:
        aim = replace(target_from_stream(stream), qemu=(11, 1), uuid="00000000-0000-0000-0000-000000000001")
    result = judge(path, aim)
    assert result.verdict.rule == "uuid"
    assert result.remedy is not None
    assert result.remedy.needed == ("-uuid 01234567-89ab-cdef-0123-456789abcdef",)
    assert result.remedy.verdict is not None
    assert result.remedy.verdict.loads is True


# -- memory in other formats -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["compress-7.2", "mapped-10.0", "ignoreshared-10.0"])
def test_memory_as_plain_records(name: str, tmp_path: Path) -> None:
    path = tmp_path / "packed.mig"
    path.write_bytes(lzma.decompress((PACKED / f"{name}.mig.xz").read_bytes()))
    with qmigtool.open(path) as stream:
        version = tuple(map(int, name.rpartition("-")[2].split(".")))
        own = target_from_stream(stream)
    aim = replace(own, qemu=version, capabilities={"x-ignore-shared": False, "mapped-ram": False, "compress": False})
    result = judge(path, aim)
    assert result.verdict.loads is False
    assert result.remedy is not None
    if name.startswith("ignoreshared"):
        # Shared memory is not in the stream: no edit brings it in.
        assert result.remedy.command is None
        assert "shared memory" in result.remedy.why
        return
    assert result.remedy.words[3:-2] == ("--ram", "plain")
    assert remedied(result, path, tmp_path / "out.mig", aim).verdict.loads is True


# -- accelerators ----------------------------------------------------------------------------------------------------


def test_from_kvm_to_tcg(tmp_path: Path) -> None:
    path, aim = SAMPLES / "twin-kvm-10.0.mig", target("t08", "10.0")
    result = judge(path, aim)
    assert (result.verdict.rule, result.verdict.section) == ("unknown-section", "kvmclock")
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == ("--to-accelerator", "tcg")
    after = remedied(result, path, tmp_path / "out.mig", aim, "tcg")
    assert {one.rule for one in after.losses if one.severity is not Severity.NOTE} == {"missing-vcpu"}  # it has four


@pytest.mark.parametrize("declared", [0, 3])
def test_state_that_a_hypervisor_has_not_declared(declared: int, edited: Callable[..., Path], tmp_path: Path) -> None:
    # SDM volume 1, 13.8: what XSTATE_BV does not have, XRSTOR initialises; who saved the file does not matter.
    path = edited("kvm-avx512-7.2", lambda edits: edits.set("cpu@0/env.xstate_bv", declared))
    aim = replace(kvm_reference(), accelerator="kvm", xcr0=KVM_XCR0)
    result = judge(path, aim, "kvm")
    assert result.verdict.loads is True
    (finding,) = [one for one in result.losses if one.severity is Severity.ERROR]
    assert (finding.rule, finding.where) == ("undeclared-state", "cpu@0/env.xstate_bv")
    assert ("x87 SSE AVX" in finding.message) is (declared == 0)
    assert "AVX opmask ZMM_Hi256 Hi16_ZMM: lost" in finding.message
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == ("--repair", "xstate-bv")
    assert remedied(result, path, tmp_path / "out.mig", aim, "kvm").clean
    assert judge(SAMPLES / "kvm-avx512-7.2.mig", aim).clean


def kvm_reference() -> Target:
    with qmigtool.open(SAMPLES / "kvm-avx512-7.2.mig") as stream:
        return replace(target_from_stream(stream), qemu=(7, 2))


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


def kvm_target() -> Target:
    with qmigtool.open(SAMPLES / "twin-kvm-10.0.mig") as stream:
        reference = target_from_stream(stream)
    return merge(target_from_version((10, 0)), reference, Target(qemu=(10, 0), xcr0=KVM_XCR0, xss=0))


def test_from_tcg_to_kvm(tmp_path: Path) -> None:
    path, aim = SAMPLES / "twin-tcg-10.0.mig", kvm_target()
    result = judge(path, aim)
    assert result.verdict.loads is True  # and loses x87, SSE and AVX
    assert not result.clean
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == ("--to-accelerator", "kvm", "--xcr0", "0xe7")
    assert remedied(result, path, tmp_path / "out.mig", aim, "kvm").clean


def test_what_is_given_up_is_said(tmp_path: Path) -> None:
    # AVX-512 under TCG: the guest keeps nothing of it.
    path = SAMPLES / "kvm-avx512-7.2.mig"
    with qmigtool.open(path) as stream:
        reference = target_from_stream(stream)
    sections = {key: one for key, one in (reference.sections or {}).items() if key[0] != "kvmclock"}
    aim = replace(reference, sections=sections, accelerator="tcg", qemu=(7, 2), host_tsc_khz=None)
    result = judge(path, aim)
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == ("--to-accelerator", "tcg", "--lossy")
    for component in ("opmask", "ZMM_Hi256", "Hi16_ZMM"):
        assert sum(f"{component} was live" in one for one in result.remedy.loses) == 1
    assert remedied(result, path, tmp_path / "out.mig", aim, "tcg").clean


def test_components_that_the_hosts_xcr0_lacks(tmp_path: Path) -> None:
    # Idle ones of a KVM stream, for another KVM host.
    path = tmp_path / "in.mig"
    with qmigtool.open(SAMPLES / "twin-kvm-10.0.mig") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.xcr0", 0x207)
        rewriter.save(path)
    aim = kvm_target()
    result = judge(path, aim)
    assert (result.verdict.loads, result.verdict.rule) == (False, "kvm-xcr0")
    assert remedied(result, path, tmp_path / "out.mig", aim, "kvm").clean


def test_live_components_that_the_hosts_xcr0_lacks(tmp_path: Path) -> None:
    # 7.2 would load it, and drop XSAVE, XCR0 and every MSR for the sake of AVX-512.
    path = SAMPLES / "kvm-avx512-7.2.mig"
    with qmigtool.open(path) as stream:
        aim = merge(target_from_version((7, 2)), target_from_stream(stream), Target(qemu=(7, 2), xcr0=7, xss=0))
    result = judge(path, aim)
    assert result.verdict.loads is True
    assert not result.clean
    assert result.remedy is not None
    assert result.remedy.words[3:-2] == ("--to-accelerator", "kvm", "--xcr0", "0x7", "--lossy")
    assert any("Hi16_ZMM" in one for one in result.remedy.loses)
    assert remedied(result, path, tmp_path / "out.mig", aim, "kvm").clean


@pytest.mark.kvm
def test_real_kvm_keeps_a_remedied_stream(tmp_path: Path) -> None:
    if _version() != (7, 2):
        pytest.skip("the sample is of pc-i440fx-7.2")
    path, out, again = SAMPLES / "twin-tcg-10.0.mig", tmp_path / "out.mig", tmp_path / "again.mig"
    run_command(judge(path, replace(kvm_target(), qemu=(7, 2))), path, out)
    machine = Machine(accel="kvm", machine="pc-i440fx-7.2", cpu="host,-arch-capabilities", extra=("-serial", "null"))
    with Qemu(machine, incoming=True) as qemu:
        qemu.load(out)
        qemu.migrate_to_file(again)
    with qmigtool.open(out, accelerator="kvm") as sent, qmigtool.open(again) as kept:
        for name in ("env.fpuc", "env.fpus_vmstate", "env.fptag_vmstate", "env.mxcsr", "env.fpregs"):
            assert kept.field(f"cpu@0/{name}").raw == sent.field(f"cpu@0/{name}").raw, name
        assert kept.vcpus[0].contents(1) == sent.vcpus[0].contents(1)


# -- nothing to do, nothing that can be done -------------------------------------------------------------------------


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
