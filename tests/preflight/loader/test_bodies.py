"""Bodies of another version, or of a shape that is not known."""

from __future__ import annotations

from dataclasses import replace

from qmigtool.preflight.target.model import TargetSection
from tests.preflight.edited import Edited, be32, source, subsection
from tests.preflight.loader.predicted import pc, undecided, verdict


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
