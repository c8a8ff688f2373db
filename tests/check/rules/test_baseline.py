"""The rule that compares a stream with an older one."""

from __future__ import annotations

import pytest

import qmigtool
from qmigtool.check import default_policy
from qmigtool.diff import Comparison, Difference
from qmigtool.diff import DifferenceKind as Change
from tests.check.checking import edited, found, places, poked, sample
from tests.check.rules.cases import KVM


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
