"""The records of all channels become one model of memory."""

import io

import pytest

import qmigtool
from qmigtool.errors import LimitError, QmigError, StreamError
from qmigtool.parsers.ramstate import MAX_PROBLEMS, RamState
from qmigtool.ram import usage
from tests.ram.memories import DELTA, HOSTILE, MIB, opened, postcopy, ram_of, walked, whole
from tests.support.packedsamples import read
from tests.support.ramwriter import (
    discard,
    filled,
    multifd_main,
    named_page,
    plain,
)
from tests.support.streamwriter import PAGE, StreamWriter, be64, eos, mem_size, xbzrle, zero


def test_a_discarded_page_is_forgotten():
    w = postcopy((2 * PAGE, 3 * PAGE), (7 * PAGE, PAGE), after=named_page(3, 99))
    with ram_of(w.finish(vmdesc=False)) as stream:
        assert stream.complete, stream.problems
        want = [filled(i + 1) for i in range(8)]
        want[2] = want[4] = want[7] = bytes(PAGE)
        want[3] = filled(99)
        assert stream.ram.read("r", 0, 8 * PAGE, absent="zero") == b"".join(want)
        assert [r.encoding.name for r in stream.ram.history("r", 3 * PAGE)] == ["NORMAL", "DISCARD", "NORMAL"]
        block = usage.blocks(stream.ram)[0]
        assert (block["sent"], block["distinct"], block["zero"]) == (9, 5, 0)
        totals = usage.totals(stream.ram)
        assert (totals["distinct_pages"], totals["rewritten_pages"]) == (5, 1)
        assert [p["pages"] for p in usage.passes(stream.ram)] == [8, 1]


def test_a_discard_forgets_deltas_too():
    first = named_page(0, 1) + xbzrle(0, DELTA)
    with ram_of(postcopy((0, PAGE), first=first).finish(vmdesc=False)) as stream:
        assert stream.ram.page("r", 0, absent="zero") == bytes(PAGE) == stream.ram.read("r", 0, PAGE, absent="zero")


@pytest.mark.parametrize(
    "ranges", [((0, 9 * PAGE),), ((8 * PAGE, PAGE),), (((1 << 64) - PAGE, 2 * PAGE),), ((1 << 63, 1 << 63),)]
)
def test_a_hostile_discard_is_reported(ranges):
    with ram_of(postcopy(*ranges).finish(vmdesc=False)) as stream:
        assert not stream.complete
        assert stream.ram.page("r", 0, absent="zero") == filled(1)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\1\1r\0", b"\0\1r\0" + bytes(15), b"\0\7nothing\0", b"\0\xff"])
def test_a_broken_discard_is_reported(payload):
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 8 * PAGE)]) + eos())
    w.command(6, "POSTCOPY_RAM_DISCARD", payload)
    w.end(1, named_page(0, 1) + eos())
    with ram_of(w.finish(vmdesc=False)) as stream:
        assert not stream.complete
        assert stream.ram.page("r", 0, absent="zero") == filled(1)


def test_a_limit_is_told_as_one():
    with ram_of(multifd_main(0, 8).finish(), HOSTILE["billions"]) as stream:
        stream.ram  # noqa: B018
        assert LimitError in [type(problem) for problem in stream.problems]


def test_a_pipe_knows_what_was_written_but_not_what():
    data = read("xbzrle-11.1")
    with qmigtool.open(io.BytesIO(data), keep_runs=True) as stream:
        assert stream.complete
        with opened("xbzrle-11.1") as other:
            assert stream.ram.count() == other.ram.count()
        with pytest.raises(QmigError):
            stream.ram.page("pc.ram", 4 * MIB)
    with qmigtool.open(io.BytesIO(data)) as stream, pytest.raises(QmigError):
        stream.ram  # noqa: B018


def test_a_discard_of_all_addresses_is_a_limit():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 1 << 60)]) + eos())
    w.command(6, "POSTCOPY_RAM_DISCARD", discard("r", (0, 1 << 60)))
    w.end(1, zero(0, "r") + eos())
    with ram_of(w.finish(vmdesc=False)) as stream:
        assert stream.ram.page("r", 0) == bytes(PAGE)
        assert [type(one) for one in stream.problems] == [LimitError]


@pytest.mark.parametrize("payload", [discard("r", (1, PAGE)), discard("r", (0, PAGE - 1)), b"\0\1r\1" + bytes(16)])
def test_a_crooked_discard_is_noted(payload):
    state = walked(whole(0) + eos(), commands=[(1, payload)])
    assert [type(one) for one in state.problems] == [StreamError]
    assert state.held() == (1, 8)


def test_an_empty_discard_hides_nothing():
    w = plain(whole(*range(8)))
    w.command(6, "POSTCOPY_RAM_DISCARD", discard("r", (PAGE, 0)))
    with ram_of(w.finish(vmdesc=False)) as stream:
        assert stream.ram.page("r", PAGE) == filled(2)


def test_problems_are_bounded_wherever_they_go():
    state = RamState(PAGE)
    taken = []
    for i in range(MAX_PROBLEMS + 50):
        state.discard(b"", i)
        taken += state.problems
        state.problems = []
    assert len(taken) == MAX_PROBLEMS + 1
    assert "and 50 more" in str(taken[-1])
    assert all(one.__traceback__ is None for one in taken)
    body = (be64(0x5010)) * 300
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    for at in range(0, len(body), 8):
        w.part(1, body[at : at + 8])
    w.end(1, eos())
    with ram_of(w.finish()) as stream:
        assert not stream.complete
        assert len(stream.problems) == MAX_PROBLEMS + 1
        assert "and 200 more" in str(stream.problems[-1])
