"""Predictions against what real QEMU 7.2, 10.0 and 11.1 printed: every recorded case, word for word."""

from __future__ import annotations

import io
import random
from collections import Counter
from dataclasses import replace

import pytest

import qmigtool
from qmigtool.findings.text import sentence
from qmigtool.preflight.loader.predict import Verdict, predict
from qmigtool.preflight.target.model import Target, TargetSection
from tests.preflight import recorded
from tests.preflight.cases import CASES, NOT_DECIDED, PARTLY, Case, machine_type
from tests.preflight.edited import Edited, be32, source, str8
from tests.preflight.loader.predicted import pc, undecided, verdict

ROWS = recorded.rows()


NAMES = tuple(dict.fromkeys(row.case for row in ROWS))


def printed(one: Verdict) -> tuple[str, ...]:
    return one.errors if one.loads is False else one.warnings


def case_of(row: recorded.Row) -> Case | None:
    if row.case == "MT":
        return machine_type(row.edit.split("-> ")[1])
    return CASES.get(row.case)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_DECIDED])
def test_a_recorded_case_is_predicted_word_for_word(name: str) -> None:
    for row in (row for row in ROWS if row.case == name and (name, row.qemu) not in PARTLY):
        case = case_of(row)
        assert case is not None
        found = verdict(case.data(), case.target(row.qemu))
        assert (found.loads, printed(found)) == (row.loaded, row.lines), (row.qemu, row.edit)


def test_every_recorded_case_is_accounted_for() -> None:
    """278 cases: what is decided, what is decided for some versions, and what is not, each with its reason."""
    assert len(NAMES) == 278
    decided = {*CASES, "MT"}
    assert decided | set(NOT_DECIDED) == set(NAMES)
    assert not decided & set(NOT_DECIDED)
    assert {name for name, _ in PARTLY} <= decided
    assert len(decided - {name for name, _ in PARTLY}) == 265
    assert len({name for name, _ in PARTLY}) == 6
    assert Counter(NOT_DECIDED.values()) == Counter(
        {
            "the target does not start with these options, whatever comes in": 5,
            "refused for the channel that it comes by, before a byte is read": 2,
        }
    )


def test_the_rest_of_a_partly_decided_case_is_as_recorded() -> None:
    """Where the words depend on the host or the channel, whether it loads does not."""
    for (name, qemu), (loads, reason) in PARTLY.items():
        rows = [row for row in ROWS if row.case == name and row.qemu == qemu]
        assert rows
        assert reason
        if loads is None:
            continue
        case = CASES[name]
        assert verdict(case.data(), case.target(qemu)).loads is loads
        assert all(row.loaded is loads for row in rows)


def test_where_in_the_stream() -> None:
    edited = Edited("pc-7.2")
    hpet = edited.section("hpet")
    edited.rename(hpet, "hpex")
    found = verdict(edited.result(), pc())
    assert (found.rule, found.offset, found.section) == ("unknown-section", hpet.offset, "hpex")
    assert found.unknown == ()


def test_a_stream_object_and_its_bytes_are_the_same() -> None:
    with qmigtool.open(source("pc-7.2")) as stream:
        assert predict(stream, pc()) == verdict(source("pc-7.2"), pc())


def test_a_pipe_is_not_decided() -> None:
    with qmigtool.open(io.BytesIO(source("pc-7.2"))) as stream:
        found = predict(stream, pc())
    assert found.loads is None
    assert "pipe" in found.unknown[0].message


def test_what_is_not_known_of_the_target_judges_nothing() -> None:
    """A target of which nothing is known refuses nothing but what every QEMU does, and says what it did not see."""
    found = verdict(source("pc-7.2"), Target())
    assert found.loads is None
    assert found.errors == ()
    told = " ".join(map(sentence, found.unknown))
    for part in ("machine type", "sections", "RAM blocks"):
        assert part in told
    # What real 7.2 prints for so many bytes.
    for length, says in (
        (20, "Failed to load configuration:name"),
        (300_000, "error while loading state section id 2(ram)"),
    ):
        cut = verdict(source("pc-7.2")[:length], Target(qemu=(7, 2)))
        assert (cut.loads, cut.errors) == (False, (says, "load of migration failed: Input/output error"))
    # Without the end of its vmdesc a stream is whole to a loader.
    assert verdict(source("pc-7.2")[:-1000], Target(qemu=(7, 2))).loads is None
    assert verdict(source("pc-7.2")[:-1000], pc()).loads is True
    assert verdict(b"XEVM" + source("pc-7.2")[4:], Target(qemu=(7, 2))).rule == "magic"


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        ({"machine": None}, "machine type"),
        ({"sections": None}, "sections"),
        ({"blocks": None}, "RAM blocks"),
    ],
)
def test_each_part_that_is_missing_is_named(parts: dict[str, object], word: str) -> None:
    found = verdict(source("pc-7.2"), pc(**parts))
    assert found.loads is None
    assert any(word in one.message for one in found.unknown)


