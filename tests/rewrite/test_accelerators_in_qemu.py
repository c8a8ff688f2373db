"""Streams converted between TCG and KVM, loaded by real QEMU, and their guests run on.

The guest of `self_save` writes its registers to memory by XSAVE, for ever: what it wrote before and what it writes
after the conversion has to mean the same. Each rule that this can show is also left out, to see it fail.
"""

from collections.abc import Collection
from pathlib import Path

import pytest

import qmigtool
from qmigtool.rewrite import Rewriter, accelerators
from qmigtool.xsave import XsaveArea
from tests.conftest import QemuStream, QemuStreamFactory
from tests.oracle import guest
from tests.support.qemu.machine import Machine, Qemu
from tests.support.qemu.reloaded import load, refusal

pytestmark = [pytest.mark.qemu, pytest.mark.kvm]

TCG = Machine(smp=2, machine="pc,smm=off")
KVM = Machine(smp=2, machine="pc,smm=off", accel="kvm", cpu="host")
PAIRS = [pytest.param(TCG, KVM, id="tcg-to-kvm"), pytest.param(KVM, TCG, id="kvm-to-tcg")]


@pytest.fixture
def common(usable_xcr0):
    """Return the components that both can save here: what a KVM without AVX has not, TCG's guest must not use."""
    return usable_xcr0(TCG) & usable_xcr0(KVM)


def save(qemu_stream: QemuStreamFactory, machine: Machine, xcr0: int) -> QemuStream:
    patterns = tuple(guest.distinct_pattern(vcpu, xcr0=xcr0) for vcpu in range(machine.smp))
    return qemu_stream(machine, patterns, self_save=True)


def convert(source: Path, target: Path, accelerator: str, mask: int, without: Collection[str] = ()) -> list[str]:
    """Convert a stream; return the names of the rules that changed something."""
    with qmigtool.open(source) as stream:
        rewriter = Rewriter(stream)
        accelerators.convert(rewriter.draft, accelerator, mask=mask, without=without)
        rewriter.save(target)
        assert not rewriter.losses
        return [change.edit for change in rewriter.changes]


def run_on(machine: Machine, path: Path) -> list[bytes]:
    """Load a stream, let the guest run for two rounds and more, and return the areas that it wrote."""
    with Qemu(machine, incoming=True, timeout=20) as qemu:
        qemu.load(path)
        qemu.cont()
        qemu.wait_for_self_save()
        qemu.stop()
        return [qemu.guest_xsave(vcpu) for vcpu in range(machine.smp)]


def meaning(area: bytes) -> object:
    """What an area of the guest means, but for what TCG's XSAVE writes as 0: FOP, FIP and FDP."""
    layout = qmigtool.layout("tcg")
    state = XsaveArea(area[: layout.standard_size()], layout).architectural_state()
    if 0 in state:
        x87 = bytearray(state[0])
        x87[6:24] = bytes(18)
        state[0] = bytes(x87)
    return state


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_guest_goes_on_with_its_registers(source, target, common, qemu_stream, tmp_path):
    saved = save(qemu_stream, source, common)
    made = tmp_path / "made.mig"
    rules = convert(saved.path, made, target.accel, common)
    assert {"undeclared-state", "x87-to-stack"} <= set(rules) or {"foreign-section", "x87-to-physical"} <= set(rules)
    after = run_on(target, made)
    assert list(map(meaning, after)) == list(map(meaning, saved.xsave))


@pytest.mark.parametrize(
    ("source", "target", "rules"),
    [
        pytest.param(TCG, KVM, {"undeclared-state", "undeclared-mxcsr"}, id="undeclared-state"),
        pytest.param(TCG, KVM, {"x87-to-stack"}, id="x87-to-stack"),
        pytest.param(KVM, TCG, {"x87-to-physical"}, id="x87-to-physical"),
    ],
)
def test_without_a_rule_registers_are_lost(source, target, rules, common, qemu_stream, tmp_path):
    saved = save(qemu_stream, source, common)
    made = tmp_path / "made.mig"
    assert not rules & set(convert(saved.path, made, target.accel, common, without=rules))
    after = list(map(meaning, run_on(target, made)))
    assert after != list(map(meaning, saved.xsave))
    if rules != {"undeclared-state", "undeclared-mxcsr"}:  # only x87 is wrong
        assert [{**one, 0: None} for one in after] == [{**meaning(one), 0: None} for one in saved.xsave]


