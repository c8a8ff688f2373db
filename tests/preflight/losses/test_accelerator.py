"""Losses between accelerators, against what real QEMU lost (``resaved.json``)."""

from __future__ import annotations

from dataclasses import replace

import pytest

import qmigtool
from qmigtool.findings import Severity
from qmigtool.preflight import Target
from qmigtool.rewrite import Rewriter, accelerators
from qmigtool.rewrite.accelerators import RULES
from tests.preflight.losses.lost import KVM_XCR0, VERSIONS, kvm, losses, only, rules, runs
from tests.support.paths import SAMPLES

LEGACY = {"env.fpuc", "env.fpus_vmstate", "env.fptag_vmstate", "env.mxcsr"}


@pytest.mark.parametrize("version", VERSIONS)
def test_kvm_initialised_what_tcg_had_not_declared(version: str) -> None:
    # What real QEMU did: x87, MXCSR and XMM came back as after a reset.
    changed = runs()[f"tcg-to-kvm-{version}"]["changed"]
    assert {f"cpu@0/{name}" for name in LEGACY} <= changed.keys()
    assert any(name.startswith("cpu@0/env.xmm_regs[0]") for name in changed)
    found = losses("twin-tcg-10.0", kvm(version))
    (undeclared,) = only(found, "undeclared-state")
    assert (undeclared.severity, undeclared.where) == (Severity.ERROR, "cpu@0/env.xstate_bv")
    assert "x87 SSE AVX" in undeclared.message
    assert {"undeclared-state", "x87-order", "pic-edge", "tsc"} == rules(found)


@pytest.mark.parametrize("version", VERSIONS)
def test_kvm_kept_what_was_converted(version: str) -> None:
    changed = runs()[f"tcg-to-kvm-converted-{version}"]["changed"]
    assert not {f"cpu@0/{name}" for name in LEGACY} & changed.keys()
    assert not any(name.startswith(("cpu@0/env.xmm_regs", "cpu@0/env.fpregs")) for name in changed)
    found = losses(
        "twin-tcg-10.0", kvm(version), lambda edits: edits.to_accelerator("kvm", xcr0=KVM_XCR0), accelerator="kvm"
    )
    assert not rules(found)


@pytest.mark.parametrize(
    ("path", "value", "group"),
    [
        ("env.xcr0", 0x43, "XCRs"),
        ("env.xcr0", 0x6, "XCRs"),
        ("env.xstate_bv", 0x207, "XSAVE"),
        ("env.mxcsr", 0xFFFFFFFF, "XSAVE"),
        ("env.cr[4]", 1 << 40, "special registers"),
        ("env.cr[0]", 0x80000032, "special registers"),
        ("env.mp_state", 77, "MP state"),
    ],
)
def test_groups_that_kvm_refuses_and_7_2_drops(path: str, value: int, group: str) -> None:
    # Cases K1 to K9: 7.2 loaded each without a word, and what it saved then differed; 10.0 and 11.1 ended.
    def spoil(edits: Rewriter) -> None:
        edits.to_accelerator("kvm", xcr0=KVM_XCR0)
        edits.set(f"cpu@0/{path}", value)

    (found,) = only(losses("twin-tcg-10.0", kvm("7.2"), spoil, accelerator="kvm"), "kvm-drops-registers")
    assert group in found.message
    assert found.path == path
    assert not only(losses("twin-tcg-10.0", kvm("10.0"), spoil, accelerator="kvm"), "kvm-drops-registers")


def test_the_pic_wedge_needs_an_in_kernel_pic() -> None:
    # kernel-irqchip=split: 6 of 6 loads went on without the edit.
    assert "pic-edge" in rules(losses("twin-tcg-10.0", kvm("10.0")))
    assert "pic-edge" not in rules(losses("twin-tcg-10.0", replace(kvm("10.0"), irqchip="split")))


def test_a_halted_vcpu_would_run() -> None:
    def halt(edits: Rewriter) -> None:
        edits.set("cpu_common@1/halted", 1)

    (found,) = only(losses("pc-7.2", kvm("7.2"), halt), "vcpu-run-state")
    assert (found.device, found.severity) == ("cpu@1", Severity.ERROR)


def test_an_address_that_no_wrmsr_takes() -> None:
    # Case K8: QEMU aborts.
    (found,) = only(
        losses("twin-tcg-10.0", kvm("10.0"), lambda edits: edits.set("cpu@0/env.kernelgsbase", 0x1122334455667788)),
        "non-canonical",
    )
    assert (found.severity, found.path) == (Severity.ERROR, "env.kernelgsbase")


