"""Commands as the target processes them: packages and postcopy."""

from __future__ import annotations

from tests.preflight.edited import Edited, be32, str8
from tests.preflight.loader.predicted import pc, verdict


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
