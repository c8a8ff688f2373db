"""The list of RAM blocks, and what the records of a stream agree on."""

import pytest

from qmigtool.errors import LimitError
from qmigtool.parsers.ramstate import MAX_BLOCKS, RamBlock, RamState
from qmigtool.parsers.records import PostcopyAdvise
from tests.parsers.rambodies import fails, walk
from tests.support.streamwriter import (
    PAGE,
    be64,
    eos,
    flush,
    mem_size,
    word,
    zero,
)


def test_block_list():
    data = mem_size([("pc.ram", 0x1000000), ("/rom@etc/acpi/tables", 0x20000)]) + flush() + eos()
    state, end = walk(data, base=0x2C)
    assert end == 0x2C + len(data)
    assert state.blocks == [
        RamBlock("pc.ram", 0x1000000, 0x2C + 8),
        RamBlock("/rom@etc/acpi/tables", 0x20000, 0x2C + 8 + 7 + 8),
    ]


def test_too_many_blocks():
    state = RamState(PAGE)
    names = [f"b{n}" for n in range(MAX_BLOCKS + 1)]
    with pytest.raises(LimitError, match="more than 65536 RAM blocks"):
        walk(mem_size([(name, PAGE) for name in names]) + eos(), state)


def test_a_block_list_of_the_largest_total():
    total = (1 << 64) - PAGE
    state, _ = walk(mem_size([("r", total)]) + eos())
    walk(zero(total - PAGE, "r") + eos(), state)
    assert state.blocks[0].used_length == total


def test_an_empty_block_list():
    state, end = walk(word(0, 4) + eos())
    assert (state.blocks, end) == ([], 16)


def advised(summary):
    state = RamState(PAGE)
    state.advise = PostcopyAdvise(summary, PAGE)
    return state


def test_postcopy_page_sizes_where_they_differ():
    blocks = [("m", 0x400000, be64(0x200000)), ("pc.bios", 0x40000), ("last", 0x20000)]
    state, _ = walk(mem_size(blocks) + eos(), advised(0x201000))
    assert [b.page_size for b in state.blocks] == [0x200000, None, None]


@pytest.mark.parametrize("behind", [flush() + eos(), eos()])
def test_a_ram_word_is_no_page_size(behind):
    state, _ = walk(mem_size([("m", 0x400000)]) + behind, advised(0x3FFFFF))
    assert state.blocks[0].page_size is None


def test_without_advise_no_page_size_is_looked_for():
    fails(mem_size([("m", 0x400000, be64(0x200000))]) + eos(), RamState(PAGE))
