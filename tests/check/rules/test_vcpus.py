"""The rules about all vCPUs together."""

from __future__ import annotations

import pytest

import qmigtool
from tests.check.checking import edited, found, places, poked, sample
from tests.check.rules.cases import KVM, PC, Q35, Case, check_case

TSCS = {f"cpu@{n}/env.tsc": 0x123456789AB + n * 40_000_000_000 for n in range(4)}


SLACK = {f"cpu@{n}/env.tsc": 0x123456789AB + n * 1_000_000 for n in range(4)}

CASES = (
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
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_rule(case: Case) -> None:
    check_case(case)


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


def test_only_xcr0_counts_as_xcr0():
    data = edited(KVM, lambda r: r.add_subsection("cpu@0", "cpu/xss", {"env.xss": 0x800}))
    assert not places(found(data), "xcr0-equal")
    both = edited("pc-7.2", lambda r: r.add_subsection("cpu@0", "cpu/xss", {"env.xss": 0x1800}))
    assert [one.message for one in found(both) if one.rule == "xcr0-equal"] == [
        one.message for one in found(sample("pc-7.2")) if one.rule == "xcr0-equal"
    ]
    assert len(places(found(both), "xss-equal")) == 3
