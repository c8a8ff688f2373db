"""Predictions against what real QEMU 7.2, 10.0 and 11.1 printed: every recorded case, word for word."""

from __future__ import annotations

import io
import random
from collections import Counter
from dataclasses import replace

import pytest

import qmigtool
from qmigtool.findings.text import sentence
from qmigtool.parsers.source import BufferSource
from qmigtool.preflight.loader import esp
from qmigtool.preflight.loader.predict import Verdict, predict, predict_source
from qmigtool.preflight.loader.words import FAMILIES, REFUSALS, WARNINGS, WRAPS, family_of
from qmigtool.preflight.target.model import Target, TargetSection
from qmigtool.preflight.target.versions import Possible
from tests.preflight import recorded
from tests.preflight.cases import CASES, NOT_DECIDED, PARTLY, Case, machine_type
from tests.preflight.edited import Edited, be32, source, str8, subsection

ROWS = recorded.rows()
NAMES = tuple(dict.fromkeys(row.case for row in ROWS))


LAST = "load of migration failed: Invalid argument"


def verdict(data: bytes, target: Target) -> Verdict:
    return predict_source(BufferSource(data), target)


def pc(**parts: object) -> Target:
    return replace(recorded.target("t00", "7.2"), **parts)  # type: ignore[arg-type]


def printed(one: Verdict) -> tuple[str, ...]:
    return one.errors if one.loads is False else one.warnings


def case_of(row: recorded.Row) -> Case | None:
    if row.case == "MT":
        return machine_type(row.edit.split("-> ")[1])
    return CASES.get(row.case)


# -- the recorded cases ----------------------------------------------------------------------------------------------


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


# -- what is not in the recorded cases -------------------------------------------------------------------------------


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


def test_a_uuid_that_the_target_may_not_have_is_not_decided() -> None:
    edited = Edited("pc-7.2")
    edited.configure(subsection("configuration/uuid", bytes(16)))
    assert "-uuid" in " ".join(map(sentence, undecided(edited.result(), pc(uuid=None)).doubts))
    assert verdict(edited.result(), pc(uuid="")).loads is True


def undecided(data: bytes, target: Target) -> Verdict:
    """What is not decided says what would decide it."""
    found = verdict(data, target)
    assert found.loads is None
    assert found.errors == ()
    assert found.doubts
    assert all("decide" in doubt.message for doubt in found.doubts)
    return found


@pytest.mark.parametrize("name", ["F6d", "F15b", "F15c"])
def test_pages_that_are_not_in_the_file_decide_nothing(name: str) -> None:
    """Real QEMU refuses these, because their pages came by no other channel: that is not in the file."""
    case = CASES[name]
    (doubt,) = undecided(case.data(), case.target("10.0")).doubts
    assert doubt.device == "kvm-tpr-opt@0"
    assert "--channel" in doubt.message


def test_an_unknown_subsection_of_a_target_without_tables_is_not_decided() -> None:
    target = pc(vmsds=None)
    assert target.sections is not None
    bare = {key: replace(section, subsections=None) for key, section in target.sections.items()}
    edited = Edited("pc-7.2")
    edited.append(edited.section("hpet"), subsection("hpet/foo", bytes(4)))
    found = verdict(edited.result(), replace(target, sections=bare))
    assert found.loads is None
    assert any("hpet/foo" in one.message for one in found.unknown)


def test_a_section_whose_shape_is_not_known_is_not_decided_and_what_follows_is_read() -> None:
    target = pc()
    assert target.sections is not None
    sections = {**target.sections, ("hpet", 0): TargetSection(2)}
    (doubt,) = undecided(source("pc-7.2"), replace(target, sections=sections)).doubts
    assert doubt.device == "hpet@0"
    foreign = Edited("pc-7.2")
    foreign.rename(foreign.section("i8254"), "i8255")  # behind it
    assert verdict(foreign.result(), replace(target, sections=sections)).rule == "unknown-section"
    edited = Edited("pc-7.2")
    hpet = edited.section("hpet")
    edited.put(hpet.end - 4, be32(1))
    assert verdict(edited.result(), replace(target, sections=sections)).loads is not True


def test_an_older_body_of_which_no_table_tells_the_fields_is_not_decided() -> None:
    target = pc()
    assert target.vmsds is not None
    assert verdict(_ioapic_version(2), target).loads is True  # every field of it is there since 2
    nothing = replace(target.vmsds["ioapic"], field_versions=None)
    found = verdict(_ioapic_version(2), replace(target, vmsds={**target.vmsds, "ioapic": nothing}))
    assert found.loads is None
    assert any("ioapic" in one.message for one in found.unknown)


