"""What would be lost in silence, against what real QEMU lost (``resaved.json``)."""

from __future__ import annotations

import functools
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

import qmigtool
from qmigtool.findings import Finding, Severity
from qmigtool.findings.text import sentence
from qmigtool.preflight import Target, TargetBlock, read_targets
from qmigtool.preflight.losses.find import Losses, find_losses, grouped
from qmigtool.preflight.target.reference import target_from_stream
from qmigtool.rewrite import Rewriter, accelerators
from qmigtool.rewrite.accelerators import RULES
from tests.ram import test_unplugged as unplugged
from tests.stream import test_missing as missing
from tests.support import paths
from tests.support.paths import SAMPLES

DATA = paths.DATA / "preflight" / "targets"
VERSIONS = ("7.2", "10.0", "11.1")
KVM_XCR0 = 0xE7  # of the host on which the runs were made

Edits = Callable[[Rewriter], object]


@functools.cache
def runs() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DATA / "resaved.json").read_text())
    return dict(document["runs"])


def losses(file: str, target: Target, *edits: Edits, accelerator: str | None = None) -> Losses:
    with qmigtool.open(SAMPLES / f"{file}.mig") as stream:
        if not edits:
            return find_losses(stream, target)
        rewriter = Rewriter(stream, lossy=True)
        for make in edits:
            make(rewriter)
        out = io.BytesIO()
        rewriter.write(out)
    with qmigtool.open(out.getvalue(), accelerator=accelerator) as stream:
        return find_losses(stream, target)


def rules(found: Losses, *, notes: bool = False) -> set[str]:
    return {one.rule for one in found.findings if notes or one.severity is not Severity.NOTE}


def only(found: Losses, rule: str) -> list[Finding]:
    return [one for one in found.findings if one.rule == rule]


def kvm(version: str) -> Target:
    return Target(accelerator="kvm", xcr0=KVM_XCR0, xss=0, qemu=tuple(map(int, version.split("."))))


# -- from TCG to KVM -------------------------------------------------------------------------------------------------

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


# -- from KVM to TCG -------------------------------------------------------------------------------------------------


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


def test_avx512_under_tcg_is_kept_and_useless() -> None:
    for version in VERSIONS:
        assert runs()[f"avx512-to-tcg-{version}"]["changed"] == {}
    found = losses("kvm-avx512-7.2", Target(accelerator="tcg"))
    (component,) = only(found, "component-not-in-target")
    assert "opmask ZMM_Hi256 Hi16_ZMM live" in component.message
    assert "#UD" in component.reason
    assert not only(found, "cpuid-gated-subsection")


# -- what CPUID decides ----------------------------------------------------------------------------------------------


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


# -- Hyper-V ---------------------------------------------------------------------------------------------------------


def test_what_a_partition_lacks() -> None:
    target = read_targets([str(DATA / "partition.txt"), "11.1"])
    found = losses("kvm-avx512-7.2", target)
    assert "component-not-in-target" not in rules(found)
    # QEMU 11.1.2 on a stand-in of /dev/mshv wrote no LAPIC page.
    (apic,) = only(found, "not-written")
    assert apic.device == "apic@0"
    narrow = losses("kvm-avx512-7.2", replace(target, xcr0=7))
    assert "opmask ZMM_Hi256 Hi16_ZMM live" in only(narrow, "component-not-in-target")[0].message


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


# -- what is missing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_what_real_qemu_had_and_the_file_lacked(version: str) -> None:
    run = runs()[f"missing-{version}"]
    assert run["loaded"]

    def drop(edits: Rewriter) -> None:
        for name in ("hpet", "timer", "cpu@1", "globalstate"):
            edits.drop_section(name)
        edits.drop_block("pc.bios")

    with qmigtool.open(SAMPLES / "pc-7.2.mig") as stream:
        target = target_from_stream(stream)
    found = losses("pc-7.2", target, drop)
    missing = {one.device: one.severity for one in only(found, "missing-section")}
    assert sorted(missing, key=str) == run["sections_new"]
    assert missing == {
        "cpu@1": Severity.WARNING,
        "timer@0": Severity.WARNING,
        "hpet@0": Severity.NOTE,
        "globalstate@0": Severity.NOTE,
    }
    assert [(one.device, one.severity) for one in only(found, "missing-block")] == [("pc.bios", Severity.NOTE)]