def test_what_may_stay_unknown_is_told_and_does_not_change_the_verdict() -> None:
    found = verdict(source("pc-7.2"), pc(capabilities={}))
    assert found.loads is True
    assert "x-ignore-shared" in " ".join(map(sentence, found.unknown))


@pytest.mark.parametrize("name", ["F6d", "F15b", "F15c"])
def test_pages_that_are_not_in_the_file_decide_nothing(name: str) -> None:
    """Real QEMU refuses these, because their pages came by no other channel: that is not in the file."""
    case = CASES[name]
    (doubt,) = undecided(case.data(), case.target("10.0")).doubts
    assert doubt.device == "kvm-tpr-opt@0"
    assert "--channel" in doubt.message


def test_the_silent_losses_of_7_2_under_kvm_are_notes() -> None:
    case = CASES["K1"]
    found = verdict(case.data(), case.target("7.2"))
    assert found.loads is True
    assert found.errors == ()
    assert any(note.device == "cpu@0" and "XCR0" in note.message and "mp_state" in note.message for note in found.notes)


def test_an_empty_file_waits_for_ever() -> None:
    found = verdict(b"", pc())
    assert (found.loads, found.errors, found.rule) == (False, (), "empty")
    assert any("forever" in note.message for note in found.notes)


def test_numbers_are_printed_as_c_prints_them() -> None:
    """Real 11.1 and 7.2 did: an id and a version beyond 2^31 are negative."""
    edited = Edited("pc-7.2")
    timer = edited.section("timer")
    edited.put(timer.offset + 1, be32(0xC8000008))
    found = verdict(edited.result(), recorded.target("t00", "11.1"))
    assert found.errors[0].endswith("read 0x0 expected 0xc8000008")
    assert found.errors[1].endswith("section_id: -939524088")
    newer = Edited("pc-7.2")
    newer.version(newer.section("timer"), 0xFD000001)
    assert verdict(newer.result(), pc()).errors[0] == "savevm: unsupported version -50331647 for 'timer' v2"


def test_names_end_at_a_nul_as_in_c() -> None:
    edited = Edited("pc-7.2")
    edited.rename(edited.section("hpet"), "hpet\0x")
    assert verdict(edited.result(), pc()).loads is True


def test_disks_that_live_sections_name_are_not_known() -> None:
    target = pc(machine="pc-i440fx-10.0")
    assert target.sections is not None
    sections = {**target.sections, ("dirty-bitmap", 0): TargetSection(1)}
    found = verdict(source("dirtybitmap-10.0"), replace(target, sections=sections))
    assert any("block devices" in one.message for one in found.unknown)


def test_where_a_stream_begins_is_told() -> None:
    found = verdict(source("file-offset-11.1"), Target(qemu=(11, 1)))
    assert any("offset=0x12345" in note.message for note in found.notes)


@pytest.mark.slow
def test_whatever_the_bytes_are_there_is_a_verdict() -> None:
    """Damage in every part of a stream; any exception fails."""
    target = pc()
    data = source("pc-7.2")
    edited = Edited("pc-7.2")
    places = [
        *range(0, edited.first_record() + 64, 7),
        *(place for one in edited.devices() for place in range(one.offset, one.body_offset + 4, 3)),
    ]
    rng = random.Random(7)  # noqa: S311 - the same damage each time
    for place in rng.sample(places, 150):
        broken = bytearray(data)
        kind = rng.randrange(4)
        if kind == 0:
            broken[place] = rng.randrange(256)
        elif kind == 1:
            broken[place : place + 4] = b"\xff\xff\xff\xff"
        elif kind == 2:
            del broken[place : place + rng.randrange(1, 9)]
        else:
            del broken[place:]
        found = verdict(bytes(broken), target)
        assert found.loads in (True, False, None)
        assert found.loads is not False or found.rule


def test_a_stream_of_nothing_but_subsections_or_sections_ends() -> None:
    """What repeats for as long as the file is long costs no more than its length."""
    start = Edited("pc-7.2").devices()[0].offset
    head = source("pc-7.2")[:start]
    unknown = b"\x04" + be32(1) + str8("x") + be32(0) + be32(0) + b"\x7e" + be32(1)
    found = verdict(head + unknown * 20_000, Target(qemu=(7, 2)))
    assert found.loads is not True
    assert len(found.unknown) < 300
