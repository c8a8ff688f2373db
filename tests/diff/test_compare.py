"""Two streams as a whole: what is aligned, what counts, what is said of it."""

from pathlib import Path

import pytest

import qmigtool
from qmigtool.diff import DifferenceKind, compare
from tests.diff.comparing import compared, edited, places
from tests.rewrite.editing import sample, stream_of
from tests.support import samplefiles
from tests.support.streamwriter import Vmsd, be32, num

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