def test_kvm_to_tcg() -> None:
    # Each was shown needed by a self-checking guest that failed without it.
    found = losses("twin-kvm-10.0", Target(accelerator="tcg"))
    assert rules(found) == {"hidden-flags", "tr-type", "pit-times", "tsc", "x87-order", "paravirtual"}
    converted = losses(
        "twin-kvm-10.0", Target(accelerator="tcg"), lambda edits: edits.to_accelerator("tcg"), accelerator="tcg"
    )
    assert not rules(converted)
    # Real TCG kept the registers all the same: what is wrong is what they mean.
    for version in VERSIONS:
        assert not any("fpregs" in name for name in runs()[f"kvm-to-tcg-without-kvmclock-{version}"]["changed"])


def test_registers_that_are_not_written_to_a_partition() -> None:
    def use(edits: Rewriter) -> None:
        edits.set("cpu@0/env.dr", [0x1000, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x401])
        edits.set("cpu@0/env.pat", 0x0407050600070106)
        edits.set("cpu@0/env.mp_state", 2)
        edits.add_subsection("cpu@0", "cpu/msr_hyperv_stimer", {})

    def fields(accelerator: str) -> set[str | None]:
        return {one.path for one in only(losses("kvm-avx512-7.2", Target(accelerator=accelerator), use), "not-written")}

    assert fields("mshv") == {"env.dr[7]", "env.mp_state", "cpu/msr_hyperv_stimer", "spurious_vec"}
    assert fields("whpx") == {"env.dr[7]", "env.pat", "env.mtrr_deftype", "cpu/msr_hyperv_stimer"}


@pytest.mark.parametrize(
    ("accelerator", "there"),
    [
        ("mshv", {"env.dr[7]", "spurious_vec", "cpu/msr_hyperv_synic", "cpu/msr_hyperv_time", "cpu/msr_hyperv_vapic"}),
        (
            "whpx",
            {
                *("env.dr[7]", "env.pat", "env.mtrr_deftype", "cpu/xss", "cpu/msr_hyperv_hypercall"),
                *("cpu/msr_hyperv_synic", "cpu/msr_hyperv_time", "cpu/msr_hyperv_vapic"),
            },
        ),
    ],
)
def test_conversion_and_losses_name_the_same_that_is_not_written(accelerator: str, there: set[str]) -> None:
    rest = {
        "mshv": {"env.mp_state", "cpu/msr_tscdeadline/env.tsc_deadline", "cpu/mpx/env.msr_bndcfgs"},
        "whpx": set(),
    }[accelerator]

    def use(edits: Rewriter) -> None:
        edits.set("cpu@0/env.dr", [0x1000, 0, 0, 0, 0, 0, 0xFFFF0FF0, 0x401])
        edits.set("cpu@0/env.pat", 0)  # no type but UC: a guest may want it, and a reset gives another
        edits.set("cpu@0/env.mp_state", 1)
        edits.add_subsection("cpu@0", "cpu/msr_tscdeadline", {"env.tsc_deadline": 5})
        edits.add_subsection("cpu@0", "cpu/mpx", {"env.msr_bndcfgs": 1})
        edits.add_subsection("cpu@0", "cpu/xss", {})
        for name in ("hypercall", "time", "synic", "vapic"):
            edits.add_subsection("cpu@0", f"cpu/msr_hyperv_{name}", {})

    found = losses("kvm-avx512-7.2", Target(accelerator=accelerator), use)
    written = only(found, "not-written")
    assert {one.path for one in written} == there | rest
    with qmigtool.open(SAMPLES / "kvm-avx512-7.2.mig") as stream:
        rewriter = Rewriter(stream, lossy=True)
        use(rewriter)
        rewriter.to_accelerator(accelerator)
        told = [
            note.partition("QEMU does not restore this state: ")[2]
            for note in rewriter.notes
            if note.endswith("(not-written)")
        ]
    # The conversion writes what is halted elsewhere, and says of the rest what the losses say.
    assert set(told) == {f"{one.message} (not-written)" for one in written}


def test_the_loss_of_a_rule_is_declared_with_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that is added or renamed needs no second table."""
    target = Target(accelerator="kvm", xcr0=KVM_XCR0, irqchip="on")
    before = losses("twin-tcg-10.0", target, accelerator="tcg").findings
    renamed = tuple(
        replace(rule, name="new", loss=rule.loss and rule.loss._replace(name="new-loss", severity=Severity.NOTE))
        if rule.name == "x87-to-stack"
        else rule
        for rule in RULES
    )
    monkeypatch.setattr(accelerators, "RULES", renamed)
    after = losses("twin-tcg-10.0", target, accelerator="tcg").findings
    (old,) = [one for one in before if one.rule == "x87-order"]
    assert replace(old, rule="new-loss", severity=Severity.NOTE) in after
    assert len(after) == len(before)
