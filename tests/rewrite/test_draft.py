"""Sections that come, go or get another name, and the vmdesc that describes them."""

import pytest

import qmigtool
from qmigtool.errors import UsageError
from qmigtool.rewrite import Rewriter
from tests.rewrite.editing import (
    assert_true,
    bodies,
    described,
    full_sections,
    get,
    rewritten,
    sample,
    stream_of,
    subsection_bytes,
    writer,
)
from tests.rewrite.structures import OTHER, added, around, check, dev


def test_a_section_goes(style):
    w = writer(*around(dev()), footers=style.get("footers", True))
    v = writer(around(dev())[0], footers=style.get("footers", True))
    v.device(4, "after", 7, OTHER)
    spaced = {"spaced": style.get("spaced", False)}
    source = w.finish(**spaced)
    done = rewritten(source, lambda r: r.drop_section("dev"))
    assert done.data == v.finish(**spaced)
    assert_true(done.data)
    (change,) = done.changes
    assert (change.edit, change.where, change.old, change.new) == ("drop-section", "dev@1", dev().body(), None)
    assert source[change.offset : change.offset + 9] == b"\x04\0\0\0\x03\x03dev"


@pytest.mark.parametrize("left", [[0], [1], [2], [0, 1], [1, 2], [0, 2]])
def test_sections_go_from_anywhere(left, style):
    all_of = around(dev())
    w = writer(footers=style.get("footers", True))
    for i in left:
        w.device(2 + i, *all_of[i])
    spaced = {"spaced": style.get("spaced", False)}
    gone = [f"{all_of[i][0]}@{all_of[i][1]}" for i in range(3) if i not in left]
    done = rewritten(stream_of(*all_of, **style), lambda r: [r.drop_section(name) for name in gone])
    assert done.data == w.finish(**spaced)
    assert_true(done.data)


def test_no_section_is_left(style):
    spaced = {"spaced": style.get("spaced", False)}
    done = rewritten(
        stream_of(*around(dev()), **style), lambda r: [r.drop_section(name) for name in ("dev", "after", "before")]
    )
    assert done.data == writer(footers=style.get("footers", True)).finish(**spaced)
    with qmigtool.open(done.data) as stream:
        assert stream.complete
        with pytest.raises(UsageError):
            Rewriter(stream).add_section("x", 1, data=b"x")


@pytest.mark.parametrize(
    ("name", "instance", "label"),
    [("vad", None, "vad@1"), (None, 9, "dev@9"), ("a/long:name", 0xFFFFFFFF, "a/long:name@4294967295")],
)
def test_a_section_gets_another_name(name, instance, label, style):
    done = check(
        style,
        around(dev()),
        lambda r: r.rename_section("dev@1", name, instance),
        [around(dev())[0], (name or "dev", 1 if instance is None else instance, dev()), around(dev())[2]],
    )
    assert done.changes[0].new == label


def test_sections_come_in_the_order_asked_for(style):
    spaced = {"spaced": style.get("spaced", False)}
    first, second, third = around(dev())
    w = writer(first, footers=style.get("footers", True))
    w.device(*added(5, "new", 0, 1, b"one"))
    w.device(*added(6, "0000:00:04.0/new", 2, 3, b""))
    w.device(3, *second)
    w.device(4, *third)
    w.device(*added(7, "new", 4, 0xFFFFFFFF, b"three"))
    w.device(*added(8, "last", 4, 1, b"four"))
    done = rewritten(
        stream_of(first, second, third, **style),
        lambda r: r.add_section("new", 1, data=b"one", after="before"),
        lambda r: r.add_section("0000:00:04.0/new", "3", "2", data=b"", after="new@0"),
        lambda r: r.add_section("new", 0xFFFFFFFF, 4, data="746872 6565"),
        lambda r: r.add_section("last", 1, 4, data=b"four"),
    )
    assert done.data == w.finish(**spaced)
    assert_true(done.data)
    assert [c.offset for c in done.changes] == [None] * 4


def test_two_behind_one_stand_as_the_later_is_nearer(style):
    done = rewritten(
        stream_of(*around(dev()), **style),
        lambda r: r.add_section("one", 1, data=b"1", after="dev"),
        lambda r: r.add_section("two", 1, data=b"2", after="dev"),
    )
    assert [s[0] for s in full_sections(done.data)] == ["before", "dev", "two", "one", "after"]
    assert_true(done.data)


def test_a_section_behind_one_that_goes(style):
    done = rewritten(
        stream_of(*around(dev()), **style),
        lambda r: r.add_section("one", 1, data=b"1", after="dev"),
        lambda r: r.drop_section("dev"),
        lambda r: r.rename_section("one", "uno"),
    )
    assert [s[0] for s in full_sections(done.data)] == ["before", "uno", "after"]
    assert_true(done.data)


def test_what_comes_and_goes_leaves_no_trace(style):
    source = stream_of(*around(dev()), **style)
    done = rewritten(
        source,
        lambda r: r.add_section("one", 1, data=b"1", after="dev"),
        lambda r: r.drop_section("one"),
        lambda r: r.add_subsection("dev", "dev/x", data=b"1"),
        lambda r: r.drop_subsection("dev/dev/x"),
        lambda r: r.rename_section("before", "be"),
        lambda r: r.rename_section("be", "before"),
    )
    assert done.data == source


def test_edits_see_what_those_before_have_made(style):
    done = rewritten(
        stream_of(*around(dev()), **style),
        lambda r: r.add_section("new", 1, data=b"12345678"),
        lambda r: r.add_subsection("new", "new/sub", data=b"abc"),
        lambda r: r.set("new/new/sub/data", "hex:646566"),
        lambda r: r.set("new@0/data", b"87654321"),
        lambda r: r.rename_subsection("new/new/sub", "new/s"),
        lambda r: r.set_version("new", 3),
        lambda r: r.rename_section("new", "newer", 5),
    )
    assert full_sections(done.data)[-1] == (
        "newer",
        5,
        3,
        5,
        b"87654321" + subsection_bytes("new/s", 1, b"def"),
    )
    assert_true(done.data)
    assert get(described(done.data)[-1], "vmsd_name") == "new"


def test_a_section_that_qemu_is_known_to_send():
    done = rewritten(sample("twin-tcg-10.0"), lambda r: r.add_section("kvmclock", 1, values={"clock": 0x1122334455}))
    assert full_sections(done.data)[-1][:3] == ("kvmclock", 0, 1)
    assert bodies(done.data)["kvmclock", 0] == (0x1122334455).to_bytes(8, "big")
    assert bodies(sample("kvm-avx512-7.2"))["kvmclock", 0][8:9] == b"\x05"  # the real one has a subsection behind
    assert_true(done.data)