@pytest.mark.parametrize(("sent", "bytes_more"), [(8, 0), (7, -1), (6, 0), (5, -1), (4, 69 - 12)])
def test_esp_is_read_by_the_version_that_wrote_it(sent: int, bytes_more: int) -> None:
    """11.1's fields for each mig_version_id, in bytes against its own (asc_mode, ti_cmd, lun, FIFOs; hw/scsi/esp.c)."""
    own = ("cmdfifo_cdb_offset", "data_ready", "fifo", "cmdfifo", "lun", "drq_state", "asc_mode")
    sizes = {"cmdfifo_cdb_offset": 1, "data_ready": 1, "fifo": 4, "cmdfifo": 4, "lun": 1, "drq_state": 1, "asc_mode": 1}
    names = ("ti_size", "status", "dma", "do_cmd", *own)
    version = esp.effective({esp.SENT: sent}, 8)
    left_out = esp.not_sent(version)
    more = sum(esp.more_behind(name, version, own) for name in names)
    total = more - sum(size for name, size in sizes.items() if name in left_out)
    assert total == bytes_more


def test_field_versions_of_the_target_decide_what_an_older_body_has() -> None:
    target = pc()
    assert target.vmsds is not None
    ioapic = replace(target.vmsds["ioapic"], field_versions={"irr": 2, "unused": 2, "ioregsel": 0})
    found = verdict(_ioapic_version(2), replace(target, vmsds={**target.vmsds, "ioapic": ioapic}))
    assert found.loads is True
    newer = replace(ioapic, field_versions={"irr": 3})
    found = verdict(_ioapic_version(2), replace(target, vmsds={**target.vmsds, "ioapic": newer}))
    assert found.errors[0] == "Missing section footer for ioapic"


def _ioapic_version(version: int) -> bytes:
    edited = Edited("pc-7.2")
    edited.version(edited.section("ioapic"), version)
    return edited.result()


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


def test_a_machine_type_of_a_negative_length_aborts() -> None:
    edited = Edited("pc-7.2")
    edited.put(9, b"\x80\0\0\0")
    found = verdict(edited.result(), pc())
    assert (found.loads, found.rule) == (False, "configuration-length")


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


def test_a_file_that_ends_between_two_records() -> None:
    """Real 7.2 takes zeros for a record there, 10.0 and 11.1 look first."""
    edited = Edited("pc-7.2")
    edited.cut(edited.last_record() + 4, len(edited.data))
    data = edited.result()
    assert verdict(data, pc()).errors[0] == "Unknown combination of migration flags: 0x0"
    assert verdict(data, recorded.target("t00", "10.0")).errors[0] == "Getting RAM address failed"


def test_names_end_at_a_nul_as_in_c() -> None:
    edited = Edited("pc-7.2")
    edited.rename(edited.section("hpet"), "hpet\0x")
    assert verdict(edited.result(), pc()).loads is True


def test_what_was_printed_before_a_refusal_stands_before_it() -> None:
    edited = Edited("pc-7.2")
    edited.configure(subsection("configuration/uuid", bytes.fromhex("12345678123412341234123456789abc")))
    edited.rename(edited.section("hpet"), "hpex")
    found = verdict(edited.result(), pc())
    assert found.errors[0].startswith("warning: UUID is received")
    assert found.errors[1].startswith("Unknown savevm section")


def test_a_package_is_read_as_items() -> None:
    edited = Edited("pc-7.2")
    devices = edited.devices()
    raw = b"".join(map(edited.raw, devices))
    package = b"\x08\x00\x07\x00\x04" + be32(len(raw)) + raw
    edited.replace(devices[0].offset, devices[-1].end, package)
    assert verdict(edited.result(), pc()).loads is True
    twice = Edited("pc-7.2")
    broken = raw.replace(str8("hpet"), str8("hpex"))
    twice.replace(devices[0].offset, devices[-1].end, package[:9] + broken)
    assert verdict(twice.result(), pc()).rule == "unknown-section"


def test_a_drive_that_was_used_has_a_field_more() -> None:
    """hw/ide/core.c sends identify_data once the guest has asked for it; a fresh machine never did."""
    edited = Edited("pc-7.2")
    ide = edited.stream.device("0000:00:01.1/ide")
    drive = next(one for one in ide.fields if one.name == "bus[1].ifs").children[0]
    identify = next(one for one in drive.children if one.name == "identify_set")
    edited.put(identify.offset, be32(1))
    assert verdict(edited.result(), pc()).loads is False
    edited.insert(identify.offset + 4, bytes(512))
    assert verdict(edited.result(), pc()).loads is True


def test_virtio_state_is_read_to_its_end() -> None:
    """Of what no vmdesc describes: real 7.2 says the same (test_predict_qemu damages pc-7.2 only)."""
    edited = Edited("q35-7.2")
    edited.append(edited.section("0000:00:04.0/virtio-rng"), b"\0")
    found = verdict(edited.result(), recorded.target("t23", "7.2"))
    assert found.errors == ("Missing section footer for 0000:00:04.0/virtio-rng", LAST)


