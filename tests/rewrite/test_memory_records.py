"""Edits of page records that stay records: what is left, what it says, and that nothing else was touched."""

import zlib

import pytest
from hypothesis import given, settings

import qmigtool
from qmigtool.errors import UnsupportedError
from tests.rewrite.memories import CONTINUE, FLUSH, NORMAL, ZERO, edited, walk
from tests.rewrite.memorymodel import DELTA, Model, call, content, edits, stream_of, streams
from tests.rewrite.recorded import notes, raws, records
from tests.support.ramwriter import channel, discard, filled, multifd_main, named_page, packet, plain
from tests.support.streamwriter import (
    PAGE,
    StreamWriter,
    be32,
    be64,
    compressed,
    eos,
    mem_size,
    page,
    target_page_bits,
    xbzrle,
    zero,
)


def test_the_walker_reads_what_was_written(two):
    assert records(two) == [
        *[("a", 0, NORMAL), ("a", 1, 0x22), ("a", 2, 0x28), ("a", 3, 0x28)],
        *[("a", 2, 0x60), ("b", 0, ZERO), ("b", 1, 0x28), ("b", 2, 0x22)],
        *[("a", 3, NORMAL), ("", 0, FLUSH | CONTINUE), ("a", 0, 0x120)],
    ]
    assert b"".join(raws(two)) in two.replace(eos() + b"\x7e" + be32(1) + b"\x02" + be32(1), b"")


def test_records_that_all_name_their_block_are_all_renamed():
    """As QEMU 7.2 writes them in postcopy: a name in every record, side by side."""
    old = stream_of([("a", 8)], [page(i * PAGE, filled(i + 1), "a") for i in range(5)], [zero(5 * PAGE, "a", 1)])
    new = edited(old, lambda r: r.rename_block("a", "bcd"))
    assert {block for block, *_ in records(new)} == {"bcd"}
    assert [r.data for r in walk(new).records] == [*(filled(i + 1) for i in range(5)), b"\x01"]


def test_a_smaller_block_loses_the_records_beyond(two):
    new = edited(two, lambda r: r.resize_block("a", 2 * PAGE))
    assert walk(new).blocks == [("a", 2 * PAGE), ("b", 3 * PAGE)]
    # page 2 and 3 went in each round; in the last the naming one, so that what follows has to name
    assert records(new) == [
        *[("a", 0, NORMAL), ("a", 1, 0x22)],
        *[("b", 0, ZERO), ("b", 1, 0x28), ("b", 2, 0x22)],
        *[("", 0, FLUSH | CONTINUE), ("a", 0, 0x100)],
    ]
    kept = [raw for raw, (block, number, _) in zip(raws(two), records(two), strict=True) if block != "a" or number < 2]
    assert raws(new)[:-1] == kept[:-1]
    assert raws(new)[-1] == compressed(0, zlib.compress(filled(6)), "a")
    assert walk(new).behind == walk(two).behind


