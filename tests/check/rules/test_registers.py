"""The rules about the registers of each vCPU."""

from __future__ import annotations

import pytest

from tests.check.checking import poked
from tests.check.rules.cases import KVM, PC, Case, check_case

CET = 1 << 23

CASES = (
    Case("cr0-legal", lambda: poked(KVM, {"cpu@0/env.cr[0]": 0x8000_0012}), [("error", "cpu@0/env.cr[0]")], KVM),
    Case("cr0-legal", lambda: poked(PC, {"cpu@2/env.cr[0]": 0x2000_0011}), [("error", "cpu@2/env.cr[0]")], PC),
    Case("cr0-legal", lambda: poked(PC, {"cpu@2/env.cr[0]": 0x1_6000_0013}), [("error", "cpu@2/env.cr[0]")], PC),
    Case(
        "cr4-legal", lambda: poked(PC, {"cpu@1/env.cr[4]": 0x60600}), [("error", "cpu@1/env.cr[4]")], PC, says="PCIDE"
    ),
    Case("cr4-legal", lambda: poked(KVM, {"cpu@0/env.cr[4]": 0x40620 | CET}), [("error", "cpu@0/env.cr[4]")], KVM),
    Case(
        "long-mode", lambda: poked(KVM, {"cpu@0/env.efer": 0x100}), [("error", "cpu@0/env.efer")], KVM, says="LMA is 0"
    ),
    Case("long-mode", lambda: poked(KVM, {"cpu@0/env.cr[4]": 0x40600}), [("error", "cpu@0/env.cr[4]")], KVM),
    Case("long-mode", lambda: poked(PC, {"cpu@0/env.efer": 0x400}), [("error", "cpu@0/env.efer")], PC, says="LMA is 1"),
    Case(
        "long-mode",
        lambda: poked("twin-kvm-10.0", {"cpu@0/env.efer": 0, "cpu@0/env.segs[1]/flags": 0xA09B00}),
        [("error", "cpu@0/env.segs[1]/flags")],
        "twin-kvm-10.0",
    ),
    Case("msr-canonical", lambda: poked(KVM, {"cpu@0/env.lstar": 1 << 60}), [("warning", "cpu@0/env.lstar")], KVM),
    Case("msr-canonical", lambda: poked(KVM, {"cpu@0/env.lstar": -1 << 56}), [], KVM),
    Case("msr-canonical", lambda: poked(PC, {"cpu@1/env.tr/base": 1 << 63}), [("warning", "cpu@1/env.tr/base")], PC),
    Case("mtrr-legal", lambda: poked(PC, {"cpu@1/env.mtrr_deftype": 2}), [("warning", "cpu@1/env.mtrr_deftype")], PC),
    Case(
        "mtrr-legal",
        lambda: poked(PC, {"cpu@1/env.mtrr_fixed[1]": 7 << 56}),
        [("warning", "cpu@1/env.mtrr_fixed[1]")],
        PC,
    ),
    Case(
        "mtrr-legal",
        lambda: poked(PC, {"cpu@1/env.mtrr_var[7]/mask": 0x801}),
        [("warning", "cpu@1/env.mtrr_var[7]/mask")],
        PC,
    ),
    Case("mtrr-legal", lambda: poked(PC, {"cpu@1/env.mtrr_var[7]/mask": 0x800}), [], PC),
    Case(
        "cr4-legal",
        lambda: poked(PC, {"cpu@1/env.cr[4]": 1 << 26 | 0x40620}),
        [("error", "cpu@1/env.cr[4]")],
        PC,
        says="reserved",
    ),
    Case("cr4-legal", lambda: poked(PC, {"cpu@1/env.cr[4]": 1 << 24 | 0x40620}), [], PC),  # TCG has PKS
    Case("cr4-legal", lambda: poked(KVM, {"cpu@0/env.cr[4]": 1 << 24 | 0x40620}), [("error", "cpu@0/env.cr[4]")], KVM),
    Case("msr-canonical", lambda: poked(KVM, {"cpu@0/env.lstar": (1 << 56) - 1}), [], KVM),
    Case("xcr0-osxsave", lambda: poked(PC, {"cpu@1/env.cr[4]": 0x600}), [("note", "cpu@1/env.cr[4]")], PC),
    Case("tr-busy", lambda: poked(KVM, {"cpu@0/env.tr/flags": 0x8900}), [("warning", "cpu@0/env.tr/flags")], KVM),
    Case(
        "tcg-hflags",
        lambda: poked(PC, {"cpu@1/env.xcr0": 3}),
        [("warning", "cpu@1/env.hflags")],
        PC,
        says="AVX_EN is set, but XCR0 is 0x3",
    ),
    Case("mp-state", lambda: poked(PC, {"cpu@2/env.mp_state": 5}), [("error", "cpu@2/env.mp_state")], PC),
    Case("mp-state", lambda: poked(PC, {"cpu@2/env.mp_state": 3}), [], PC),
    Case(
        "fpregs-format",
        lambda: poked(PC, {"cpu@0/env.fpregs_format_vmstate": 1}),
        [("error", "cpu@0/env.fpregs_format_vmstate")],
        PC,
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_rule(case: Case) -> None:
    check_case(case)
