"""Noise rules: what they excuse, what they must not, and how they are overridden."""

from pathlib import Path

import pytest

from qmigtool.diff import Noise, NoiseRule, default_noise, load_noise
from qmigtool.diff.noise import parse_noise
from qmigtool.errors import QmigError, UsageError
from tests.diff.comparing import compared, edited, places
from tests.support import samplefiles

PC = "pc-7.2"


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("timer@0/cpu_clock_offset", 5, "clocks"),
        ("cpu@1/env.tsc", 0x1234, "tsc"),
        ("mc146818rtc@0/base_rtc", 99, "clocks"),
        ("0000:00:01.3/piix4_pm@0/ar.tmr.overflow_time", 12345, "timers"),
        ("i8254@0/channels[2]/count_load_time", 77, "timers"),
    ],
)
def test_time_is_excused(path: str, value: int, rule: str) -> None:
    found = compared(PC, edited(PC, lambda r: r.set(path, value)))
    assert found.same
    assert [(d.where, d.rule) for d in found.excused] == [(path, rule)]


def test_a_timer_that_is_armed_on_one_side_only_is_a_difference() -> None:
    found = compared(PC, edited(PC, lambda r: r.set("mc146818rtc@0/update_timer", -1)))
    assert places(found) == ["mc146818rtc@0/update_timer"]


def test_only_the_time_of_day_in_cmos_is_excused() -> None:
    import qmigtool
    from tests.rewrite.editing import sample

    with qmigtool.open(sample(PC)) as stream:
        raw = stream.field("mc146818rtc@0/cmos_data").raw
    times = ((0, 0x55, True), (4, 0x11, True), (0x32, 1, True), (0x0A, 0x80, True), (0x0C, 0x10, True))
    others = ((1, 0x55, False), (0x10, 1, False), (0x33, 1, False), (0x0A, 1, False), (0x0C, 0x20, False))
    for byte, bits, same in (*times, *others):
        changed = bytearray(raw)
        changed[byte] ^= bits
        found = compared(PC, edited(PC, lambda r, changed=changed: r.set("mc146818rtc@0/cmos_data", bytes(changed))))  # type: ignore[misc]
        assert found.same is same, hex(byte)


def test_a_rule_can_be_made_to_count() -> None:
    changed = edited(PC, lambda r: r.set("cpu@1/env.tsc", 1))
    found = compared(PC, changed, noise=default_noise().without("tsc"))
    assert [(d.where, d.topic) for d in found.differences] == [("cpu@1/env.tsc", "TSC")]
    assert not compared(PC, changed, noise=default_noise().without("TSC")).same  # a topic, as the summary has it
    with pytest.raises(UsageError, match="no noise rule 'tcs'"):
        default_noise().without("tcs")


def test_a_pattern_can_be_ignored() -> None:
    changed = edited(PC, lambda r: r.set("cpu@1/env.regs[2]", 1), lambda r: r.set("cpu@3/env.regs[2]", 1))
    assert places(compared(PC, changed, noise=default_noise().ignoring("cpu@1/*"))) == ["cpu@3/env.regs[2]"]
    assert compared(PC, changed, noise=default_noise().ignoring("cpu@*/env.regs[2]")).same
    for pattern in ("cpu", "cpu@*", "*regs*"):
        assert compared(PC, changed, noise=default_noise().ignoring(pattern)).same, pattern
    found = compared(PC, changed, noise=default_noise().ignoring("cpu@1", "hpat"))
    assert places(found) == ["cpu@3/env.regs[2]"]
    assert found.notes == ("the pattern 'hpat' matches no difference",)


def test_the_representation_rules_need_two_accelerators() -> None:
    """Bits 19:16 of a segment's flags are noise between KVM and TCG, and a difference between two TCG streams."""
    changed = edited(PC, lambda r: r.set("cpu@0/env.segs[1]/flags", 0x00C09B00))
    assert places(compared(PC, changed)) == ["cpu@0/env.segs[1]/flags"]


def test_a_file_adds_and_replaces(tmp_path: Path) -> None:
    file = tmp_path / "noise.toml"
    file.write_text(
        """
        [[rule]]
        id = "tsc"
        topic = "TSC"
        why = "here it must agree to a million ticks"
        fields = ["cpu@*/env.tsc"]
        tolerance = 1000000
        """
    )
    noise = default_noise().extended(load_noise(file))
    assert len(noise.rules) == len(default_noise().rules)
    for value, same in ((1_000_000, True), (1_000_001, False)):
        found = compared(PC, edited(PC, lambda r, value=value: r.set("cpu@1/env.tsc", value)), noise=noise)  # type: ignore[misc]
        assert found.same is same


def test_the_sample_has_every_key_and_works() -> None:
    from dataclasses import fields

    sample = samplefiles.SAMPLES / "noise.toml"
    noise = load_noise(sample)
    text = sample.read_text(encoding="utf-8")
    assert {f.name for f in fields(NoiseRule)} == {f.name for f in fields(NoiseRule) if f"\n{f.name} =" in text}
    assert compared(PC, edited(PC, lambda r: r.set("cpu@1/env.tsc", 999_999)), noise=noise).same
    assert not compared(PC, edited(PC, lambda r: r.set("cpu@1/env.tsc", 1_000_001)), noise=noise).same


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule]]\n", "has no id, topic, why"),
        ("rule = 1", "unknown keys|tables"),
        ("[[rules]]\n", "unknown keys: rules"),
        ('[[rule]]\nid="a"\ntopic="b"\nwhy="c"\n', "has no fields or types"),
        ('[[rule]]\nid="a"\ntopic="b"\nwhy="c"\nfields=[1]\n', "a list of str"),
        ('[[rule]]\nid="a"\ntopic="b"\nwhy="c"\nfield=["x"]\n', "unknown key 'field'"),
        ('[[rule]]\nid="a"\ntopic="b"\nwhy="c"\nfields=["x"]\nmask=true\n', "a int|an int"),
        ('[[rule]]\nid="a"\ntopic="b"\nwhy="c"\nfields=["x"]\nwhen=["it rains"]\n', "it rains"),
        ("[[rule", "not TOML"),
        ('[[rule]]\nid="a"\ntopic="b"\nwhy="c"\nfields=["x"]\nbytes={x=1}\n', "a byte's offset"),
        ('[[rule]]\nid="a"\ntopic="b"\nwhy="c"\nfields=["x"]\nbytes={1=0x100}\n', "the bits that may differ"),
        ("rule = [1]", "not a table"),
        ("a = " + "[" * 4000, "not TOML"),
    ],
)
def test_a_wrong_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_noise(text)


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "noise.toml"
    file.write_bytes(b"#" * (2 << 20))
    with pytest.raises(QmigError, match="too long"):
        load_noise(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text"):
        load_noise(file)


def test_the_first_rule_that_fits_decides() -> None:
    first = NoiseRule("one", "x", "why", fields=("d@*/f",))
    noise = Noise((first, NoiseRule("two", "y", "why", fields=("*",), excuse=False)))
    assert noise.find("d@3/f", (), 1, 2, ()) is first
    assert noise.find("d@3/g", (), 1, 2, ()) is noise.rules[1]
