"""What KVM refuses: the loader, the losses, the conversion and the checks say of one stream what real KVM said of it.

``CASES`` is what QEMU 10.0 and 11.1 printed on a Zen 4 with /dev/kvm (XCR0 mask 0xe7); 7.2 said nothing but of MSRs.
With QMIGTOOL_QEMU_NEW in the environment (a qemu-system-x86_64 of 10.0 or later) it is asked again.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

import qmigtool
from qmigtool import Rewriter
from qmigtool.check import findings_of
from qmigtool.errors import LiveStateError
from qmigtool.parsers.source import BufferSource
from qmigtool.preflight import Target
from qmigtool.preflight.loader.predict import Verdict, predict_source
from qmigtool.preflight.losses.find import find_losses
from qmigtool.rewrite.accelerators import convert
from qmigtool.x86 import kvm
from tests.check.checking import poked
from tests.preflight import recorded
from tests.support.qemu import incoming

SAMPLE = "twin-kvm-10.0"
HOST = 0xE7
CR0, CR3, CR4, EFER, CS = "env.cr[0]", "env.cr[3]", "env.cr[4]", "env.efer", "env.segs[1]/flags"
BV, MXCSR, XCR0, MP = "env.xstate_bv", "env.mxcsr", "env.xcr0", "env.mp_state"
LSTAR, CSTAR, KERNEL_GS = "env.lstar", "env.cstar", "env.kernelgsbase"
FLAT = {EFER: 0, CR0: 0x11, CS: 0xC09B00}  # protected mode without paging
SREGS, XSAVE, XCRS, MP_STATE = "special registers", "XSAVE", "XCRs", "MP state"


class Case(NamedTuple):
    """Fields of vCPU 0, the group (or the MSR) that real KVM refused for them, and the field that is to blame."""

    values: dict[str, int]
    group: str | int | None = None
    field: str | None = None
    host: bool = False  # only who knows the host's mask can say it


BAD = 0x8000_1F80
CASES = {
    "as it is": Case({}),
    "CR0 bit 32": Case({CR0: 0x1_8000_0033}, SREGS, CR0),
    "CR0 bit 6": Case({CR0: 0x8000_0073}),  # ignored
    "PG without PE": Case({CR0: 0x8000_0032}, SREGS, CR0),
    "NW without CD": Case({CR0: 0xA000_0033}, SREGS, CR0),
    "CR3 bit 52": Case({CR3: 1 << 52}, SREGS, CR3),
    "CR3 bit 63": Case({CR3: 1 << 63}, SREGS, CR3),
    "CR3 bit 60 without paging": Case({**FLAT, CR3: 1 << 60}),
    **{
        f"CR4 bit {bit}": Case({CR4: 0x40620 | 1 << bit}, SREGS, CR4)
        for bit in (14, 15, 19, 24, 25, 26, 29, 31, 33, 63)
    },
    **{f"CR4 bit {bit}": Case({CR4: 0x40620 | 1 << bit}) for bit in (11, 16, 20, 21, 22)},
    "no PAE": Case({CR4: 0x40600}, SREGS, CR4),
    "no LMA": Case({EFER: 0x100}, SREGS, EFER),
    "no LME": Case({EFER: 0x400}, SREGS, EFER),
    "LMA without PG": Case({EFER: 0x500, CR0: 0x11}, SREGS, EFER),
    "protected mode": Case(FLAT),
    "64-bit CS outside of long mode": Case({EFER: 0, CR0: 0x11}, SREGS, CS),
    "64-bit CS in virtual 8086 mode": Case({EFER: 0, CR0: 0x11, "env.eflags": 0x20002}),
    "EFER bit 20": Case({EFER: 0x501 | 1 << 20}),
    "MXCSR, nothing declared": Case({MXCSR: BAD, BV: 0}),
    "MXCSR, x87 declared": Case({MXCSR: BAD, BV: 1}, XSAVE, MXCSR),
    "MXCSR, SSE declared": Case({MXCSR: BAD, BV: 2}, XSAVE, MXCSR),
    "MXCSR, AVX declared": Case({MXCSR: BAD, BV: 4}, XSAVE, MXCSR),
    "MXCSR, AVX-512 declared": Case({MXCSR: BAD, BV: 0xE0}),
    "MXCSR bit 16": Case({MXCSR: 0x11F80}, XSAVE, MXCSR),
    "XSTATE_BV 0xe7": Case({BV: 0xE7}),
    "XSTATE_BV PKRU": Case({BV: 0x207}, XSAVE, BV, host=True),
    "XSTATE_BV AMX": Case({BV: 0x60007}, XSAVE, BV, host=True),
    "XSTATE_BV CET": Case({BV: 0x807}, XSAVE, BV),
    "XSTATE_BV bit 63": Case({BV: 1 << 63 | 7}, XSAVE, BV),
    **{f"XCR0 {value:#x}": Case({XCR0: value}) for value in (1, 3, 7, 0xE7)},
    **{
        f"XCR0 {value:#x}": Case({XCR0: value}, XCRS, XCR0)
        for value in (0, 2, 5, 6, 0x23, 0x43, 0xE3, 0xE5, 0xF, 0x107, 0x807, 0x20007, 1 << 63 | 7)
    },
    "XCR0 PKRU": Case({XCR0: 0x207}, XCRS, XCR0, host=True),
    "XCR0 APX": Case({XCR0: 0x80007}, XCRS, XCR0, host=True),
    "LSTAR": Case({LSTAR: 0x1122_3344_5566_7788}, 0xC0000082, LSTAR),
    "CSTAR": Case({CSTAR: 1 << 63}, 0xC0000083, CSTAR),
    "kernel GS base": Case({KERNEL_GS: 1 << 60}, 0xC0000102, KERNEL_GS),
    "three MSRs": Case({LSTAR: 1 << 60, CSTAR: 1 << 60, KERNEL_GS: 1 << 60}, 0xC0000083, CSTAR),
    "upper half": Case({LSTAR: -1 << 47 & (1 << 64) - 1}),
    "MTRR default type 2": Case({"env.mtrr_deftype": 2}, 0x2FF, "env.mtrr_deftype"),
    "MTRR default bit 8": Case({"env.mtrr_deftype": 0x106}, 0x2FF, "env.mtrr_deftype"),
    "MTRR default off": Case({"env.mtrr_deftype": 0}),
    "fixed MTRR": Case({"env.mtrr_fixed[10]": 2}, 0x26F, "env.mtrr_fixed[10]"),
    "fixed MTRR's last byte": Case({"env.mtrr_fixed[0]": 2 << 56}, 0x250, "env.mtrr_fixed[0]"),
    "variable MTRR's type": Case({"env.mtrr_var[0]/base": 7}, 0x200, "env.mtrr_var[0]/base"),
    "variable MTRR's base": Case({"env.mtrr_var[0]/base": 1 << 52}, 0x200, "env.mtrr_var[0]/base"),
    "variable MTRR's mask": Case({"env.mtrr_var[0]/mask": 0x400}, 0x201, "env.mtrr_var[0]/mask"),
    "variable MTRR's high mask": Case({"env.mtrr_var[0]/mask": 1 << 63 | 0x800}),
    **{f"mp_state {value}": Case({MP: value}) for value in (0, 1, 2, 3, 4, 9)},
    **{f"mp_state {value}": Case({MP: value}, MP_STATE, MP) for value in (5, 6, 7, 8, 10, 11, 77)},
    "special registers before XSAVE": Case({CR0: 0x8000_0032, MXCSR: BAD}, SREGS, CR0),
    "XSAVE before XCR0": Case({MXCSR: BAD, XCR0: 5}, XSAVE, MXCSR),
    "XCR0 before MSRs": Case({XCR0: 5, LSTAR: 1 << 60}, XCRS, XCR0),
    "MSRs before mp_state": Case({LSTAR: 1 << 60, MP: 5}, 0xC0000082, LSTAR),
    "addresses before MTRRs": Case({LSTAR: 1 << 60, "env.mtrr_deftype": 2}, 0xC0000082, LSTAR),
}
RULES = {SREGS: "kvm-sregs", XSAVE: "kvm-xsave", XCRS: "kvm-xcr0", MP_STATE: "kvm-mp-state"}
CHECKS = {
    *("cr0-legal", "cr4-legal", "long-mode", "msr-canonical", "mtrr-legal"),
    *("mp-state", "xcr0-legal", "xstate-bv-legal", "mxcsr-reserved"),
}


def stream(case: Case) -> bytes:
    return poked(SAMPLE, {f"cpu@0/{path}": value for path, value in case.values.items()})


def predicted(data: bytes, qemu: str, **parts: object) -> Verdict:
    target = replace(recorded.target("t39", qemu), accelerator="kvm", xcr0=HOST, **parts)  # type: ignore[arg-type]
    return predict_source(BufferSource(data), target)


@pytest.mark.parametrize("name", CASES)
def test_all_say_what_kvm_said(name: str) -> None:
    case = CASES[name]
    data = stream(case)
    # The loader, of a QEMU that ends and of one that is silent but for MSRs.
    verdict = predicted(data, "10.0")
    assert verdict.loads is (case.group is None)
    silent = predicted(data, "7.2")
    assert silent.loads is not isinstance(case.group, int)
    if isinstance(case.group, int):
        assert verdict.rule == "kvm-msr"
        assert verdict.errors[0].startswith(f"error: failed to set MSR {case.group:#x} to ")
    elif case.group is not None:
        assert verdict.rule == RULES[case.group]
        assert verdict.errors == (f"Putting registers after init: Failed to set {case.group}: Invalid argument",)
    dropped = [note for note in silent.notes if "7.2 silently drops" in note.message]
    assert len(dropped) == isinstance(case.group, str)
    with qmigtool.open(data) as found:
        # The losses: where 7.2 is silent, and nowhere else.
        losses = find_losses(found, Target(accelerator="kvm", xcr0=HOST, qemu=(7, 2))).findings
        fields = [one.path for one in losses if one.rule == "kvm-drops-registers"]
        assert fields == ([case.field] if isinstance(case.group, str) else [])
        # The checks.
        checks = {one.path for one in findings_of(found) if one.rule in CHECKS}
        assert (case.field in checks) is (case.group is not None and not case.host)
        assert bool(checks) is (case.group is not None and not case.host)
    # The conversion, from another accelerator.
    with qmigtool.open(data, accelerator="hvf") as found:
        try:
            convert(Rewriter(found).draft, "kvm")
            refused = None
        except LiveStateError as error:
            refused = error.message
    # It declares SSE where MXCSR is not the initial one, and so what is wrong with it.
    expected = (case.group is not None and not case.host) or MXCSR in case.values
    assert (refused is not None) is expected
    assert refused is None or "(rule illegal-registers)" in refused


@pytest.mark.qemu
@pytest.mark.kvm
@pytest.mark.skipif("QMIGTOOL_QEMU_NEW" not in os.environ, reason="QMIGTOOL_QEMU_NEW names no newer QEMU")
def test_kvm_still_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMIGTOOL_QEMU", os.environ["QMIGTOOL_QEMU_NEW"])
    options = "-nodefaults -serial null -accel kvm -M pc-i440fx-7.2 -cpu max -m 16"
    path = tmp_path / "vm.mig"
    for name, case in CASES.items():
        path.write_bytes(stream(case))
        real = incoming.load(path, options.split())
        text = "\n".join(real.lines)
        if case.host and real.loaded:
            continue  # a host that has the component
        assert real.loaded is (case.group is None), (name, text)
        if case.group is not None:
            says = f"set MSR {case.group:#x} " if isinstance(case.group, int) else f"set {case.group}:"
            assert f"ailed to {says}" in text, name


# -- what depends on the host, and what KVM takes and no CPU runs ----------------------------------------------------


@pytest.mark.parametrize("values", [{LSTAR: 1 << 50}, {MXCSR: 0x21F80}])
def test_what_some_hosts_take_is_unknown(values: dict[str, int]) -> None:
    """The Zen 4 took the address, without LA57, and not MXCSR's bit 17, which AMD has."""
    data = stream(Case(values))
    verdict = predicted(data, "10.0")
    assert verdict.loads is None
    assert any("the target's KVM decides it" in one.message for one in verdict.unknown)
    with qmigtool.open(data) as found:
        assert not {one.rule for one in findings_of(found)} & CHECKS
        assert not find_losses(found, Target(accelerator="kvm", xcr0=HOST, qemu=(7, 2))).findings
        (refusal,) = kvm.refusals(found.vcpus[0].device.number)
        assert not refusal.certain


