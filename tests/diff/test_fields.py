"""The fields of two sections of one device, and its subsections."""

import struct

import qmigtool
from qmigtool.diff import DifferenceKind
from tests.diff.comparing import compared, edited, places
from tests.rewrite.editing import sample, stream_of
from tests.support.streamwriter import Vmsd, num, nums


def test_a_changed_buffer_is_told_by_its_first_byte() -> None:
    with qmigtool.open(sample("pc-7.2")) as stream:
        raw = bytearray(stream.field("mc146818rtc@0/cmos_data").raw)
    raw[0x40] ^= 1
    raw[0x52] ^= 0x80
    found = compared("pc-7.2", edited("pc-7.2", lambda r: r.set("mc146818rtc@0/cmos_data", bytes(raw))))
    (difference,) = found.differences
    assert difference.meaning == "2 of 128 bytes differ, first at +0x40"


def test_the_order_of_subsections_is_free() -> None:
    """QEMU loads them in any order (savevm's vmstate_subsection_load looks each up by its name)."""
    subs = [Vmsd(f"d/{name}", 1, [num("x", "uint32", value)]) for name, value in (("one", 1), ("two", 2), ("three", 3))]
    a, b = (stream_of(("d", 0, Vmsd("d", 1, [num("a", "uint8", 1)], order))) for order in (subs, subs[::-1]))
    assert a != b
    assert compared(a, b).same
    other = Vmsd("d/two", 1, [num("x", "uint32", 9)])
    found = compared(a, stream_of(("d", 0, Vmsd("d", 1, [num("a", "uint8", 1)], [subs[2], other, subs[0]]))))
    assert places(found) == ["d@0/d/two/x"]


def test_a_missing_subsection_differs_from_one_with_something_in_it() -> None:
    more = edited("kvm-avx512-7.2", lambda r: r.add_subsection("cpu@0", "cpu/xss", data=struct.pack(">Q", 0x800)))
    found = compared("kvm-avx512-7.2", more)
    (difference,) = found.differences
    assert (difference.where, difference.kind) == ("cpu@0/cpu/xss/env.xss", DifferenceKind.ONLY_B)
    assert difference.meaning == "IA32_XSS: +CET_U, A has no cpu/xss"


def test_fields_that_changed_their_name_are_found_by_their_place() -> None:
    before, after, other = (
        Vmsd("d", 1, [num("a", "uint32", 1), num(name, "uint32", value), num("z", "uint8", 1)])
        for name, value in (("old", 2), ("new", 2), ("new", 9))
    )
    assert compared(stream_of(("d", 0, before)), stream_of(("d", 0, after))).same
    assert places(compared(stream_of(("d", 0, before)), stream_of(("d", 0, other)))) == ["d@0/old|new"]


def test_a_field_that_one_version_adds() -> None:
    before = Vmsd("d", 1, [num("a", "uint32", 1)])
    zero = Vmsd("d", 2, [num("a", "uint32", 1), num("b", "uint32", 0)])
    full = Vmsd("d", 2, [num("a", "uint32", 1), num("b", "uint32", 5)])
    assert places(compared(stream_of(("d", 0, before)), stream_of(("d", 0, zero)))) == ["d@0/[version]"]
    found = compared(stream_of(("d", 0, before)), stream_of(("d", 0, full)))
    assert places(found) == ["d@0/[version]", "d@0/b"]
    assert found.differences[1].kind is DifferenceKind.ONLY_B


def test_a_long_array_is_one_range() -> None:
    a = Vmsd("d", 1, [nums("t", "uint16", [0] * 100)])
    b = Vmsd("d", 1, [nums("t", "uint16", [0] * 20 + [1] * 50 + [0] * 30)])
    (difference,) = compared(stream_of(("d", 0, a)), stream_of(("d", 0, b))).differences
    assert difference.where == "d@0/t[20:70]"
    assert difference.meaning == "50 elements differ"
