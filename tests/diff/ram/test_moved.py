"""Pages that moved."""

import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.diff.ram import PageClass, compare_ram
from tests.diff.ram.memories import CHANGED, FILLED, RECORD, kind, memory, of
from tests.support.ramwriter import filled
from tests.support.streamwriter import PAGE, StreamWriter, compressed, eos, mem_size, page, zero


@settings(max_examples=100, deadline=None)
@given(st.lists(RECORD, max_size=20), st.lists(RECORD, max_size=20))
def test_pages_that_moved_are_found_as_the_naive_search_finds_them(one, other):
    records_a, a = memory(one)
    records_b, b = memory(other)
    expected = set()
    for number, content in b.items():
        differs = kind(a[number], content) in (CHANGED, FILLED)
        if differs and len(set(content)) > 1 and content in a.values():
            expected.add(number * PAGE)
    with of(*records_a) as sa, of(*records_b) as sb:
        moved = compare_ram(sa, sb).moved()
        assert moved["offset"].tolist() == sorted(expected)
        for _, _, offset, origin in moved.tolist():
            assert sb.ram.page("r", offset) == sa.ram.page("r", origin)


def test_a_page_moves_between_blocks_and_encodings():
    def stream(*records):
        w = StreamWriter()
        w.start(1, "ram", 0, 4, mem_size([("x", 4 * PAGE), ("y", 4 * PAGE)]) + eos())
        w.part(1, b"".join(records) + eos())
        w.end(1, eos())
        return qmigtool.open(w.finish())

    nothing = [zero(i * PAGE, block) for block in "xy" for i in range(4)]
    a = stream(*nothing, compressed(PAGE, zlib.compress(filled(9)), "x"), page(2 * PAGE, filled(8), "x"))
    b = stream(*nothing, page(3 * PAGE, filled(9), "y"), page(2 * PAGE, filled(7), "x"), zero(0, "y", 0x55))
    with a, b:
        comparison = compare_ram(a, b)
        assert comparison.moved().tolist() == [(1, 0, 3 * PAGE, PAGE)]
        assert comparison.counts[PageClass.FILLED] == 2
        assert compare_ram(b, a).moved().tolist() == [(0, 1, PAGE, 3 * PAGE)]
        assert not len(compare_ram(a, a).moved())
