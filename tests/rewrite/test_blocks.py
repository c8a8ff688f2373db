"""Edits of RAM blocks: another name or size, dropped, scrubbed."""

import pytest

import qmigtool
from qmigtool.errors import UsageError
from tests.rewrite.memories import CONTINUE, FLUSH, ZERO, edited, walk
from tests.rewrite.recorded import notes, raws, records
from tests.support.streamwriter import (
    PAGE,
)


def test_a_block_gets_another_name_in_the_list_and_where_it_is_named(two):
    new = edited(two, lambda r: r.rename_block("a", "memory"))
    assert walk(new).blocks == [("memory", 4 * PAGE), ("b", 3 * PAGE)]
    # Another name changes nothing but itself: the length byte and the text, in one entry and two records.
    assert new.replace(b"\x06memory", b"\x01a") == two
    assert new.count(b"\x06memory") == 3
    assert edited(new, lambda r: r.rename_block("memory", "a")) == two


def test_names_can_be_exchanged(two):
    new = edited(
        two, lambda r: r.rename_block("a", "x"), lambda r: r.rename_block("b", "a"), lambda r: r.rename_block("x", "b")
    )
    assert walk(new).blocks == [("b", 4 * PAGE), ("a", 3 * PAGE)]
    swapped = {"a": "b", "b": "a", "": ""}
    assert [(swapped[block], *rest) for block, *rest in records(two)] == [tuple(one) for one in records(new)]


@pytest.mark.parametrize("name", ["", "x" * 256, "b"])
def test_a_name_that_cannot_be(two, name):
    with pytest.raises(UsageError):
        edited(two, lambda r: r.rename_block("a", name))


def test_names_of_255_bytes(two):
    name = "n" * 255
    new = edited(two, lambda r: r.rename_block("b", name))
    assert walk(new).blocks[1] == (name, 3 * PAGE)
    assert edited(new, lambda r: r.rename_block(name, "b")) == two


def test_what_is_not_there(two):
    for edit in (
        lambda r: r.rename_block("c", "d"),
        lambda r: r.drop_block("c"),
        lambda r: r.resize_block("c", PAGE),
        lambda r: r.scrub_ram("a", "c"),
    ):
        with pytest.raises(UsageError, match="no RAM block 'c'"):
            edited(two, edit)


def test_a_larger_block_gets_no_pages(two):
    new = edited(two, lambda r: r.resize_block("a", 4 * PAGE + (64 << 20)))
    assert walk(new).blocks == [("a", 4 * PAGE + (64 << 20)), ("b", 3 * PAGE)]
    assert raws(new) == raws(two)
    assert edited(new, lambda r: r.resize_block("a", 4 * PAGE)) == two


@pytest.mark.parametrize("size", [0, -PAGE, PAGE + 1, PAGE // 2, (1 << 60) + PAGE])
def test_a_size_that_cannot_be(two, size):
    with pytest.raises(UsageError):
        edited(two, lambda r: r.resize_block("a", size))


def test_a_block_goes_with_its_records(two):
    new = edited(two, lambda r: r.drop_block("a"))
    assert walk(new).blocks == [("b", 3 * PAGE)]
    assert records(new) == [("b", 0, ZERO), ("b", 1, 0x28), ("b", 2, 0x22), ("", 0, FLUSH | CONTINUE)]
    old = walk(two)
    assert raws(new) == [r.raw for r in old.records if r.block != "a"]
    assert (walk(new).before, walk(new).behind) == (old.before, old.behind)
    assert walk(new).sections == old.sections  # a PART of which nothing is left is one nevertheless


def test_all_blocks_can_go(two):
    new = edited(two, lambda r: r.drop_block("a"), lambda r: r.drop_block("b"))
    assert walk(new).blocks == []
    assert records(new) == [("", 0, FLUSH | CONTINUE)]
    with qmigtool.open(new) as stream:
        assert stream.complete


def test_a_name_that_was_dropped_is_free(two):
    new = edited(two, lambda r: r.drop_block("a"), lambda r: r.rename_block("b", "a"))
    assert walk(new).blocks == [("a", 3 * PAGE)]
    assert [block for block, *_ in records(new)] == ["a", "a", "a", ""]


def test_one_block_is_scrubbed(two):
    new = edited(two, lambda r: r.scrub_ram("b"))
    for old, now in zip(walk(two).records, walk(new).records, strict=True):
        if old.block == "b":
            assert (now.kind, now.data, now.page) == (ZERO, b"\0", old.page)
        else:
            assert now.raw == old.raw
    assert any("registers" in note for note in notes(two, lambda r: r.scrub_ram()))
