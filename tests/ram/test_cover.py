"""Which record wrote each page last."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.ram import usage
from qmigtool.ram.columns import Encoding
from qmigtool.ram.cover import cover
from tests.ram.memories import MIB, TIB, huge, naive, opened, ram_of
from tests.support.packedsamples import NAMES
from tests.support.ramwriter import (
    SYNC,
    channel,
    filled,
    greeting,
    multifd_main,
    named_page,
    packet,
    plain,
    sync,
)
from tests.support.streamwriter import PAGE, zero


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_last_writer_is_the_last_in_the_history(name):
    expected = naive(name)
    with opened(name) as stream:
        ram = stream.ram
        for block in stream.ram_blocks:
            final = ram.final(block.idstr)
            assert (final.start[1:] >= final.start[:-1] + final.pages[:-1]).all()
            written = {number for one, number in expected.history if one == block.idstr}
            assert int(final.pages.sum()) == len(written)
            for start, run in list(zip(final.start.tolist(), final.run.tolist(), strict=True))[:200]:
                last = expected.history[block.idstr, start][-1]
                assert Encoding(ram.runs[run]["encoding"]).name.lower() == last.encoding
                assert int(ram.runs[run]["channel"]) == last.channel


def test_later_records_win_page_by_page():
    records = [zero(i * PAGE, "r" if not i else None) for i in range(8)]
    w = plain(*records, named_page(2, 9), named_page(3, 8), zero(3 * PAGE), named_page(7, 1), zero(4 * PAGE, fill=0x5A))
    with ram_of(w.finish()) as stream:
        ram = stream.ram
        want = [bytes(PAGE)] * 8
        want[2], want[7], want[4] = filled(9), filled(1), b"\x5a" * PAGE
        assert ram.read("r", 0, 8 * PAGE, absent="zero") == b"".join(want)
        assert [ram.page("r", i * PAGE + 17, absent="zero") for i in range(8)] == want
        assert [r.encoding for r in ram.history("r", 3 * PAGE)] == [Encoding.ZERO, Encoding.NORMAL, Encoding.ZERO]
        assert usage.blocks(ram)[0] == {
            "name": "r", "size": 8 * PAGE, "pages": 8, "sent": 13, "distinct": 8, "zero": 6, "elsewhere": False,
            "by_encoding": {"zero": 10, "normal": 3}, "absent": 0, "discarded": 0,
        }  # fmt: skip


runs = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=30)


@settings(max_examples=400, deadline=None)
@given(runs=runs, sparse=st.booleans(), data=st.data())
def test_cover_is_what_painting_page_by_page_gives(runs, sparse, data):
    if sparse:  # clusters far apart, and runs that touch nothing
        runs = [(start * 7 % 400, count) for start, count in runs]
    orders = data.draw(st.permutations(range(len(runs))))
    painted = {}
    for order, (start, count) in sorted(zip(orders, runs, strict=True)):
        for page_ in range(start, start + count):
            painted[page_] = order
    columns = [np.array(column, np.int64) for column in zip(*runs, strict=True)] or [np.zeros(0, np.int64)] * 2
    found = cover(columns[0], columns[1], np.array(orders, np.int64))
    flat = {}
    for start, count, run in zip(*(column.tolist() for column in found), strict=True):
        assert count > 0
        for page_ in range(start, start + count):
            assert page_ not in flat
            flat[page_] = run
    assert flat == painted
    assert found.start.tolist() == sorted(found.start.tolist())
    for page_ in range(450):
        at = found.find(page_)
        assert (None if at is None else int(found.run[at])) == painted.get(page_)


def test_a_terabyte_of_zeros_costs_nothing(tmp_path):
    with ram_of(huge()) as stream:
        ram = stream.ram
        tracemalloc.start()
        tracemalloc.reset_peak()
        assert len(ram.runs) == 2
        assert ram.page("huge", TIB // 2, absent="zero") == bytes(PAGE)
        assert ram.read("huge", TIB - PAGE, PAGE, absent="zero") == filled(1)
        assert ram.final("huge").pages.tolist() == [1, 1]
        assert usage.blocks(ram)[0]["distinct"] == 2
        assert len(ram.history("huge", 0)) == 1
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        tracemalloc.stop()


def test_epochs_decide_across_channels():
    """Two channels, two rounds. Page 0 goes by channel 2 first, then by channel 1; page 1 the other way round."""
    one = channel(5, b"", packet([PAGE], filled(11)), packet([0], filled(20)))
    two = channel(5, b"", packet([0], filled(10)), packet([PAGE], filled(21)), number=1)
    for channels in ((one, two), (two, one)):
        with ram_of(multifd_main(3, 8).finish(), *channels) as stream:
            assert stream.ram.read("r", 0, 2 * PAGE, absent="zero") == filled(20) + filled(21)
            assert len(stream.ram.history("r", 0)) == 2
            assert not stream.problems


@pytest.mark.parametrize("flushes", [True, False])
def test_a_zero_page_on_the_main_channel_obeys_the_epochs(flushes):
    """START ends epoch 0, the PARTs epochs 1 and 2. Page 0 is zero in round 1, normal in 2; page 1 the other way."""
    between = [zero(0, "r"), zero(PAGE, "r")]
    main = multifd_main(2, 8, flushes=flushes, between=between).finish()
    other = channel(4, b"", packet([PAGE], filled(1)), packet([0], filled(2)))
    with ram_of(main, other) as stream:
        assert stream.ram.read("r", 0, 2 * PAGE, absent="zero") == filled(2) + bytes(PAGE)
        assert [r.encoding.name for r in stream.ram.history("r", PAGE)] == ["MULTIFD", "ZERO"]


def test_data_in_a_sync_packet_comes_before_the_sync():
    """Until 8.2 a packet has both; then an empty packet with stale numbers follows."""
    stale = packet([], flags=0, size=PAGE)
    other = (
        greeting() + packet([0], filled(1), flags=SYNC) + stale + packet([0], filled(2), flags=SYNC) + stale + sync()
    )
    with ram_of(multifd_main(1, 8, flushes=False).finish(), other) as stream:
        assert not stream.problems
        assert stream.ram.page("r", 0, absent="zero") == filled(2)
        assert [int(run["epoch"]) for run in stream.ram.runs] == [0, 1]


def test_zero_pages_of_a_packet_replace_what_was_there():
    other = channel(3, packet([0, PAGE], filled(1) + filled(2)), packet([PAGE], filled(3), zero=[0]))
    with ram_of(multifd_main(1, 8).finish(), other) as stream:
        assert not stream.problems
        assert stream.ram.read("r", 0, 2 * PAGE, absent="zero") == bytes(PAGE) + filled(3)
