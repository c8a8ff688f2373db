"""Real QEMUs: 7.2 and 11.1, their dumps and their streams; what is expected was looked up in QEMU, or tried with it."""

import functools
import json

import pytest

import qmigtool
from qmigtool.devices.schema import built_in
from qmigtool.parsers.vmdesc import parse_vmdesc
from qmigtool.parsers.vmstatedump import parse_vmstate_dump
from qmigtool.schemadiff import (
    Direction,
    Effect,
    compare_schemas,
    of_dump,
    of_schema,
    of_stream,
    of_vmdesc,
    present_in,
    schema_differences,
)
from tests.schemadiff.dumps import raw
from tests.support import samplefiles

BREAKS, MAY, HARMLESS, UNKNOWN = Effect.BREAKS, Effect.MAY_BREAK, Effect.HARMLESS, Effect.UNKNOWN


@functools.cache
def dump(version):
    return of_dump(parse_vmstate_dump(raw(f"dump-pc-{version}")), version)


@functools.cache
def compared(old="7.2", new="11.1"):
    return compare_schemas(dump(old), dump(new))


def of_device(name, comparison):
    return {(d.rule, d.path): (d.forward, d.backward) for d in comparison.differences if d.device == name}


def test_every_device_type_of_one_side_is_told():
    old, new = (set(json.loads(raw(f"dump-pc-{v}"))) for v in ("7.2", "11.1"))
    told = {
        rule: {d.device for d in compared().differences if d.rule == rule}
        for rule in ("device-missing", "device-extra")
    }
    assert told == {"device-missing": old - new, "device-extra": new - old}
    assert {"qxl", "qxl-vga"} <= told["device-missing"]
    assert {"igb", "vmclock", "ramfb"} <= told["device-extra"]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        # it cannot be migrated in 7.2 (unmigratable = 1, no fields)
        (
            "nvme",
            {
                ("section-version", ""): (HARMLESS, BREAKS),
                ("minimum-version", ""): (BREAKS, HARMLESS),
                ("field-extra", ""): (BREAKS, BREAKS),
            },
        ),
        # the fields of a card that no code reads became VMSTATE_UNUSED(20); tried: loads, both ways
        ("sb16", {("field-padded", "irq+dma+hdma+port+ver"): (HARMLESS, HARMLESS)}),
        # num_timers was renamed, and version 1 is loaded no more; both are of version 2
        (
            "hpet",
            {
                ("minimum-version", ""): (HARMLESS, HARMLESS),
                ("field-renamed", "num_timers"): (HARMLESS, HARMLESS),
                ("field-version", "num_timers"): (HARMLESS, HARMLESS),
            },
        ),
        # the device got a description of its own around that of the VGA core; tried: "Unknown section 'vga'"
        ("isa-vga", {("section-renamed", ""): (BREAKS, BREAKS)}),
        ("isa-pit", {}),
        ("e1000", {}),
    ],
)
def test_what_changed_in_a_device(device, expected):
    assert of_device(device, compared()) == expected


def test_what_breaks_the_esp_scsi_adapter():
    """Tried: a stream of 7.2 with -device am53c974 does not load in 11.1, nor the other way round (tests/data)."""
    found = of_device("am53c974", compared())
    assert found["field-extra", "esp/drq_state"] == (BREAKS, BREAKS)
    assert {effects for place, effects in found.items() if place[0] == "field-renamed"} == {(HARMLESS, HARMLESS)}
    assert {place for place in found if BREAKS in found[place]} == {("field-extra", "esp/drq_state")}