def test_a_virtio_device_whose_own_part_is_cut_reads_on_to_the_end() -> None:
    """Real 7.2 takes other bytes for the number of addresses, and ends with the same last line."""
    edited = Edited("q35-7.2")
    net = edited.section("0000:00:03.0/virtio-net")
    queues_end = net.body_offset + 415
    edited.cut(queues_end, queues_end + 2)
    found = verdict(edited.result(), recorded.target("t23", "7.2"))
    assert (found.loads, found.section) == (False, "0000:00:03.0/virtio-net")
    assert found.errors[-1] == "load of migration failed: Input/output error"


def test_state_that_nobody_can_read_and_that_has_no_footer_does_not_load() -> None:
    target = pc()
    assert target.sections is not None
    sections = {**target.sections, ("globalstate", 0): TargetSection(1)}
    edited = Edited("pc-7.2")
    body = edited.section("globalstate").body_offset
    edited.cut(body + 10, len(edited.data))
    found = verdict(edited.result(), replace(target, sections=sections))
    assert (found.loads, found.errors[-1]) == (False, "load of migration failed: Input/output error")
    assert found.notes


def test_disks_that_live_sections_name_are_not_known() -> None:
    target = pc(machine="pc-i440fx-10.0")
    assert target.sections is not None
    sections = {**target.sections, ("dirty-bitmap", 0): TargetSection(1)}
    found = verdict(source("dirtybitmap-10.0"), replace(target, sections=sections))
    assert any("block devices" in one.message for one in found.unknown)


def test_where_a_stream_begins_is_told() -> None:
    found = verdict(source("file-offset-11.1"), Target(qemu=(11, 1)))
    assert any("offset=0x12345" in note.message for note in found.notes)


def test_postcopy_is_not_decided_past_the_switch() -> None:
    edited = Edited("pc-7.2")
    advise = b"\x08\x00\x03\x00\x10" + (4096).to_bytes(8, "big") * 2
    edited.insert(edited.one_start().offset, advise)
    edited.insert(edited.devices()[0].offset, b"\x08\x00\x04\x00\x00")
    found = verdict(edited.result(), pc(capabilities={"postcopy-ram": True}))
    assert found.loads is None
    assert any("postcopy" in one.message for one in found.unknown)


def test_an_advice_to_a_target_of_unknown_capabilities_is_undecided() -> None:
    edited = Edited("pc-7.2")
    edited.insert(edited.one_start().offset, b"\x08\x00\x03\x00\x10" + (4096).to_bytes(8, "big") * 2)
    found = verdict(edited.result(), pc())
    assert found.loads is None
    assert any("postcopy-ram" in one.message and "query-migrate-capabilities" in one.message for one in found.doubts)
    assert verdict(edited.result(), pc(capabilities={"postcopy-ram": True})).loads is True
    assert verdict(edited.result(), pc(capabilities={"postcopy-ram": False})).loads is False


def test_what_is_refused_either_way_is_refused_in_the_words_of_the_default() -> None:
    edited = Edited("pc-7.2")
    edited.insert(edited.one_start().offset, b"\x08\x00\x03\x00\x10" + (8192).to_bytes(8, "big") * 2)
    found = verdict(edited.result(), pc())
    off = verdict(edited.result(), pc(capabilities={"postcopy-ram": False}))
    assert (found.loads, found.errors) == (False, off.errors)
    assert found.errors != verdict(edited.result(), pc(capabilities={"postcopy-ram": True})).errors


# -- words -----------------------------------------------------------------------------------------------------------


def test_every_rule_has_words_for_every_family() -> None:
    for table in (REFUSALS, WRAPS, WARNINGS):
        assert {len(words) for words in table.values()} == {len(FAMILIES)}


@pytest.mark.parametrize(
    ("version", "family"),
    [
        ((5, 2), (7, 2)),
        ((7, 2, 22), (7, 2)),
        ((8, 1), (7, 2)),
        ((8, 2), (10, 0)),
        ((10, 1), (10, 0)),
        ((10, 2), (11, 1)),
        ((11, 0), (11, 1)),
        ((12, 0), (11, 1)),
    ],
)
def test_the_family_of_a_version(version: tuple[int, ...], family: tuple[int, int]) -> None:
    assert family_of(Possible(version, (*version, 0))).family == family


@pytest.mark.parametrize(
    ("case", "since"),
    [("G2", (10, 0)), ("F17", (8, 1)), ("F18", (8, 2))],
    ids=["SWITCHOVER_START", "MULTIFD_FLUSH", "HOOK"],
)
def test_what_a_version_between_two_families_takes(case: str, since: tuple[int, int]) -> None:
    """What QEMU does follows from its own version, whoever's words it borrows."""
    data = CASES[case].data()
    before = (since[0] - 1, 9) if not since[1] else (since[0], since[1] - 1)
    assert verdict(data, pc(qemu=since)).loads is True
    assert verdict(data, pc(qemu=before)).loads is False


def test_borrowed_words_are_said_to_be() -> None:
    found = verdict(source("pc-7.2"), pc(qemu=(9, 0), machine="pc"))
    assert any("10.0" in note.message for note in found.notes)
    assert found.errors[0].startswith("Machine type received")


# -- hostile input ---------------------------------------------------------------------------------------------------


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
