"""Two streams as a whole: what is aligned, what counts, what is said of it."""

import struct
from pathlib import Path

import pytest

import qmigtool
from qmigtool.diff import DifferenceKind, compare, differences
from tests.diff.comparing import compared, edited, places
from tests.rewrite.editing import sample, stream_of
from tests.support import samplefiles
from tests.support.streamwriter import Vmsd, be32, num, nums

ALL = sorted(samplefiles.NAMES)


@pytest.mark.parametrize("name", ALL)
def test_a_stream_equals_itself(name: str) -> None:
    found = compared(name, name)
    assert found.same
    assert found.excused == ()


@pytest.mark.parametrize(
    ("path", "value", "meaning"),
    [
        ("cpu@2/env.regs[3]", 0x1234, "RBX"),
        ("cpu@0/env.cr[4]", 0x600, "CR4: -OSXSAVE"),
        ("cpu@0/env.mxcsr", 0x1FA0, "MXCSR: +PE"),
        ("cpu@0/env.xcr0", 0x7, "XCR0: -BNDREGS -BNDCSR -PKRU"),
        ("i8254@0/channels[1]/count", 77, ""),
        ("i8259@1/imr", 0x5A, ""),
        ("cpu@1/env.segs[2]/base", 0x10000, "SS base"),
    ],
)
def test_one_field_is_one_difference(path: str, value: int, meaning: str) -> None:
    with qmigtool.open(sample("pc-7.2")) as stream:
        field = stream.field(path)
        old, offset = field.value, field.offset
    found = compared("pc-7.2", edited("pc-7.2", lambda r: r.set(path, value)))
    assert places(found) == [path]
    (difference,) = found.differences
    assert (difference.kind, difference.a, difference.b) == (DifferenceKind.CHANGED, old, value)
    assert (difference.offset, difference.offset_b) == (offset, offset)
    assert difference.meaning == meaning


def test_a_changed_buffer_is_told_by_its_first_byte() -> None:
    with qmigtool.open(sample("pc-7.2")) as stream:
        raw = bytearray(stream.field("mc146818rtc@0/cmos_data").raw)
    raw[0x40] ^= 1
    raw[0x52] ^= 0x80
    found = compared("pc-7.2", edited("pc-7.2", lambda r: r.set("mc146818rtc@0/cmos_data", bytes(raw))))
    (difference,) = found.differences
    assert difference.meaning == "2 of 128 bytes differ, first at +0x40"


def test_sections_are_aligned_by_name_and_instance_not_by_order_or_number() -> None:
    one, two = Vmsd("d", 1, [num("x", "uint32", 7)]), Vmsd("d", 1, [num("x", "uint32", 8)])
    a = stream_of(("d", 0, one), ("d", 1, two))
    b = stream_of(("d", 1, two), ("d", 0, one))
    assert a != b
    assert compared(a, b).same


def test_a_name_without_its_path_is_the_same_device() -> None:
    """find_se in migration/savevm.c takes the compat name for the other."""
    bare = edited("pc-7.2", lambda r: r.rename_section("0000:00:01.1/ide", "ide"))
    assert compared("pc-7.2", bare).same
    assert compared(bare, "pc-7.2").same
    found = compared("pc-7.2", edited("pc-7.2", lambda r: r.rename_section("0000:00:01.1/ide", "idf")))
    assert places(found) == ["0000:00:01.1/ide@0", "idf@0"]


def test_two_that_one_name_could_mean_are_not_paired() -> None:
    one = Vmsd("d", 1, [num("x", "uint32", 1)])
    a = stream_of(("p/d", 0, one), ("q/d", 0, one))
    assert places(compared(a, stream_of(("d", 0, one)))) == ["p/d@0", "q/d@0", "d@0"]
    # And a device in another slot is another one.
    assert places(compared(stream_of(("p/d", 0, one)), stream_of(("q/d", 0, one)))) == ["p/d@0", "q/d@0"]


