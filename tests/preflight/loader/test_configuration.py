"""The configuration section as the target loads it."""

from __future__ import annotations

from qmigtool.findings.text import sentence
from tests.preflight.edited import Edited, subsection
from tests.preflight.loader.predicted import pc, undecided, verdict


def test_a_uuid_that_the_target_may_not_have_is_not_decided() -> None:
    edited = Edited("pc-7.2")
    edited.configure(subsection("configuration/uuid", bytes(16)))
    assert "-uuid" in " ".join(map(sentence, undecided(edited.result(), pc(uuid=None)).doubts))
    assert verdict(edited.result(), pc(uuid="")).loads is True


def test_a_machine_type_of_a_negative_length_aborts() -> None:
    edited = Edited("pc-7.2")
    edited.put(9, b"\x80\0\0\0")
    found = verdict(edited.result(), pc())
    assert (found.loads, found.rule) == (False, "configuration-length")


def test_what_was_printed_before_a_refusal_stands_before_it() -> None:
    edited = Edited("pc-7.2")
    edited.configure(subsection("configuration/uuid", bytes.fromhex("12345678123412341234123456789abc")))
    edited.rename(edited.section("hpet"), "hpex")
    found = verdict(edited.result(), pc())
    assert found.errors[0].startswith("warning: UUID is received")
    assert found.errors[1].startswith("Unknown savevm section")