@pytest.mark.parametrize(
    "path", ["env.sysenter_eip", "env.tr/base", "env.gdt/base", "env.ldt/base", "env.segs[4]/base", "env.segs[0]/base"]
)
def test_addresses_that_kvm_takes(path: str) -> None:
    """QEMU 10.0 and 11.1 loaded each with 0x1122334455667788 in it."""
    data = stream(Case({path: 0x1122_3344_5566_7788}))
    assert predicted(data, "10.0").loads is True
    with qmigtool.open(data) as found:
        assert [one.path for one in findings_of(found) if one.rule in CHECKS] == [path]
        assert not list(kvm.refusals(found.vcpus[0].device.number, HOST))


def test_without_a_mask_only_what_no_host_takes_is_refused() -> None:
    for values, refused in (({BV: 0x207}, False), ({BV: 0x807}, True), ({XCR0: 0x207}, False), ({XCR0: 0x107}, True)):
        with qmigtool.open(stream(Case(values))) as found:
            assert bool(list(kvm.refusals(found.vcpus[0].device.number))) is refused


def test_what_goes_with_a_group() -> None:
    """QEMU 7.2, asked for the registers afterwards: with the special ones RIP was gone, with XSAVE it was not."""
    assert kvm.lost_with(kvm.Group.SREGS).startswith("the special registers, the general registers, the XSAVE state")
    assert kvm.lost_with(kvm.Group.MP_STATE) == "mp_state, the debug registers"