def test_a_section_on_one_side() -> None:
    found = compared("pc-7.2", edited("pc-7.2", lambda r: r.drop_section("hpet")))
    (difference,) = found.differences
    assert (difference.where, difference.kind, difference.b) == ("hpet@0", DifferenceKind.ONLY_A, None)
    back = compared(edited("pc-7.2", lambda r: r.drop_section("hpet")), "pc-7.2")
    assert [d.kind for d in back.differences] == [DifferenceKind.ONLY_B]


def test_the_stream_as_a_whole() -> None:
    found = compared(
        "pc-7.2",
        edited(
            "pc-7.2",
            lambda r: r.machine_type("pc-i440fx-8.0"),
            lambda r: r.add_capability("x-ignore-shared"),
            lambda r: r.rename_block("pc.rom", "rom"),
        ),
    )
    assert places(found) == ["[machine]", "[RAM block pc.rom]", "[capability x-ignore-shared]", "[RAM block rom]"]


def test_a_missing_subsection_equals_one_with_all_defaults() -> None:
    """poll_control_msr and misc_enable are left out when they are 1, the others when 0 (target/i386/machine.c)."""
    bare = edited("kvm-avx512-7.2", lambda r: r.set("cpu@0/env.xcr0", 0xE7))
    for name, raw in (
        ("cpu/poll_control_msr", struct.pack(">Q", 1)),
        ("cpu/msr_ia32_misc_enable", struct.pack(">Q", 1)),
        ("cpu/pkru", struct.pack(">I", 0)),
        ("cpu/xss", struct.pack(">Q", 0)),
    ):
        more = edited("kvm-avx512-7.2", lambda r, name=name, raw=raw: r.add_subsection("cpu@0", name, data=raw))  # type: ignore[misc]
        assert len(more) > len(bare), name
        assert compared(bare, more).same, name
        assert compared(more, bare).same, name


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


def test_a_device_that_nothing_describes_is_compared_by_its_bytes() -> None:
    a = stream_of(("nobody", 0, Vmsd("d", 1, [num("x", "uint32", 7)])), vmdesc=False)
    b = stream_of(("nobody", 0, Vmsd("d", 1, [num("x", "uint32", 8)])), vmdesc=False)
    (difference,) = compared(a, b).differences
    assert (difference.where, difference.a, difference.b) == ("nobody@0", be32(7), be32(8))
    assert difference.meaning.startswith("cannot be decoded")


def test_a_broken_stream_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    data = sample("pc-7.2").read_bytes()
    with qmigtool.open(sample("pc-7.2")) as stream:
        hpet = stream.device("hpet").section
    with qmigtool.open(data[: hpet.offset + 10]) as cut, qmigtool.open(data) as whole:
        found = compare(whole, cut)
        assert cut.problems
    # What follows the place where reading stopped is unknown, not absent.
    assert found.differences == ()
    (why,) = found.undecided
    assert "hpet@0, mc146818rtc@0, " in why
    assert why.endswith(f"globalstate@0: not reached: B is truncated at {hpet.offset + 10:#x}")


def test_other_machines_have_no_x86_registers() -> None:
    found = compared("arm-7.2", edited("arm-7.2", lambda r: r.set("cpu@0/env.regs[3]", 5)))
    assert [(d.where, d.meaning) for d in found.differences] == [("cpu@0/env.regs[3]", "")]


def test_the_data_frame() -> None:
    frame = differences(compared("twin-kvm-10.0", "twin-tcg-10.0"))
    assert list(frame.columns) == [column.name for column in differences.columns]
    for column in differences.columns:
        assert str(frame[column.name].dtype).startswith(column.dtype.replace("string", "str")[:3]), column.name
    assert set(frame.query("not excused").topic.dropna()) == {
        "clock",
        "execution",
        "accelerator",
        "SMM",
        "APIC",
        "PIC",
        "PIT",
    }
