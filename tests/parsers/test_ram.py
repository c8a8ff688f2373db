"""Bodies of the ram section, record kind by record kind, and everything a record can have wrong."""

import struct

import pytest

from qmigtool.errors import TruncatedError, UnsupportedError
from qmigtool.parsers.ramruns import Run, RunTable
from qmigtool.parsers.ramstate import RamBlock, RamState
from qmigtool.parsers.records import MappedRamHeader
from tests.parsers.rambodies import fails, listed, walk
from tests.support.streamwriter import (
    PAGE,
    be32,
    be64,
    compressed,
    eos,
    mem_size,
    page,
    str8,
    word,
    xbzrle,
    zero,
)


def test_real_bytes_of_the_facts():
    state, _ = walk(bytes.fromhex("0000000001000004 0670632e72616d 0000000001000000 0000000000000010"))
    assert [(b.idstr, b.used_length) for b in state.blocks] == [("pc.ram", 0x1000000)]
    state.runs = RunTable(PAGE)
    data = bytes.fromhex("0000000000000008 0670632e72616d") + b"p" * PAGE + bytes.fromhex("000000000000102200") + eos()
    walk(data, state, base=0xCA)
    assert list(state.runs) == [
        Run(0xCA, 0x08, 0, 0, 1, 15, PAGE, 0),
        Run(0x10D9, 0x02, 0, 0x1000, 1, 9, 0, 0),
    ]