def test_the_streams_with_the_esp_scsi_adapter_break_at_the_same_place():
    old, new = (of_vmdesc(parse_vmdesc(raw(f"vmdesc-am53c974-{version}"))) for version in ("7.2", "11.1"))
    comparison = compare_schemas(old, new)
    broken = {(d.device, d.path) for d in comparison.differences if d.effect() is BREAKS}
    assert broken == {("pciespscsi", "esp/ti_cmd"), ("pciespscsi", "esp/drq_state"), ("pciespscsi", "esp/asc_mode")}
    # 11.1 reads asc_mode only where the stream says that it is there; 7.2 does not know it.
    (asc_mode,) = (d for d in comparison.differences if d.path == "esp/asc_mode")
    assert (asc_mode.forward, asc_mode.backward) == (Effect.HARMLESS, BREAKS)


@pytest.mark.parametrize("version", ["7.2", "11.1"])
def test_what_a_qemu_sent_fits_what_it_says_that_it_sends(version):
    with qmigtool.open(samplefiles.path(f"pc-{version}")) as stream:
        comparison = compare_schemas(of_stream(stream), dump(version))
    assert not comparison.breaks()
    assert {(d.rule, d.effect()) for d in comparison.differences} == {
        ("device-missing", UNKNOWN),
        ("field-extra", UNKNOWN),
    }
    assert [d.path for d in comparison.differences if d.rule == "field-extra"] == [
        "piix4_pm/memhp/acpi_memory_hotplug/devs"
    ]
    assert {d.device for d in comparison.differences if d.rule == "device-missing"} >= {"cpu", "timer", "globalstate"}


def test_a_stream_of_7_2_loads_in_11_1():
    """Tried: such streams, with a few devices more or less, load both ways."""
    with qmigtool.open(samplefiles.path("pc-7.2")) as old, qmigtool.open(samplefiles.path("pc-11.1")) as new:
        assert not compare_schemas(of_stream(old), dump("11.1")).breaks()
        comparison = compare_schemas(of_stream(old), of_stream(new))
    assert not comparison.breaks()
    assert of_device("globalstate", comparison) == {("field-regrouped", "runstate"): (HARMLESS, HARMLESS)}


def test_only_the_devices_of_a_stream_are_compared():
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        present = present_in(stream)
    comparison = compare_schemas(dump("7.2"), dump("11.1"), present)
    devices = {d.device for d in comparison.differences}
    assert {"PIIX4_PM", "hpet", "mc146818rtc"} <= devices
    assert not devices & {"nvme", "sb16", "am53c974", "qxl", "e1000e", "vmclock"}
    assert not [d for d in comparison.differences if d.forward is BREAKS]
    assert len(comparison.differences) < len(compared().differences) / 4


def test_a_stream_is_what_it_is_itself():
    for name in samplefiles.DESCRIBED:
        with qmigtool.open(samplefiles.path(name)) as stream:
            shapes = of_stream(stream)
        assert compare_schemas(shapes, shapes).differences == ()


def test_the_built_in_schema_knows_what_is_in_the_samples():
    schema = of_schema(built_in())
    for name in ("pc-7.2", "q35-7.2", "pc-11.1"):
        with qmigtool.open(samplefiles.path(name)) as stream:
            comparison = compare_schemas(of_stream(stream), schema)
        assert not comparison.breaks(), name
        assert not [d for d in comparison.differences if d.rule.startswith("device")]


def test_a_table_of_the_differences():
    frame = schema_differences(compared())
    assert list(frame.columns) == [column.name for column in schema_differences.columns]
    assert len(frame) == len(compared().differences)
    assert set(frame["forward"]) <= {effect.value for effect in Effect}
    broken = frame[(frame["device"] == "am53c974") & (frame["forward"] == "breaks")]
    assert broken["path"].tolist() == ["esp/drq_state"]


def test_the_directions_are_counted_apart():
    forward, backward = (compared().counts(way) for way in (Direction.FORWARD, Direction.BACKWARD))
    assert forward[BREAKS] < backward[BREAKS] + backward[MAY]
    assert sum(forward.values()) == sum(backward.values()) == len(compared().differences)
    worst = [one.effect().rank for one, _ in compared().grouped()]
    assert worst == sorted(worst, reverse=True)
