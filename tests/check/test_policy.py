"""Policies: what they may say, what they inherit, and what is said of one that is wrong."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from qmigtool.check import RULES, default_policy, default_text, load_policy
from qmigtool.check.fieldrule import KEYS
from qmigtool.check.policy import read_policy
from qmigtool.errors import UsageError
from tests.check.checking import found, sample
from tests.support.samplefiles import SAMPLES


def test_the_default_policy_names_every_rule() -> None:
    text = default_text()
    assert list(tomllib.loads(text)["rules"]) == list(RULES)
    read, made = read_policy(text), default_policy()
    assert (read.settings, read.rules) == (made.settings, made.rules)


def test_the_text_of_the_default_policy_has_reasons_and_options() -> None:
    text = default_text()
    assert '[rules.tr-busy]\nseverity = "warning"        # SVM takes it\n' in text
    assert '[rules.tsc-together]\nseverity = "warning"\nseconds = 10\n' in text
    assert '[rules.vmdesc-present]\nseverity = "off"   ' in text
    assert max(map(len, text.splitlines())) <= 120


def test_rules_have_words() -> None:
    for rule in RULES.values():
        assert rule.id == rule.id.lower()
        assert 10 < len(rule.title) < 80
        assert not rule.title.endswith(".")
        assert rule.reason.endswith((".", ")"))
        assert all(option.meaning for option in rule.options.values())


def test_a_rule_without_anything_to_ask_is_not_asked() -> None:
    asked = {rule.id for rule in default_policy().rules}
    assert {"machine-type", "devices", "components", "vcpu-count", "vmdesc-present"}.isdisjoint(asked)
    assert "tsc-together" in asked
    assert "capabilities" in {rule.id for rule in read_policy("[rules.capabilities]\nexact = []").rules}


def test_the_sample_policy_passes_on_its_sample_and_shows_every_key() -> None:
    text = (SAMPLES / "policy.toml").read_text(encoding="utf-8")
    assert found(sample("kvm-avx512-7.2"), load_policy(SAMPLES / "policy.toml")) == ()
    document = tomllib.loads(text)
    for id_, rule in RULES.items():
        for name in rule.options:
            assert name in document["rules"][id_] or f"# {name} = " in text, (id_, name)
    assert {key for table in document["field"] for key in table} == set(KEYS)


def test_the_sample_policy_is_not_empty_words() -> None:
    failed = {finding.rule for finding in found(sample("pc-7.2"), load_policy(SAMPLES / "policy.toml"))}
    assert {"accelerator", "devices", "ram-blocks", "vcpu-count", "components", "avx512-fleet"} <= failed
    assert "field-cpu-cpu-tsc-khz-env-tsc-khz" not in failed  # TCG does not send it, and it is not required


# -- inheriting --------------------------------------------------------------------------------------------------------


def severity(policy: str, rule: str) -> str:
    return read_policy(policy).settings[rule].severity


def test_what_is_not_said_is_inherited() -> None:
    assert severity("", "mxcsr-reserved") == "error"
    assert severity('[rules.mxcsr-reserved]\nseverity = "note"', "mxcsr-reserved") == "note"
    assert severity('[rules.mxcsr-reserved]\nseverity = "note"', "cr0-legal") == "error"
    assert severity('[rules.mxcsr-reserved]\nseverity = "off"', "mxcsr-reserved") == "off"


def test_nothing_asks_whether_the_stream_can_be_read() -> None:
    policy = read_policy('extends = "nothing"')
    assert [rule.id for rule in policy.rules] == ["stream-readable", "stream-supported"]


def test_files_extend_files(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "base.toml").write_text(
        '[rules.vcpu-count]\nminimum = 1\nmaximum = 4\n[[field]]\npath = "cpu/env.xcr0"\nequals = 7\nid = "base"\n'
    )
    top = tmp_path / "top.toml"
    top.write_text('extends = "lib/base.toml"\n[rules.vcpu-count]\nmaximum = 8\nseverity = "note"\n')
    policy = load_policy(top)
    count = policy.settings["vcpu-count"]
    assert (count.severity, count.options["minimum"], count.options["maximum"]) == ("note", 1, 8)
    assert [rule.id for rule in policy.fields] == ["base"]
    assert policy.files == (str(top), str(tmp_path / "lib" / "base.toml"))


def test_a_circle_of_policies_ends(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"')
    (tmp_path / "b.toml").write_text('extends = "a.toml"')
    with pytest.raises(UsageError, match="chain"):
        load_policy(tmp_path / "a.toml")


def test_fields_of_one_path_are_numbered() -> None:
    text = '[[field]]\npath = "cpu@*/env.xcr0"\nequals = 1\n' * 2
    assert [rule.id for rule in read_policy(text).fields] == ["field-cpu-env-xcr0", "field-cpu-env-xcr0-2"]


# -- what is wrong -----------------------------------------------------------------------------------------------------

FIELD = '[[field]]\npath = "cpu/env.xcr0"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules = 5", "rules of the policy is 5"),
        ("[rules]\nmxcsr-reserved = 5", "is 5"),
        ("[rules.mxcsr-resrved]", "one like mxcsr-reserved"),
        ("[rule.mxcsr-reserved]", "cannot have 'rule'.*one like rules"),
        ('[rules.mxcsr-reserved]\nseverty = "note"', "one like severity"),
        ('[rules.mxcsr-reserved]\nseverity = "fatal"', "one of error, warning, note, off"),
        ("[rules.mxcsr-reserved]\nseverity = 3", "one of error"),
        ('[rules.stream-readable]\nseverity = "off"', "cannot be off"),
        ("[rules.machine-type]\nallowed = 5", "allowed of .rules.machine-type. of the policy is 5"),
        ("[rules.machine-type]\nallowed = [1]", "a name or a list of names"),
        ('[rules.machine-type]\nminimum = "new"', 'such as "7.2"'),
        ('[rules.accelerator]\nallowed = "qvm"', "one of kvm"),
        ('[rules.page-size]\nequals = "4X"', "a number"),
        ("[rules.page-size]\nequals = true", "a number"),
        ('[rules.section-versions]\nversions = { cpu = "x" }', "versions of .* of cpu"),
        ("[rules.section-versions]\nversions = 5", "a table"),
        ('[rules.ram-blocks]\nsizes = { "pc.ram" = "lots" }', "sizes of .* of pc.ram"),
        ("[rules.ram-blocks]\nexact = 1", "true or false"),
        ("[rules.ram-zero-ratio]\nmaximum = 2", "from 0 to 1"),
        ('[rules.components]\nforbidden = ["amx", "mmx"]', "mmx"),
        ("[rules.components]\nforbidden = 5", "component names"),
        ("extends = 5", "extends of the policy is 5"),
        ('extends = "other.toml"', "not a file itself"),
        ("field = 5", r"tables: \[\[field\]\]"),
        ("[[field]]\nequals = 5", "a device and a field"),
        ('[[field]]\npath = "env.xcr0"\nequals = 5', "a device and a field"),
        (FIELD, "x?"),
        (FIELD + "required = false", "no requirement"),
        (FIELD + "equls = 5", "one like equals"),
        (FIELD + "equals = 5.5", "a number, text"),
        (FIELD + "one_of = []", "a list of values"),
        (FIELD + 'minimum = "a"', "a number"),
        (FIELD + 'within = "x87,foo"', "foo"),
        (FIELD + 'matches = "("', "not a regular expression"),
        (FIELD + "matches = 5", "text"),
        (FIELD + "mask = 5", "is not a requirement alone"),
        (FIELD + "absent = true\nequals = 5", "required to be absent"),
        (FIELD + 'same = "yes"', "true or false"),
        (FIELD + 'equals = 5\nid = "Not Good"', "small letters"),
        (FIELD + 'equals = 5\nid = "cr0-legal"', "which another rule has"),
        (FIELD + 'equals = 5\nseverity = "bad"', "one of error"),
        (FIELD + "equals = 5\nwhy = 5", "text"),
        ("not TOML", "is not TOML"),
        ("a" + ".a" * 5000 + " = 1", "dots"),
        ("a = " + "[" * 5000, "is not TOML"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str) -> None:
    if says == "x?":
        assert read_policy(text).fields[0].title == "cpu/env.xcr0 is present"
        return
    with pytest.raises(UsageError, match=says):
        read_policy(text)


def test_files_that_are_no_policies(tmp_path: Path) -> None:
    huge = tmp_path / "huge.toml"
    huge.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(UsageError, match="at most 1048576 bytes"):
        load_policy(huge)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not text"):
        load_policy(binary)
    with pytest.raises(FileNotFoundError):
        load_policy(tmp_path / "none.toml")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="regular file"):
        load_policy(tmp_path / "pipe")
    many = tmp_path / "many.toml"
    many.write_text((FIELD + "equals = 5\n") * 1025)
    with pytest.raises(UsageError, match="at most 1024"):
        load_policy(many)