def test_a_section_by_its_compat_name_or_an_alias_is_not_missing() -> None:
    # Cases C17 and C19.
    def rename(edits: Rewriter) -> None:
        edits.rename_section("0000:00:01.1/ide", "ide")
        edits.rename_section("hpet", "hpet", 0xFFFFFFFF)

    with qmigtool.open(SAMPLES / "pc-7.2.mig") as stream:
        target = target_from_stream(stream)
    assert not only(losses("pc-7.2", target, rename), "missing-section")


def test_main_memory_that_is_missing_is_no_note() -> None:
    target = Target(blocks={"mem1": TargetBlock(0x1000), "x.rom": TargetBlock(0x1000)})
    found = {one.device: one.severity for one in only(losses("pc-7.2", target), "missing-block")}
    assert found == {"mem1": Severity.WARNING, "x.rom": Severity.NOTE}


def packed(name: str) -> qmigtool.Stream:
    return qmigtool.open(lzma.decompress((SAMPLES / "packed" / f"{name}.mig.xz").read_bytes()))


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("multifd-zlib-7.2", Severity.ERROR),  # 348 of 4178 pages were non-zero, and travelled in two other channels
        ("multifd-none-11.1", Severity.ERROR),  # since 9.0 also zero pages do
        ("postcopy-preempt-7.2", Severity.ERROR),
        ("vmem-11.1", None),  # 128 MiB, of which 64 are not plugged
        ("plain-7.2", None),
        ("xbzrle-7.2", None),
    ],
)
def test_memory_that_went_another_way(name: str, lost: Severity | None) -> None:
    with packed(name) as stream:
        found = only(find_losses(stream, target_from_stream(stream)), "missing-pages")
    assert [one.severity for one in found] == ([] if lost is None else [lost])


@pytest.mark.parametrize(
    ("data", "lost", "says"),
    [
        # A main channel of multifd with virtio-mem: of 25 pages of the guest, 24 are plugged and not here.
        (unplugged.stream(unplugged.early(), sent=()), Severity.ERROR, "24 of 25 pages of memory are missing"),
        (unplugged.stream(unplugged.body(), sent=()), Severity.ERROR, "24 of 25 pages of memory are missing"),
        (unplugged.stream(unplugged.early()), None, ""),
        (missing.written(), Severity.ERROR, "4 of 8 pages of memory are missing"),
        (missing.written("x/virtio-mem"), Severity.NOTE, "virtio-mem may not have plugged them"),  # not readable
        (missing.written("x/virtio-balloon"), Severity.NOTE, "balloon"),
        (missing.written("x/virtio-balloon", whole=False), Severity.ERROR, "4 of 8 pages of memory are missing"),
    ],
)
def test_memory_is_missing_as_everywhere_else(data: bytes, lost: Severity | None, says: str) -> None:
    with qmigtool.open(bytes(data)) as stream:
        found = only(find_losses(stream, Target()), "missing-pages")
    assert [one.severity for one in found] == ([] if lost is None else [lost])
    assert all(says in one.message for one in found)


def test_the_same_target_loses_nothing() -> None:
    for name in ("pc-7.2", "q35-7.2", "pc-11.1", "microvm-10.0", "kvm-avx512-7.2", "twin-kvm-10.0"):
        with qmigtool.open(SAMPLES / f"{name}.mig") as stream:
            target = target_from_stream(stream)
            assert find_losses(stream, target).findings == ()


def test_another_architecture_is_not_judged_by_x86() -> None:
    assert losses("arm-7.2", Target(accelerator="kvm", xcr0=7)).findings == ()


def test_what_is_not_known_is_said() -> None:
    unknown = " ".join(map(sentence, losses("pc-7.2", Target()).unknown))
    for word in ("sections", "XCR0", "accelerator", "features"):
        assert word in unknown
    assert "hvf" in " ".join(map(sentence, losses("pc-7.2", Target(accelerator="hvf")).unknown))


def test_findings_of_many_vcpus_are_one_for_people() -> None:
    one = Finding("r", Severity.ERROR, "m", "why", device="cpu@0", path="f", offset=5)
    many = [replace(one, device=f"cpu@{number}", offset=number) for number in (0, 1, 2, 5, 7, 8)]
    assert [(found.where, found.offset) for found in grouped(many)] == [("cpu@0-2,5,7-8/f", 0)]
    assert grouped([one, replace(one, message="other")]) == [one, replace(one, message="other")]
    assert grouped([replace(one, device="pc.ram"), replace(one, device="pc.rom")]) == [
        replace(one, device="pc.ram"),
        replace(one, device="pc.rom"),
    ]
