"""Every rule finds what it is for on a changed real stream, at the right place, and nothing on the stream as it was."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import qmigtool
from qmigtool.check import RULES, default_policy, findings_of
from qmigtool.diff import Comparison, Difference
from qmigtool.diff import DifferenceKind as Change
from qmigtool.findings import Severity
from qmigtool.parsers.section import Type
from tests.check.checking import edited, found, places, poked, sample
from tests.fleet import packed
from tests.support import casefiles, packedsamples, samplefiles

KVM, PC, Q35 = "kvm-avx512-7.2", "pc-7.2", "q35-7.2"


class Case(NamedTuple):
    rule: str
    make: Callable[[], bytes]
    places: list[tuple[str, str]]
    healthy: str
    policy: str | None = None
    accelerator: str | None = None
    says: str = ""


def with_garbage(data: bytes) -> Callable[[], bytes]:
    return lambda: sample(PC) + bytes(100) + data


def renamed(name: str, old: bytes, new: bytes) -> Callable[[], bytes]:
    """A sample with the first idstr ``old`` of its device sections changed, not that in the vmdesc."""

    def make() -> bytes:
        data = sample(name)
        at = data.index(bytes([len(old)]) + old)
        return data[: at + 1] + new + data[at + 1 + len(old) :]

    return make


def ram_version() -> bytes:
    """RAM version 5: be32 behind type, section id, the counted name and the instance."""
    data = bytearray(sample(PC))
    with qmigtool.open(sample(PC)) as stream:
        start = next(s.offset for s in stream.sections if s.type is Type.START and s.name == "ram")
    assert data[start + 5 : start + 9] == b"\x03ram"
    struct.pack_into(">I", data, start + 13, 5)
    return bytes(data)


def without_block() -> bytes:
    """No page of /rom@etc/acpi/rsdp: its one record, with its name, is taken out of the PART that has it."""
    data = sample(PC)
    name = b"/rom@etc/acpi/rsdp"
    at = data.index(bytes([len(name)]) + name, data.index(name) + 30)  # behind the list of blocks
    (word,) = struct.unpack(">Q", data[at - 8 : at])
    assert word & 0xFFF == 0x08  # a page, the first of its block
    return data[: at - 8] + data[at + 1 + len(name) + 4096 :]


def version_of_hpet() -> bytes:
    data = bytearray(sample(PC))
    at = data.index(b"\x04hpet") + 5 + 4
    assert data[at : at + 4] == b"\0\0\0\2"
    data[at + 3] = 9
    return bytes(data)


def dma_twice() -> bytes:
    """The second DMA controller is called dma@0, too."""
    data = bytearray(sample(PC))
    at = data.index(b"\x03dma\0\0\0\1\0\0\0\1")
    data[at + 7] = 0
    return bytes(data)


TSCS = {f"cpu@{n}/env.tsc": 0x123456789AB + n * 40_000_000_000 for n in range(4)}
SLACK = {f"cpu@{n}/env.tsc": 0x123456789AB + n * 1_000_000 for n in range(4)}
CET = 1 << 23

CASES = (
    Case("stream-readable", lambda: sample(PC)[:600_000], [("error", "")], PC, says="the stream ends here"),
    Case("stream-supported", ram_version, [("warning", "ram")], PC, says="ram section version 5"),
    Case("trailing-data", with_garbage(b"QEVM rest of an older one"), [("warning", "")], PC, says="25 bytes"),
    Case(
        "vmdesc-present",
        lambda: sample("novmdesc-7.2"),
        [("error", "")],
        PC,
        '[rules.vmdesc-present]\nseverity = "error"',
    ),
    Case(
        "machine-named",
        lambda: edited(PC, lambda r: r.machine_type("")),
        [("warning", "configuration")],
        PC,
    ),
    Case("devices-decoded", renamed("novmdesc-7.2", b"hpet", b"hpeX"), [("note", "hpeX@0")], "novmdesc-7.2"),
    Case("sections-unique", dma_twice, [("note", "dma@0")], PC),
    Case("section-version-known", version_of_hpet, [("note", "hpet@0")], PC, says="version 9, but only 2"),
    Case(
        "run-state",
        lambda: poked(PC, {"globalstate/runstate": b"foo".ljust(100, b"\0")}),
        [("error", "globalstate@0/runstate")],
        PC,
        says="'foo'",
    ),
    Case("machine-type", lambda: sample(Q35), [("error", "")], PC, '[rules.machine-type]\nallowed = ["pc-i440fx-*"]'),
    Case(
        "accelerator", lambda: sample(PC), [("error", "")], KVM, '[rules.accelerator]\nallowed = ["kvm"]', says="is tcg"
    ),
    Case("page-size", lambda: sample(PC), [("error", "")], "tricore-10.0", "[rules.page-size]\nequals = 16384"),
    Case(
        "capabilities",
        lambda: sample("mapped-10.0"),
        [("error", "configuration")],
        PC,
        "[rules.capabilities]\nexact = []",
        says="mapped-ram",
    ),
    Case(
        "devices",
        lambda: edited(PC, lambda r: r.drop_section("hpet")),
        [("error", "hpet")],
        PC,
        '[rules.devices]\nrequired = ["hpet"]',
    ),
    Case(
        "section-versions",
        version_of_hpet,
        [("error", "hpet@0")],
        PC,
        "[rules.section-versions]\nversions = { hpet = 2 }",
    ),
    Case(
        "ram-blocks",
        lambda: edited(PC, lambda r: r.rename_block("pc.ram", "mem0")),
        [("error", "ram/pc.ram")],
        PC,
        '[rules.ram-blocks]\nsizes = { "pc.ram" = "16M" }',
    ),
    Case("ram-block-sent", without_block, [("warning", "ram//rom@etc/acpi/rsdp")], PC),
    Case("ram-pages-sent", lambda: sample("multifd-none-7.2"), [("error", "ram")], PC, says="348 of 4178 pages"),
    Case("ram-zero-ratio", lambda: sample(KVM), [("error", "ram")], PC, "[rules.ram-zero-ratio]\nmaximum = 0.98"),
    Case("vcpu-sections", lambda: edited(PC, lambda r: r.drop_section("apic@2")), [("error", "apic")], PC),
    Case("vcpu-numbers", lambda: edited(PC, lambda r: r.drop_section("cpu@1")), [("note", "cpu")], PC, says="not 1"),
    Case(
        "vcpu-features-equal",
        lambda: edited(PC, lambda r: r.add_subsection("cpu@0", "cpu/msr_xfd")),
        [("warning", "cpu@1"), ("warning", "cpu@2"), ("warning", "cpu@3")],
        PC,
        says="cpu/msr_xfd",
    ),
    Case("xcr0-equal", lambda: sample(PC), [("note", "cpu@3/env.xcr0")], Q35, says="it lacks BNDREGS BNDCSR PKRU"),
    Case(
        "xss-equal",
        lambda: edited(PC, lambda r: r.add_subsection("cpu@1", "cpu/xss", {"env.xss": 0x800})),
        [("note", "cpu@1/cpu/xss/env.xss")],
        Q35,
        says="it has CET_U",
    ),
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
    Case("tsc-together", lambda: poked(PC, TSCS), [("warning", "cpu@3/env.tsc")], PC, accelerator="kvm", says="40.0 s"),
    Case("tsc-together", lambda: poked(PC, SLACK), [], PC, accelerator="kvm"),
    Case("tsc-together", lambda: poked(PC, TSCS), [], PC),
    Case(
        "kvmclock-sent",
        lambda: edited(KVM, lambda r: r.drop_section("kvmclock")),
        [("warning", "cpu@0/env.system_time_msr")],
        KVM,
        says="0xe8c21",
    ),
    Case("vcpu-count", lambda: sample(PC), [("error", "")], KVM, "[rules.vcpu-count]\nequals = 1"),
    Case("vcpu-count", lambda: sample(PC), [("error", "")], KVM, "[rules.vcpu-count]\nmaximum = 3"),
    Case("vcpu-count", lambda: sample(KVM), [("error", "")], PC, "[rules.vcpu-count]\nminimum = 2"),
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
    Case("mxcsr-reserved", lambda: poked(KVM, {"cpu@0/env.mxcsr": 1 << 16, "cpu@0/env.xstate_bv": 0xE0}), [], KVM),
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
    findings = found(case.make(), case.policy, accelerator=case.accelerator)
    assert places(findings, case.rule) == case.places
    mine = [finding for finding in findings if finding.rule == case.rule]
    for finding in mine[:1]:
        assert case.says in finding.message
        assert finding.reason
    for finding in mine:
        if finding.path and finding.device != "ram":
            with qmigtool.open(case.make()) as stream:
                assert (finding.offset, finding.length) == (
                    stream.field(finding.where).offset,
                    stream.field(finding.where).length,
                )
    assert not places(found(sample(case.healthy), case.policy, accelerator=case.accelerator), case.rule)


def test_every_rule_is_tested() -> None:
    assert {case.rule for case in CASES if case.places} | {"baseline"} == set(RULES)


# -- what is healthy ---------------------------------------------------------------------------------------------------

NOTES = {
    "pc-7.2": ["xcr0-equal"],  # its vCPUs enable different components on purpose
    "pc-11.1": ["xcr0-equal"],
    # Their pages are in other files.
    **{name: ["ram-pages-sent"] for name in packedsamples.NAMES if name.startswith(("multifd", "postcopy-preempt"))},
}


@pytest.mark.parametrize("name", [*samplefiles.NAMES, *packedsamples.NAMES])
def test_nothing_is_wrong_with_what_qemu_wrote(name: str) -> None:
    findings = found(sample(name))
    assert [finding.rule for finding in findings] == NOTES.get(name, [])
    # A main channel alone lacks memory: that is an error.
    errors = [finding.rule for finding in findings if finding.severity is not Severity.NOTE]
    assert errors == [rule for rule in NOTES.get(name, []) if rule == "ram-pages-sent"]


@pytest.mark.parametrize(
    "name", [name for name in NOTES if packedsamples.FOLDER.joinpath(f"{name}.ch0.bin.xz").exists()]
)
def test_with_its_channels_memory_is_whole(name: str) -> None:
    packed = packedsamples.packed(name)
    assert not found(packed.path, channels=packed.channels)


@pytest.mark.parametrize("file", sorted((samplefiles.SAMPLES / "containers").iterdir()), ids=lambda file: file.name)
def test_nothing_is_wrong_with_what_lies_in_a_container(file: Path) -> None:
    assert found(file) == ()


def test_padding_is_no_data() -> None:
    assert not places(found(sample(PC) + bytes(5000)), "trailing-data")


# -- the stream as such ------------------------------------------------------------------------------------------------


def test_what_is_left_of_a_broken_stream_is_checked() -> None:
    findings = found(poked(KVM, {"cpu@0/env.mxcsr": 0x11F80})[:-20_000])
    assert places(findings, "mxcsr-reserved")
    assert places(findings, "stream-readable") == [("error", "")]


def test_bytes_that_contradict_their_description_are_a_finding() -> None:
    data = bytearray(sample(PC))
    at = data.index(b"\x05\x0acpu/avx512") if b"\x05\x0acpu/avx512" in data else data.index(b"\x05\x0ecpu/fpop_ip_dp")
    data[at + 2] ^= 0x20
    findings = found(bytes(data))
    assert [finding.rule for finding in findings if finding.severity is Severity.ERROR] == ["stream-readable"]
    assert "cpu" in (findings[0].device or "")


def test_findings_of_one_rule_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmigtool.check.engine.MAX_FINDINGS", 100)
    policy = '[[field]]\npath = "cpu@*/*"\nequals = "nothing is this"\nid = "all"'
    findings = [finding for finding in found(sample(PC), policy) if finding.rule == "all"]
    assert len(findings) == 101
    assert "not listed" in findings[-1].message


def test_a_pipe_that_kept_no_records_is_not_blamed() -> None:
    with samplefiles.path(PC).open("rb") as pipe, qmigtool.open(pipe) as stream:
        assert [finding.rule for finding in findings_of(stream)] == ["xcr0-equal"]


# -- the baseline ------------------------------------------------------------------------------------------------------


def test_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(a: object, b: object) -> Comparison:
        assert (a is not b, hasattr(a, "devices")) == (True, True)
        return Comparison(
            (
                Difference(
                    device="cpu@0",
                    path="env.cr[4]",
                    kind=Change.CHANGED,
                    a=0x620,
                    b=0x40620,
                    offset=5,
                    offset_b=6,
                    words="CR4: +OSXSAVE",
                    type="uint64",
                ),
                Difference(
                    device="cpu@0",
                    path="[ST0]",
                    kind=Change.CHANGED,
                    a=1,
                    b=2,
                    offset=5,
                    offset_b=77,
                    type="register",
                ),
                Difference(
                    device="hpet@0",
                    kind=Change.ONLY_A,
                    a=None,
                    b=None,
                ),
                Difference(
                    device="a@0",
                    kind=Change.ONLY_A,
                    a=151,
                    b=None,
                    offset=7,
                    words="the section is only in A",
                    type="section",
                ),
                Difference(
                    device="b@0",
                    kind=Change.ONLY_B,
                    a=None,
                    b=1,
                    offset_b=9,
                    words="the section is only in B",
                    type="bytes",
                ),
                Difference(
                    device="c@0",
                    path="d/e",
                    kind=Change.ONLY_B,
                    a=None,
                    b=5,
                    words="RAX",
                    lacks="c/d",
                    type="uint64",
                ),
                Difference(
                    path="[machine]",
                    kind=Change.CHANGED,
                    a="pc-7.1",
                    b="pc-7.2",
                ),
                Difference(
                    device="new@0",
                    kind=Change.ONLY_B,
                    a=None,
                    b=None,
                    offset_b=9,
                ),
            ),
            excused=(
                Difference(
                    device="timer@0",
                    path="x",
                    kind=Change.CHANGED,
                    a=1,
                    b=2,
                    rule="clocks",
                ),
            ),
        )

    monkeypatch.setattr("qmigtool.diff.compare", compare)
    findings = [finding for finding in found(sample(KVM), baseline=sample(KVM)) if finding.rule == "baseline"]
    assert [(finding.where, finding.message) for finding in findings] == [
        ("cpu@0/env.cr[4]", "was 0x620, is 0x40620: CR4: +OSXSAVE"),
        ("cpu@0/[ST0]", "was 0x1, is 0x2"),
        ("hpet@0", "is missing"),
        ("a@0", "is missing (was 151 bytes)"),
        ("b@0", "is new (1 byte)"),
        ("c@0/d/e", "is new (0x5): RAX, the baseline has no c/d"),
        ("[machine]", "was pc-7.1, is pc-7.2"),
        ("new@0", "is new"),
    ]
    with qmigtool.open(sample(KVM)) as stream:
        assert findings[0].offset == stream.field("cpu@0/env.cr[4]").offset
    assert [finding.offset for finding in findings[1:]] == [77, None, None, 9, None, None, 9]


def test_without_a_baseline_nothing_is_compared() -> None:
    assert "baseline" in {rule.id for rule in default_policy().rules}
    assert not places(found(sample(KVM)), "baseline")


def test_baseline_with_a_real_comparison() -> None:
    assert found(sample(KVM), baseline=sample(KVM)) == ()
    changed = poked(KVM, {"cpu@0/env.cr[4]": 0x40621, "timer/cpu_clock_offset": 77})
    (finding,) = found(changed, baseline=sample(KVM))  # a clock is excused
    assert (finding.rule, finding.where, finding.severity.value) == ("baseline", "cpu@0/env.cr[4]", "error")
    assert finding.message == "was 0x40620, is 0x40621: CR4: +VME"
    gone = found(edited(KVM, lambda r: r.drop_section("hpet")), baseline=sample(KVM))
    assert places(gone, "baseline") == [("error", "hpet@0")]
    assert gone[0].message == "is missing (was 151 bytes)"
    new = found(sample(KVM), baseline=edited(KVM, lambda r: r.drop_section("hpet")))
    assert [one.message for one in new] == ["is new (151 bytes)"]
    whole, bare = sample(KVM), edited(KVM, lambda r: r.drop_subsection("cpu@0/cpu/tsc_khz"))
    for old, now, words in ((whole, bare, "the stream has no"), (bare, whole, "the baseline has no")):
        (message,) = [finding.message for finding in found(now, baseline=old) if finding.rule == "baseline"]
        assert message.endswith(f"): {words} cpu/tsc_khz")


@pytest.mark.parametrize(
    "name",
    [
        "tulip-10.0.mig",  # slirp 4 or 5, whichever libslirp QEMU was linked with
        "tulip-11.1.mig",
        "smp-hotplug-7.2.mig",  # vCPU 2 was plugged, 1 was not
        "smp-hotplug-10.0.mig",
        "isapc-old-5.2.mig",  # two isa-ide of one number
        "isapc-7.2.mig",
        "virtio-multi-5.2.mig",
        "dc390-7.2.mig",
        "tpm-tis-11.1.mig",
        "kvm-pc-11.1.mig",
    ],
)
def test_nothing_is_found_in_streams_that_real_qemu_has_just_saved(name: str) -> None:
    """Their pages of ROM are left out in this tree, which is the one thing that is said."""
    assert [one for one in found(packed.files()[name]) if one.rule not in ("ram-pages-sent", "ram-block-sent")] == []


def test_a_gap_among_vcpus_is_none_where_the_cmos_ram_counts_as_many() -> None:
    drops = [lambda r, name=name: r.drop_section(name) for name in ("cpu@1", "cpu_common@1", "apic@1")]
    gap = edited(PC, *drops)
    assert places(found(gap), "vcpu-numbers") == [("note", "cpu")]
    with qmigtool.open(gap) as stream:
        field = stream.field("mc146818rtc@0/cmos_data")
        at = field.offset + 0x5F
        assert field.raw[0x5F] == 3  # four vCPUs
    told = bytearray(gap)
    told[at] = 2
    assert places(found(bytes(told)), "vcpu-numbers") == []