def test_every_kind_of_page_named_and_continued():
    state = listed(("a", 16 * PAGE), ("b", 16 * PAGE))
    state.runs = RunTable(PAGE)
    records = [
        zero(0, "a", 5),
        zero(PAGE, None, 5),
        page(0, b"x" * PAGE, "b"),
        page(PAGE, b"y" * PAGE),
        xbzrle(PAGE, b"\x01\x01z", "b"),
        xbzrle(2 * PAGE, b"\x01\x01z"),
        compressed(3 * PAGE, b"c" * 97, "a"),
        compressed(4 * PAGE, b"c" * 4110),
        zero(5 * PAGE),
    ]
    _, end = walk(b"".join(records) + eos(), state)
    assert end == sum(map(len, records)) + 8
    assert [(r.flags, r.block, r.addr // PAGE, r.head, r.payload, r.fill) for r in state.runs] == [
        (0x02, 0, 0, 11, 0, 5),
        (0x02, 0, 1, 9, 0, 5),
        (0x08, 1, 0, 10, PAGE, 0),
        (0x08, 1, 1, 8, PAGE, 0),
        (0x40, 1, 1, 13, 3, 0),
        (0x40, 1, 2, 11, 3, 0),
        (0x100, 0, 3, 14, 97, 0),
        (0x100, 0, 4, 12, 4110, 0),
        (0x02, 0, 5, 9, 0, 0),
    ]
    assert state.pages == {(0, 2): 3, (1, 8): 2, (1, 0x40): 2, (0, 0x100): 2}


def test_continue_survives_the_end_of_a_body():
    state = listed()
    walk(zero(0, "r") + eos(), state)
    walk(zero(PAGE) + eos(), state)
    assert state.pages == {(0, 2): 2}


def test_the_last_page_of_a_block_and_one_more():
    state = listed(("r", 3 * PAGE))
    walk(zero(2 * PAGE, "r") + eos(), state)
    error = fails(zero(0) + zero(PAGE) + zero(2 * PAGE) + zero(3 * PAGE) + eos(), state)
    assert error.offset == 27
    assert "page 0x3000 is outside RAM block 'r'" in str(error)


def test_a_block_that_ends_inside_a_page():
    """Blocks are multiples of the target's page, but nothing says that a file's are."""
    state = listed(("r", 2 * PAGE + 16), ("s", PAGE - 16))
    walk(b"".join(zero(n * PAGE, None if n else "r") for n in range(3)) + eos(), state)
    assert state.pages == {(0, 2): 3}


def test_a_run_ends_where_its_block_ends():
    state = listed(("r", 40 * PAGE), ("s", 40 * PAGE))
    data = b"".join(zero(n * PAGE, None if n else "r") for n in range(40)) + zero(40 * PAGE)
    assert fails(data + eos(), state).offset == 11 + 39 * 9


@pytest.mark.parametrize(
    ("data", "offset", "words"),
    [
        (zero(0), 0, "CONTINUE before any block was named"),
        (zero(0, "nobody"), 0, "RAM block 'nobody', which the block list does not have"),
        (word(0, 0x08) + b"\0" + bytes(PAGE), 0, "RAM block ''"),
        (word(0, 0x00), 0, "unknown RAM record flags 0x0"),
        (word(0, 0x01), 0, "unknown RAM record flags 0x1"),
        (word(0, 0x0A), 0, "unknown RAM record flags 0xa"),
        (word(0, 0x30), 0, "unknown RAM record flags 0x30"),
        (word(0, 0x800), 0, "unknown RAM record flags 0x800"),
        (zero(0, "r") + xbzrle(0, b"x", encoding=2), 19, "XBZRLE page with encoding 2"),
        (zero(0, "r") + xbzrle(0, b""), 19, "XBZRLE page with encoding 1 and 0 bytes"),
        (zero(0, "r") + xbzrle(0, bytes(PAGE + 1)), 19, "4097 bytes"),
        (zero(0, "r") + compressed(0, b""), 19, "a compressed page of 0 bytes"),
        (zero(0, "r") + compressed(0, bytes(4111)), 19, "a compressed page of 4111 bytes"),
        (mem_size([("r", PAGE)]), 8, "RAM block 'r' is listed twice"),
        (word(2 * PAGE, 4) + str8("x") + be64(0) + eos(), 8, "RAM block 'x' has 0x0 bytes"),
        (word(2 * PAGE, 4) + str8("x") + be64(3 * PAGE) + eos(), 8, "RAM block 'x' has 0x3000 bytes"),
        (word(2 * PAGE, 4) + str8("x") + be64(1 << 63) + eos(), 8, "RAM block 'x' has"),
        (word(2 * PAGE, 4) + b"\0", 8, "RamBlockHeader.idstr is empty"),
    ],
)
def test_wrong_records(data, offset, words):
    error = fails(data + bytes(8))
    assert error.offset == offset
    assert words in str(error)


def test_rdma_is_named_and_not_read():
    error = fails(word(0, 0x80) + eos(), kind=UnsupportedError)
    assert (error.offset, error.section) == (0, "ram")
    assert "RDMA" in str(error)


def test_an_eos_with_an_address_is_noted_and_ends_the_body():
    state, end = walk(word(0x5000, 0x10), listed())
    assert end == 8
    assert [(p.offset, p.section) for p in state.problems] == [(0, "ram")]


def test_a_cut_names_the_offset_of_the_end():
    for data in (zero(0, "r"), page(0, bytes(PAGE), "r"), xbzrle(0, b"abc", "r"), compressed(0, b"abc", "r")):
        for cut in (*range(1, min(len(data), 24)), len(data) - 1):
            assert fails(data[:cut], kind=TruncatedError).offset == cut


def test_names_of_any_bytes():
    state, _ = walk(mem_size([(b"\xff../\x1b[31m", PAGE)]) + zero(0, b"\xff../\x1b[31m") + eos())
    assert state.blocks[0].idstr.encode("utf-8", "surrogateescape") == b"\xff../\x1b[31m"


def test_ignore_shared():
    state = RamState(PAGE, frozenset(["x-ignore-shared"]))
    walk(mem_size([("m", 0x1000000, be64(0)), ("pc.bios", 0x40000, be64(0xFFFC0000))]) + eos(), state)
    assert [b.mr_addr for b in state.blocks] == [0, 0xFFFC0000]


def mapped_header(bitmap, pages, version=1):
    return be32(version) + be64(PAGE) + be64(bitmap) + be64(pages)


def test_mapped_ram():
    """One block: header, bitmap, a gap, the pages, then EOS behind them."""
    state = RamState(PAGE, frozenset(["mapped-ram"]))
    head = word(2 * PAGE, 4) + str8("r") + be64(2 * PAGE)
    at = len(head) + 28
    data = head + mapped_header(at, 2 * PAGE) + b"\x03" + bytes(2 * PAGE - at - 1) + b"p" * (2 * PAGE) + eos()
    _, end = walk(data, state)
    assert end == len(data)
    assert state.blocks == [RamBlock("r", 2 * PAGE, 8, mapped=MappedRamHeader(1, PAGE, at, 2 * PAGE))]


def test_mapped_ram_offsets_count_from_the_start_of_the_file():
    """With file:...,offset=N the stream starts at N, and its offsets do not."""
    state = RamState(PAGE, frozenset(["mapped-ram"]), origin=0x1234)
    head = word(PAGE, 4) + str8("r") + be64(PAGE)
    at = len(head) + 28
    pages = 2 * PAGE - 0x1234
    data = head + mapped_header(at + 0x1234, 2 * PAGE) + bytes(pages - at + PAGE) + eos()
    assert walk(data, state)[1] == len(data)


def test_mapped_ram_of_an_ignored_block():
    state = RamState(PAGE, frozenset(["mapped-ram", "x-ignore-shared"]))
    data = word(PAGE, 4) + str8("r") + be64(PAGE) + be64(0x1000) + mapped_header(0, 0) + eos()
    assert walk(data, state)[1] == len(data)
    assert (state.blocks[0].mr_addr, state.blocks[0].mapped.pages_offset) == (0x1000, 0)


@pytest.mark.parametrize("offsets", [(10, PAGE), (60, 60), (PAGE, PAGE), (60, PAGE + 1), (60, 0), (1 << 63, 1 << 62)])
def test_mapped_ram_offsets_that_cannot_be(offsets):
    state = RamState(PAGE, frozenset(["mapped-ram"]))
    data = word(PAGE, 4) + str8("r") + be64(PAGE) + mapped_header(*offsets) + bytes(3 * PAGE)
    assert "the bitmap of RAM block 'r'" in str(fails(data, state))


def test_mapped_ram_beyond_the_end():
    state = RamState(PAGE, frozenset(["mapped-ram"]))
    data = word(PAGE, 4) + str8("r") + be64(PAGE) + mapped_header(60, 1 << 40)
    assert fails(data, state, TruncatedError).offset == len(data)


def test_mapped_ram_of_another_version():
    state = RamState(PAGE, frozenset(["mapped-ram"]))
    data = word(PAGE, 4) + str8("r") + be64(PAGE) + mapped_header(60, PAGE, version=2)
    assert "version 2" in str(fails(data, state, UnsupportedError))


@pytest.mark.parametrize("size", [256, 1024, 8192, 65_536])
def test_other_page_sizes(size):
    state = RamState(size)
    records = page(0, b"x" * size, "r") + b"".join(zero(n * size) for n in range(1, 30)) + page(0, b"y" * size)
    data = mem_size([("r", 30 * size)]) + records + eos()
    assert walk(data, state)[1] == len(data)
    assert state.pages == {(0, 8): 2, (0, 2): 29}
    assert struct.unpack(">Q", eos())[0] == 16