def test_without_tk1b_mxcsr_is_lost(common, qemu_stream, tmp_path):
    """XSTATE_BV without SSE: the CPU loads MXCSR 1F80, although KVM shows the old value while the VM is stopped."""
    saved = save(qemu_stream, TCG, common)
    made = tmp_path / "made.mig"
    with qmigtool.open(saved.path) as stream:
        rewriter = Rewriter(stream)
        for vcpu in range(TCG.smp):
            for register in range(16):
                rewriter.set(f"cpu@{vcpu}/env.xmm_regs[0][{register}]", bytes(16))
            rewriter.set(f"cpu@{vcpu}/env.mxcsr", 0x9FC0)
        accelerators.convert(rewriter.draft, "kvm", mask=common)
        assert all(vcpu.xstate_bv & 2 for vcpu in rewriter.draft.vcpus)
        rewriter.save(made)
        for vcpu in range(TCG.smp):
            rewriter.set(f"cpu@{vcpu}/env.xstate_bv", 1)
        rewriter.save(tmp_path / "without.mig")
    assert [area[24:28].hex() for area in run_on(KVM, made)] == ["c09f0000"] * 2
    assert [area[24:28].hex() for area in run_on(KVM, tmp_path / "without.mig")] == ["801f0000"] * 2


def test_without_kt1_it_does_not_load(common, qemu_stream, tmp_path):
    saved = save(qemu_stream, KVM, common)
    convert(saved.path, tmp_path / "made.mig", "tcg", common, without={"foreign-section"})
    assert "section or instance 'kvmclock' 0" in refusal(TCG, tmp_path / "made.mig")


def test_without_tk8_qemu_aborts(common, qemu_stream, tmp_path):
    """An address that is not canonical: refused by name, or made canonical and told."""
    saved = save(qemu_stream, TCG, common)
    with qmigtool.open(saved.path) as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.kernelgsbase", 0x1234_5678_9ABC_DEF0)
        with pytest.raises(qmigtool.LiveStateError, match=r"kernelgsbase: 0x123456789abcdef0.*non-canonical"):
            accelerators.convert(rewriter.draft, "kvm", mask=common)
        assert rewriter.draft.accelerator == "tcg"
        accelerators.convert(rewriter.draft, "kvm", mask=common, without={"non-canonical"})
        rewriter.save(tmp_path / "without.mig")
    assert "failed to set MSR 0xc0000102" in refusal(KVM, tmp_path / "without.mig")
    with qmigtool.open(saved.path) as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.kernelgsbase", 0x1234_5678_9ABC_DEF0)
        accelerators.convert(rewriter.draft, "kvm", mask=common, lossy=True)
        assert any("kernelgsbase" in loss for loss in rewriter.losses)
        rewriter.save(tmp_path / "lossy.mig")
    load(KVM, tmp_path / "lossy.mig", tmp_path / "again.mig")


def test_without_tk9_registers_are_refused(common, qemu_stream, tmp_path):
    """A reserved bit of MXCSR: QEMU 7.2 drops the group of registers in silence, later ones refuse."""
    saved = save(qemu_stream, TCG, common)
    with qmigtool.open(saved.path) as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.mxcsr", 0x80001F80)
        rewriter.set("cpu@0/env.star", 0x23001000000000)
        with pytest.raises(qmigtool.LiveStateError, match=r"MXCSR is 0x80001f80.*reserved.*illegal-registers"):
            accelerators.convert(rewriter.draft, "kvm", mask=common)
        accelerators.convert(rewriter.draft, "kvm", mask=common, without={"illegal-registers"})
        rewriter.save(tmp_path / "without.mig")
    if saved.qemu_version >= (10, 0, 0):
        assert "Failed to set" in refusal(KVM, tmp_path / "without.mig")
        return
    with qmigtool.open(load(KVM, tmp_path / "without.mig", tmp_path / "again.mig").again) as stream:
        assert stream.field("cpu@0/env.star").value == 0


def test_there_and_back_again(common, qemu_stream, tmp_path):
    """TCG, KVM, TCG, KVM: what the guest writes stays the same."""
    saved = save(qemu_stream, TCG, common)
    wanted, path = list(map(meaning, saved.xsave)), saved.path
    for hop, target in enumerate((KVM, TCG, KVM)):
        made, again = tmp_path / f"{hop}.mig", tmp_path / f"{hop}-saved.mig"
        convert(path, made, target.accel, common)
        with Qemu(target, incoming=True, timeout=20) as qemu:
            qemu.load(made)
            qemu.cont()
            qemu.wait_for_self_save()
            qemu.stop()
            assert [meaning(qemu.guest_xsave(vcpu)) for vcpu in range(target.smp)] == wanted
            qemu.migrate_to_file(again)
        path = again
