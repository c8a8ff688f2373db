"""Losses because of the target's CPU, against what real QEMU lost (``resaved.json``)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

import qmigtool
from qmigtool.findings import Finding, Severity
from qmigtool.preflight import Target, read_targets
from qmigtool.rewrite import Rewriter
from tests.preflight.losses.lost import DATA, VERSIONS, Edits, kvm, losses, only, rules, runs
from tests.support.paths import SAMPLES


def test_xcr0_that_the_host_lacks() -> None:
    # 7.2 says nothing, and XCR0 and the MTRRs come back as after a reset; later ones end.
    silent = runs()["foreign-xcr0-to-kvm-7.2"]
    assert silent["loaded"]
    assert not silent["stderr"]
    assert {"cpu@0/env.xcr0", "cpu@0/env.mtrr_deftype", "cpu@0/env.mtrr_fixed"} <= silent["changed"].keys()
    assert not runs()["foreign-xcr0-to-kvm-10.0"]["loaded"]
    assert not runs()["foreign-xcr0-to-kvm-11.1"]["loaded"]
    found = only(losses("pc-7.2", kvm("7.2")), "xcr0-not-in-target")
    assert [one.device for one in found] == ["cpu@0", "cpu@1", "cpu@2"]  # vCPU 3 has enabled 0x7
    assert all(one.severity is Severity.ERROR and "BNDREGS BNDCSR PKRU" in one.message for one in found)
    with qmigtool.open(SAMPLES / "pc-7.2.mig") as stream:
        assert found[0].offset == stream.field("cpu@0/env.xcr0").offset


def test_avx512_under_tcg_is_kept_and_useless() -> None:
    for version in VERSIONS:
        assert runs()[f"avx512-to-tcg-{version}"]["changed"] == {}
    found = losses("kvm-avx512-7.2", Target(accelerator="tcg"))
    (component,) = only(found, "component-not-in-target")
    assert "opmask ZMM_Hi256 Hi16_ZMM live" in component.message
    assert "#UD" in component.reason
    assert not only(found, "cpuid-gated-subsection")


def _gated(edits: Rewriter) -> None:
    edits.add_subsection("cpu@0", "cpu/msr_xfd", {"env.msr_xfd": 0x40000})
    edits.add_subsection("cpu@0", "cpu/intel_amx_xtile")
    edits.set("cpu@0/cpu/intel_amx_xtile/env.xtilecfg", "hex:" + "01" * 64)
    edits.add_subsection("cpu@0", "cpu/pkru", {"env.pkru": 0x55555554})


@pytest.mark.parametrize("version", VERSIONS)
def test_subsections_that_tcg_does_not_send_again(version: str) -> None:
    changed = runs()[f"gated-to-tcg-{version}"]["changed"]
    gone = {name.removeprefix("cpu@0/") for name, (_, new) in changed.items() if new is None and name.count("/") == 2}
    found = only(losses("pc-7.2", Target(accelerator="tcg"), _gated), "cpuid-gated-subsection")
    assert {one.path for one in found} == gone == {"cpu/msr_xfd", "cpu/intel_amx_xtile"}
    assert all(one.severity is Severity.ERROR for one in found)


def test_a_gated_subsection_and_the_targets_features() -> None:
    def severity(target: Target, *, zeros: bool = False) -> Severity | None:
        edit = partial(_add_xfd, value=0 if zeros else 0x40000)
        found = only(losses("kvm-avx512-7.2", target, edit), "cpuid-gated-subsection")
        return found[0].severity if found else None

    assert severity(replace(kvm("10.0"), cpu_flags=frozenset({"xfd"}))) is None
    assert severity(replace(kvm("10.0"), cpu_flags=frozenset({"avx"}))) is Severity.ERROR
    assert severity(replace(kvm("10.0"), cpu_flags=frozenset({"avx"})), zeros=True) is Severity.NOTE
    # What is not known is no finding, but a doubt if something can be lost.
    assert severity(kvm("10.0")) is severity(kvm("10.0"), zeros=True) is None
    for zeros in (False, True):
        edit = partial(_add_xfd, value=0 if zeros else 0x40000)
        doubts = losses("kvm-avx512-7.2", kvm("10.0"), edit).doubts
        assert any("cpu/msr_xfd" in one.message for one in doubts) is not zeros


def _add_xfd(edits: Rewriter, value: int) -> None:
    edits.add_subsection("cpu@0", "cpu/msr_xfd", {"env.msr_xfd": value})


def test_features_that_the_guest_has_switched_on() -> None:
    # The guest is in long mode with CR4 0x40620: PAE, OSFXSR, OSXMMEXCPT (10) and OSXSAVE.
    flags = frozenset({"fxsr", "sse", "xsave", "pae", "lm", "syscall", "nx"})

    def found(flags: frozenset[str], *edits: Edits) -> list[Finding]:
        return only(losses("kvm-avx512-7.2", replace(kvm("7.2"), cpu_flags=flags), *edits), "cpu-feature-missing")

    assert not found(flags)
    (finding,) = found(flags - {"xsave"})
    assert "CR4 0x40620 uses xsave" in finding.message
    assert finding.severity is Severity.WARNING
    (finding,) = found(flags - {"lm"})
    assert (finding.path, "lm" in finding.message) == ("env.efer", True)
    # Case K4b: KVM took PKE from a CPU without PKU.
    (finding,) = found(flags, lambda edits: edits.set("cpu@0/env.cr[4]", 0x440620))
    assert "pku" in finding.message


def test_a_cpuid_dump_tells_of_what_it_shows_alone() -> None:
    def add(edits: Rewriter) -> None:
        edits.set("cpu@0/env.cr[4]", 0x440620)  # PKE
        edits.add_subsection("cpu@0", "cpu/msr_tsx_ctrl", {"env.tsx_ctrl": 1})

    target = replace(read_targets([str(SAMPLES / "cpuid" / "intel-spr-guest.txt")]), accelerator="kvm")
    found = losses("kvm-avx512-7.2", target, add)
    assert "uses pku" in only(found, "cpu-feature-missing")[0].message
    assert any("cpu/msr_tsx_ctrl" in one.message for one in found.doubts)  # tsx-ctrl is in an MSR, not in CPUID


def test_the_tscs_frequency() -> None:
    host = replace(kvm("7.2"), host_tsc_khz=3_000_000)
    (found,) = only(losses("kvm-avx512-7.2", host), "tsc-frequency")
    assert "2596138 kHz" in found.message
    assert not only(losses("kvm-avx512-7.2", replace(host, host_tsc_khz=2_596_000)), "tsc-frequency")  # 53 ppm
    assert any("2596138" in one.message for one in losses("kvm-avx512-7.2", kvm("7.2")).unknown)


def test_hyperv_state_without_enlightenments() -> None:
    def add(edits: Rewriter) -> None:
        edits.add_subsection("cpu@0", "cpu/msr_hyperv_hypercall", {"env.msr_hv_hypercall": 1})

    plain = replace(kvm("7.2"), cpu_flags=frozenset({"fxsr", "sse", "xsave"}))
    assert only(losses("kvm-avx512-7.2", plain, add), "hyperv-without-enlightenments")
    more = replace(plain, cpu_flags=frozenset({"fxsr", "sse", "xsave", "hv-time"}))
    assert not only(losses("kvm-avx512-7.2", more, add), "hyperv-without-enlightenments")


def test_what_a_partition_lacks() -> None:
    target = read_targets([str(DATA / "partition.txt"), "11.1"])
    found = losses("kvm-avx512-7.2", target)
    assert "component-not-in-target" not in rules(found)
    # QEMU 11.1.2 on a stand-in of /dev/mshv wrote no LAPIC page.
    (apic,) = only(found, "not-written")
    assert apic.device == "apic@0"
    narrow = losses("kvm-avx512-7.2", replace(target, xcr0=7))
    assert "opmask ZMM_Hi256 Hi16_ZMM live" in only(narrow, "component-not-in-target")[0].message


def test_amx_does_not_fit_mshvs_page() -> None:
    def add(edits: Rewriter) -> None:
        edits.add_subsection("cpu@0", "cpu/intel_amx_xtile")
        edits.set("cpu@0/cpu/intel_amx_xtile/env.xtilecfg", "hex:" + "01" * 64)

    found = losses("kvm-avx512-7.2", Target(accelerator="mshv", xsave_max=4096), add)
    assert only(found, "amx-on-mshv")


def test_an_area_that_is_too_large_for_a_partition() -> None:
    # Zen 4, compacted, 0xe7: 576 + 256 + 64 + 512 + 1024 = 2432 bytes.
    target = read_targets([str(DATA / "partition.txt"), "amd-zen4"])
    assert not only(losses("kvm-avx512-7.2", replace(target, xsave_max=2432)), "area-too-large")
    (found,) = only(losses("kvm-avx512-7.2", replace(target, xsave_max=2431)), "area-too-large")
    assert "2432 bytes" in found.message