KINDS = {
    "normal": lambda addr: page(addr, filled(9)),
    "zero": lambda addr: zero(addr, fill=3),
    "xbzrle": lambda addr: xbzrle(addr, DELTA),
    "compressed": lambda addr: compressed(addr, zlib.compress(filled(9))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_when_the_naming_record_goes_the_next_one_names(kind):
    """Of any kind, also in another PART, and after more that go."""
    record = KINDS[kind]
    old = stream_of(
        [("abc", 8)],
        [page(0, filled(1), "abc"), zero(PAGE)],
        [page(7 * PAGE, filled(2), "abc"), record(6 * PAGE), zero(7 * PAGE)],
        [record(PAGE), record(0)],
    )
    new = edited(old, lambda r: r.resize_block("abc", 3 * PAGE))
    assert [(number, named) for _, _, _, number, _, _, named in walk(new).records] == [
        *[(0, True), (1, False), (1, True), (0, False)],
    ]
    # What stays is preceded by one byte with the length of the name, and the name.
    raw = record(PAGE)
    assert raws(new)[2] == be64(int.from_bytes(raw[:8], "big") - CONTINUE) + b"\x03abc" + raw[8:]


def test_a_smaller_block_of_which_nothing_is_left_between_others():
    old = stream_of(
        [("a", 4), ("b", 4)],
        [page(0, filled(1), "a"), page(2 * PAGE, filled(2), "b"), zero(3 * PAGE), page(PAGE, filled(3), "a")],
        [zero(2 * PAGE), zero(0, "b")],
    )
    new = edited(old, lambda r: r.resize_block("b", PAGE))
    assert records(new) == [("a", 0, NORMAL), ("a", 1, NORMAL), ("a", 2, 0x22), ("b", 0, ZERO)]


def test_named_records_side_by_side_of_a_smaller_block():
    old = stream_of([("a", 4)], [page(i * PAGE, filled(i + 1), "a") for i in range(4)], [zero(0, "a"), zero(PAGE)])
    new = edited(old, lambda r: r.resize_block("a", 3 * PAGE))
    assert raws(new) == [raw for raw, (_, number, _) in zip(raws(old), records(old), strict=True) if number < 3]


def test_what_was_cut_off_does_not_come_back(two):
    new = edited(two, lambda r: r.resize_block("a", 2 * PAGE), lambda r: r.resize_block("a", 4 * PAGE))
    small = edited(two, lambda r: r.resize_block("a", 2 * PAGE))
    assert new == edited(small, lambda r: r.resize_block("a", 4 * PAGE))
    assert max(number for block, number, _ in records(new) if block == "a") == 1


def test_scrubbed_records_are_zero_pages(two):
    new = edited(two, lambda r: r.scrub_ram())
    assert records(new) == [
        *[("a", 0, ZERO), ("a", 1, 0x22), ("a", 2, 0x22), ("a", 3, 0x22)],
        *[("a", 2, 0x22), ("b", 0, ZERO), ("b", 1, 0x22), ("b", 2, 0x22)],
        *[("a", 3, ZERO), ("", 0, FLUSH | CONTINUE), ("a", 0, 0x22)],
    ]
    assert {r.data for r in walk(new).records if r.kind != FLUSH} == {b"\0"}
    for part in (*map(filled, range(1, 7)), DELTA, zlib.compress(filled(6))):
        assert part not in new


def test_squeezed_pages_are_those_that_are_zero():
    """One, the first, the last, all and none of a run; the naming one among them."""
    patterns = ["1", "0", "01", "10", "0110", "1001", "0000", "1111", "0101010101", "1100110011"]
    parts = [
        [page(i * PAGE, bytes(PAGE) if bit == "0" else filled(1), "a" if i == 0 else None) for i, bit in enumerate(p)]
        for p in patterns
    ]
    almost = bytes(PAGE - 1) + b"\1"
    old = stream_of([("a", 16)], *parts, [page(0, almost), page(PAGE, almost[::-1]), zero(2 * PAGE, fill=0xFF)])
    new = walk(edited(old, lambda r: r.squeeze_zero_pages()))
    for before, now in zip(walk(old).records, new.records, strict=True):
        assert now[:1] + now[2:4] == before[:1] + before[2:4]
        assert now.named == before.named
        if before.data == bytes(PAGE):
            assert (now.kind, now.data) == (ZERO, b"\0")
        else:
            assert now.raw == before.raw


def test_a_long_run_of_small_pages():
    """More records than are made at once (pages of 256 bytes, as AVR has them)."""
    size, count = 256, 70_000
    live = {0, 1, 65_535, 65_536, 69_998}
    part = [
        (be64(i * size | NORMAL | CONTINUE) if i else be64(NORMAL) + b"\1a") + (b"x" if i in live else b"\0") * size
        for i in range(count)
    ]
    old = stream_of([("a", count)], part, config=target_page_bits(8))
    squeezed = walk(edited(old, lambda r: r.squeeze_zero_pages()), size)
    assert [r.page for r in squeezed.records] == list(range(count))
    assert {r.page for r in squeezed.records if r.kind == NORMAL} == live
    assert {r.data for r in squeezed.records if r.kind == ZERO} == {b"\0"}
    assert sum(r.named for r in squeezed.records) == 1
    scrubbed = walk(edited(old, lambda r: r.scrub_ram()), size)
    assert [(r.page, r.kind, r.data) for r in scrubbed.records] == [(i, ZERO, b"\0") for i in range(count)]


def test_streams_without_footers(two):
    parts = [[page(3 * PAGE, filled(1), "a"), zero(0), page(PAGE, bytes(PAGE))]]
    old = stream_of([("a", 4)], *parts, footers=False)
    new = edited(old, lambda r: r.resize_block("a", 2 * PAGE), lambda r: r.squeeze_zero_pages())
    assert records(new, footers=False) == [("a", 0, ZERO), ("a", 1, 0x22)]


EDITS = {
    "rename": lambda r: r.rename_block("r", "s"),
    "resize": lambda r: r.resize_block("r", PAGE),
    "drop": lambda r: r.drop_block("r"),
    "scrub": lambda r: r.scrub_ram(),
}


@pytest.mark.parametrize("edit", EDITS)
def test_blocks_of_a_postcopy_stream_are_named_by_its_commands_too(edit):
    w = StreamWriter()
    w.command(3, "POSTCOPY_ADVISE", be64(0x1000) + be64(0x1000))
    w.start(1, "ram", 0, 4, mem_size([("r", 8 * PAGE)]) + eos())
    w.part(1, page(0, filled(1), "r") + zero(PAGE) + eos())
    w.command(6, "POSTCOPY_RAM_DISCARD", discard("r", (0, PAGE)))
    w.end(1, page(0, filled(2), "r") + eos())
    with pytest.raises(UnsupportedError, match="convert it first"):
        edited(w.finish(), EDITS[edit])


@pytest.mark.parametrize("edit", EDITS)
def test_blocks_whose_pages_are_in_other_channels(edit):
    """The other channels are not written anew: they would name a block that is no more, and give away what it held."""
    main = multifd_main(1, 8).finish()
    other = channel(3, packet([0, PAGE], filled(1) + filled(2)))
    with pytest.raises(UnsupportedError, match="other channels"):
        edited(main, EDITS[edit], channels=[other])


@pytest.mark.parametrize("edit", EDITS)
def test_pages_in_channels_that_were_not_given_are_named(edit):
    """What is scrubbed or renamed here still is what it was there."""
    found = notes(multifd_main(1, 8).finish(), EDITS[edit])
    assert found[0].startswith("RAM block r: 8 pages are not in this file; another channel")


@pytest.mark.parametrize("edit", EDITS)
def test_no_channel_is_named_where_no_page_is_missing(edit):
    whole = plain(*(named_page(i, 7) for i in range(8))).finish()
    assert not [note for note in notes(whole, EDITS[edit]) if "not in this file" in note]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(streams, edits)
def test_any_edits_of_any_records(data, wanted):
    source = walk(data)
    model = Model(source)
    made = []
    for edit in wanted:
        if model.fits(edit):
            model.make(edit)
            made.append(lambda r, edit=edit: call(r, edit))
    new = edited(data, *made)
    result = walk(new)
    assert result.blocks == list(model.blocks.items())
    assert [r.meaning for r in result.records] == model.records
    assert (result.before, result.behind, result.sections) == (source.before, source.behind, source.sections)
    # Records of blocks that no edit touched are copied, named or not as they were.
    kept = {old: new for new, old in model.source.items() if new in model.blocks and old not in model.touched}
    if not model.squeezed:
        unchanged = [r.raw for r in source.records if r.block in kept]
        assert [r.raw for r in result.records if r.block in kept.values()] == unchanged
    assert made or new == data
    # What is left makes of memory what the edits make of it, page by page; qmigtool reads it so, too.
    assert {key: page for key, page in content(model.records).items() if any(page)} == model.live
    with qmigtool.open(new, forward=True) as stream:
        sizes = {block.idstr: block.used_length for block in stream.ram_blocks}
        pages = [(name, number) for name in sizes for number in range(sizes[name] // PAGE)]
        found = {(name, i): stream.ram.page(name, i * PAGE, absent="zero") for name, i in pages}
    assert {key: page for key, page in found.items() if any(page)} == model.live
