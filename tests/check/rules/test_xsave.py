"""The rules about the extended state of each vCPU: cases, variants, and what is healthy."""

from __future__ import annotations

import pytest

from tests.check.checking import edited, found, places, poked, sample
from tests.check.rules.cases import KVM, PC, Case, check_case
from tests.rewrite.editing import rewritten
from tests.support import casefiles

CET_GUEST = casefiles.read("xsave", "cet-guest.mig")  # XSS 0x1800, CR4.CET 0, CET_U and CET_S live
CR4 = 0x40620
XFD, BV = "cpu@0/cpu/msr_xfd/env.msr_xfd", "cpu@0/env.xstate_bv"


CASES = (
    Case(
        "xfd-component-declared",
        lambda: casefiles.read("xsave", "xfd.mig"),
        [("error", "cpu@0/cpu/msr_xfd/env.msr_xfd")],
        KVM,
        says="IA32_XFD is 0x40000, but XSTATE_BV 0x600e7 declares XTILEDATA",
    ),
    Case(
        "cet-in-xss",
        lambda: casefiles.read("xsave", "cetz.mig"),
        [("warning", "cpu@0/cpu/cet/env.u_cet")],
        PC,
        says="CET_U is live, but IA32_XSS is 0x0",
    ),
    Case(
        "x87-overwritten",
        lambda: casefiles.read("xsave", "qemu-11.1.3-mshv-cet.mig"),
        [("error", "cpu@0/env.fpuc")],
        KVM,
        says="FCW is 0xc176 and FOP is 0xeda5",
    ),
    Case("mxcsr-reserved", lambda: poked(KVM, {"cpu@0/env.mxcsr": 1 << 16, "cpu@0/env.xstate_bv": 0xE0}), [], KVM),
    Case("xcr0-legal", lambda: poked(KVM, {"cpu@0/env.xcr0": 0xE6}), [("error", "cpu@0/env.xcr0")], KVM, says="x87"),
    Case("xcr0-legal", lambda: poked(KVM, {"cpu@0/env.xcr0": 0xE5}), [("error", "cpu@0/env.xcr0")] * 2, KVM),
    Case("xcr0-legal", lambda: poked(KVM, {"cpu@0/env.xcr0": 0xA7}), [("error", "cpu@0/env.xcr0")], KVM),
    Case("xcr0-legal", lambda: poked(PC, {"cpu@3/env.xcr0": 0xF}), [("error", "cpu@3/env.xcr0")], PC, says="BNDCSR"),
    Case("xcr0-legal", lambda: poked(PC, {"cpu@3/env.xcr0": 0x20007}), [("error", "cpu@3/env.xcr0")], PC, says="XTILE"),
    Case(
        "xss-legal",
        lambda: edited(PC, lambda r: r.add_subsection("cpu@0", "cpu/xss", {"env.xss": 0x204})),
        [("error", "cpu@0/cpu/xss/env.xss")],
        PC,
        says="AVX PKRU",
    ),
    Case(
        "xstate-bv-legal",
        lambda: poked(KVM, {"cpu@0/env.xstate_bv": 0x80000000001000E7}),
        [("error", "cpu@0/env.xstate_bv")],
        KVM,
        says="bit20 bit63",
    ),
    Case("xstate-bv-legal", lambda: poked(KVM, {"cpu@0/env.xstate_bv": 0x18E7}), [], KVM, accelerator="mshv"),
    Case(
        "xstate-bv-legal", lambda: poked(KVM, {"cpu@0/env.xstate_bv": 0x18E7}), [("error", "cpu@0/env.xstate_bv")], KVM
    ),
    Case(
        "xstate-bv-within-xcr0",
        lambda: poked(KVM, {"cpu@0/env.xcr0": 7}),
        [("warning", "cpu@0/env.xstate_bv")],
        KVM,
        says="opmask ZMM_Hi256 Hi16_ZMM is not enabled",
    ),
    Case("xstate-bv-within-xcr0", lambda: poked("twin-kvm-10.0", {"cpu@0/env.xstate_bv": 3}), [], "twin-kvm-10.0"),
    Case(
        "live-state-declared",
        lambda: poked(KVM, {"cpu@0/env.xstate_bv": 0xE3}),
        [("warning", "cpu@0/env.xstate_bv")],
        KVM,
        says="but AVX differs",
    ),
    Case("live-state-declared", lambda: sample(PC), [], KVM),
    Case(
        "tcg-state-undeclared",
        lambda: sample("twin-tcg-10.0"),
        [("warning", "cpu@0/env.xstate_bv")],
        "twin-kvm-10.0",
        '[rules.tcg-state-undeclared]\nseverity = "warning"',
    ),
    Case(
        "live-state-enabled",
        lambda: poked(PC, {"cpu@1/env.xcr0": 3}),
        [("warning", "cpu@1/env.xcr0")],
        PC,
        says="but AVX differs",
    ),
    Case("mxcsr-reserved", lambda: poked(PC, {"cpu@1/env.mxcsr": 0x11F80}), [("error", "cpu@1/env.mxcsr")], PC),
    Case("mxcsr-reserved", lambda: poked(PC, {"cpu@1/env.mxcsr": 0x21F80}), [], PC),
    Case(
        "components",
        lambda: sample(PC),
        [("error", f"cpu@{n}/env.xcr0") for n in (0, 1, 2)],
        KVM,
        '[rules.components]\nforbidden = ["PKRU"]',
    ),
    Case(
        "components",
        lambda: edited(PC, lambda r: r.add_subsection("cpu@3", "cpu/intel_amx_xtile")),
        [("error", "cpu@3")] * 2,
        PC,
        '[rules.components]\nforbidden = "amx"',
        says="XTILECFG is carried in a subsection",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_rule(case: Case) -> None:
    check_case(case)


def with_xfd(xfd: int, more: int) -> bytes:
    def edit(r):
        r.add_subsection("cpu@0", "cpu/msr_xfd", {"env.msr_xfd": xfd})
        r.set(BV, 0xE7 | more)

    return edited(KVM, edit)


@pytest.mark.parametrize(
    ("xfd", "more", "hits"),
    [(1 << 18, 1 << 18, 1), (1 << 18, 1 << 17, 0), (0, 3 << 17, 0), (1 << 18, 0, 0), (1 << 9, 1 << 9, 0)],
)
def test_xfd_and_xstate_bv(xfd, more, hits):
    """Only XTILEDATA can be disabled by XFD; either of the two alone is as a guest has it."""
    assert len(places(found(with_xfd(xfd, more)), "xfd-component-declared")) == hits


@pytest.mark.parametrize(
    ("cr4", "xss", "says"),
    [
        (CR4 | 1 << 23, 0x1800, None),
        (CR4 | 1 << 23, 0x800, None),  # a kernel may change the supervisor pointers itself
        (CR4 | 1 << 23, 0x1000, "CET_U is live, but IA32_XSS is 0x1000"),
        (CR4 | 1 << 23, 0x8000, "CET_U CET_S is live, but IA32_XSS is 0x8000"),
        (CR4, 0, None),  # CET is off
    ],
)
def test_cet_and_xss(cr4, xss, says):
    def put(r):
        r.set("cpu@0/env.cr[4]", cr4)
        r.set("cpu@0/cpu/xss/env.xss", xss)

    data = rewritten(CET_GUEST, put).data
    messages = [finding.message for finding in found(data, accelerator="mshv") if finding.rule == "cet-in-xss"]
    assert bool(messages) == (says is not None)
    assert says is None or says in messages[0]


def x87(fcw, fsw, ftw, fop, fip, fdp):
    names = ("env.fpuc", "env.fpus_vmstate", "env.fptag_vmstate")
    return {
        **dict(zip((f"cpu@0/{name}" for name in names), (fcw, fsw, ftw), strict=True)),
        "cpu@0/cpu/fpop_ip_dp/env.fpop": fop,
        "cpu@0/cpu/fpop_ip_dp/env.fpip": fip,
        "cpu@0/cpu/fpop_ip_dp/env.fpdp": fdp,
    }


# U_CET 3, PL3_SSP 0x7fff0000; PL0_SSP 0xfeed0000, PL1_SSP 0x1111, PL2_SSP 0x2222: the bytes in an area, read as x87's
@pytest.mark.parametrize(
    ("registers", "says"),
    [
        (x87(0, 0xFEED, 0, 0, 0x1111, 0x2222), "x87 bytes 0 to 23 are the 24 bytes of CET_S"),
        (x87(3, 0, 0, 0, 0x7FFF0000, 0x123456), "x87 bytes 0 to 15 are the 16 bytes of CET_U"),
        (x87(0x37F, 0, 0, 0x800, 0, 0), "FOP is 0x800"),
        (x87(0x33F, 0, 0, 0, 0, 0), "FCW is 0x33f"),
        (x87(0x37F, 0xFEED, 0, 0x7FF, 0x1111, 0x2222), None),
        (x87(0x40, 0, 0, 0, 0, 0), None),
        (x87(0x1F7F, 0xFFFF, 0xFF, 0x7FF, (1 << 64) - 1, (1 << 64) - 1), None),
    ],
)
def test_x87_under_cet(registers, says):
    def put(r):
        if r.draft.section("cpu@0").device.get("cpu/fpop_ip_dp") is None:
            r.add_subsection("cpu@0", "cpu/fpop_ip_dp")
        for path, value in registers.items():
            r.set(path, value)

    for accelerator, hits in (("mshv", says is not None), ("kvm", says is not None), ("tcg", False)):
        data = rewritten(CET_GUEST, put).data
        messages = [one.message for one in found(data, accelerator=accelerator) if one.rule == "x87-overwritten"]
        assert bool(messages) == hits
        assert not hits or says in messages[0]


def test_stale_x87_bytes_are_nobodys():
    """XSTATE_BV[0] is 0: a hypervisor left the legacy region alone, and a load initialises x87."""

    def put(r):
        r.set("cpu@0/env.fpuc", 0)
        r.set(BV, 0xE6)

    assert not places(found(rewritten(CET_GUEST, put).data, accelerator="mshv"), "x87-overwritten")
    assert places(
        found(rewritten(CET_GUEST, lambda r: r.set("cpu@0/env.fpuc", 0)).data, accelerator="mshv"), "x87-overwritten"
    )


@pytest.mark.parametrize("name", ["cet7.mig", "cet-guest.mig", "cetz.mig", "xfd.mig"])
def test_each_rule_is_silent_on_the_others_cases(name):
    rules = {finding.rule for finding in found(casefiles.read("xsave", name))}
    mine = {"cetz.mig": {"cet-in-xss"}, "xfd.mig": {"xfd-component-declared"}}.get(name, set())
    assert rules - {"kvmclock-sent"} == mine
