"""Pages by kind, passes, and pages that are absent."""

import io
import json
import random
import time
import tracemalloc

import pytest

import qmigtool
from qmigtool.errors import UnsupportedError
from qmigtool.parsers.ramstate import RamBlock, RamState
from qmigtool.ram import usage
from tests.ram.memories import MIB, multifd_channel, naive, opened, ram_of, refused, run, walked, whole
from tests.support.packedsamples import NAMES, packed
from tests.support.ramwriter import (
    discard,
    filled,
    greeting,
    mapped,
    multifd_main,
    named_page,
    packet,
    plain,
    sync,
)
from tests.support.streamwriter import PAGE, StreamWriter, be64, eos, mem_size, page, xbzrle, zero


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_counts_and_histories_are_the_naive_ones(name):
    expected = naive(name)
    counts = {block: {} for block in expected.sizes}
    discarded = dict.fromkeys(expected.sizes, 0)
    for (block, _), writes in expected.history.items():
        for write in writes:
            if write.encoding == "discard":
                discarded[block] += 1
                continue
            counts[block][write.encoding] = counts[block].get(write.encoding, 0) + 1
    rng = random.Random(name)  # noqa: S311
    often = sorted(expected.history, key=lambda page: -len(expected.history[page]))[:20]
    with opened(name) as stream:
        ram = stream.ram
        assert ram.count() == counts
        assert ram.discarded() == discarded
        for block, number in [*often, *rng.sample(sorted(expected.history), min(60, len(expected.history)))]:
            found = ram.history(block, number * ram.page_size)
            writes = expected.history[block, number]
            assert [(r.channel, r.encoding.name.lower()) for r in found] == [(w.channel, w.encoding) for w in writes]
            assert [r.offset for r, w in zip(found, writes, strict=True) if w.offset is not None] == [
                w.offset for w in writes if w.offset is not None
            ]
            assert [r.order for r in found] == sorted({r.order for r in found})
            assert ram.page(block, number * ram.page_size) == expected.content.get(
                (block, number), bytes(ram.page_size)
            )


def test_a_stream_with_its_channels_left_out_lacks_those_pages():
    with qmigtool.open(packed("multifd-none-7.2").path) as stream:
        assert stream.complete
        assert stream.ram.count()["pc.ram"] == {"zero": 3753}
        assert stream.ram.absent("pc.ram") == 343
        for action in (
            lambda: stream.ram.read("pc.ram", 4 * MIB, PAGE),
            lambda: stream.ram.page("pc.ram", 4 * MIB),
            lambda: next(stream.ram.pages("pc.ram")),
            lambda: stream.ram.write_block("pc.ram", io.BytesIO()),
        ):
            with pytest.raises(UnsupportedError, match="in none of the given channels"):
                action()
        assert stream.ram.read("pc.ram", 4 * MIB, PAGE, absent="zero") == bytes(PAGE)
        assert stream.ram.read("pc.ram", 0, MIB) == naive("multifd-none-7.2").block("pc.ram")[:MIB]


def test_passes_count_rounds_through_memory():
    w = plain(
        named_page(0, 1), named_page(1, 2), named_page(5, 3), named_page(1, 4), named_page(4, 5), named_page(4, 6)
    )
    with ram_of(w.finish()) as stream:
        ram = stream.ram
        by_page = {number: [r.pass_ for r in ram.history("r", number * PAGE)] for number in range(8)}
        assert by_page == {0: [0], 1: [0, 1], 2: [], 3: [], 4: [1, 2], 5: [0], 6: [], 7: []}
        assert [(p["pass"], p["pages"]) for p in usage.passes(ram)] == [(0, 3), (1, 2), (2, 1)]
        assert usage.totals(ram) == {
            "sent_pages": 6, "distinct_pages": 4, "rewritten_pages": 2, "zero_ratio": 0.0, "absent_pages": 4,
        }  # fmt: skip


def test_without_its_channels_a_multifd_stream_refuses_to_make_memory_up(tmp_path):
    main_stream = multifd_main(1, 8, between=[zero(0, "r")]).finish()
    target = tmp_path / "memory"
    target.write_bytes(b"as it was")
    with ram_of(main_stream) as stream:
        ram = stream.ram
        assert ram.absent("r") == 7
        assert ram.page("r", 17) == ram.read("r", 0, PAGE) == bytes(PAGE)
        for action in (
            lambda: ram.page("r", PAGE),
            lambda: ram.read("r", PAGE - 1, 2),
            lambda: list(ram.pages("r")),
        ):
            text = refused(action)
            assert "'r'" in text
            assert "0x1000" in text
            assert "one of 7" in text
            assert "--channel" in text
        with target.open("r+b") as file:
            refused(lambda: ram.write_block("r", file))
        assert target.read_bytes() == b"as it was"
        assert ram.read("r", 0, 8 * PAGE, absent="zero") == bytes(8 * PAGE)
        assert ram.page("r", PAGE, absent="zero") == bytes(PAGE)
        assert sum(len(part) for _, part in ram.pages("r", absent="zero")) == 8
        ram.write_block("r", io.BytesIO(), absent="zero")
    with ram_of(main_stream, multifd_channel(0, range(1, 8))) as stream:
        assert stream.ram.absent("r") == 0
        assert stream.ram.read("r", 7 * PAGE, PAGE) == filled(107)
        assert not stream.problems


def test_without_the_preempt_channel_what_was_discarded_is_absent():
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 8 * PAGE)]) + eos())
    w.part(1, whole(*range(8)) + eos())
    w.command(6, "POSTCOPY_RAM_DISCARD", discard("r", (2 * PAGE, 2 * PAGE)))
    w.part(1, named_page(3, 99) + eos())
    w.end(1, eos())
    data = w.finish(vmdesc=False)
    with ram_of(data) as stream:
        assert stream.ram.absent("r") == 1
        assert stream.ram.page("r", 3 * PAGE) == filled(99)
        assert "0x2000" in refused(lambda: stream.ram.read("r", 0, 8 * PAGE))
        block = usage.blocks(stream.ram)[0]
        assert (block["sent"], block["absent"], block["discarded"]) == (9, 1, 2)
        assert block["by_encoding"] == {"normal": 9}
    with ram_of(data, page(2 * PAGE, filled(50), "r")) as stream:
        assert stream.ram.absent("r") == 0
        assert stream.ram.page("r", 2 * PAGE) == filled(50)


@pytest.mark.parametrize(("name", "missing"), [("multifd-none-7.2", ".bin"), ("postcopy-preempt-11.1", "preempt")])
def test_real_streams_without_a_channel(name, missing):
    sample = packed(name)
    with qmigtool.open(sample.path, channels=sample.channels) as stream:
        assert sum(stream.ram.absent(block.idstr) for block in stream.ram_blocks) == 0
    rest = [path for path in sample.channels if missing not in path.name]
    with qmigtool.open(sample.path, channels=rest) as stream:
        assert usage.totals(stream.ram)["absent_pages"] > 0
        refused(lambda: list(stream.ram.pages("pc.ram")))


def test_a_change_of_a_page_that_is_not_there_is_absent():
    with ram_of(plain(zero(0, "r"), xbzrle(PAGE, b"\x00\x01\xff"), pages=2).finish()) as stream:
        assert stream.ram.absent("r") == 1
        refused(lambda: stream.ram.page("r", PAGE))


def test_a_clear_bit_of_mapped_ram_is_a_zero_page():
    with ram_of(mapped({1: filled(5)}, 70)) as stream:
        assert stream.ram.absent("r") == 0
        assert stream.ram.read("r", 0, 70 * PAGE) == bytes(PAGE) + filled(5) + bytes(68 * PAGE)


def test_ram_says_on_stderr_what_is_absent(capsys, tmp_path):
    path = tmp_path / "main.mig"
    path.write_bytes(multifd_main(1, 8, between=[zero(0, "r")]).finish())
    words = "7 of 8 pages are in none of the given channels (multifd or postcopy: see --channel)"
    for option in ((), ("--csv",), ("--json",)):
        code, out, err = run(capsys, "ram", path, *option)
        assert (code, words in err) == (0, True)
        if option == ("--json",):
            found = json.loads(out)
            assert (found["absent_pages"], found["blocks"][0]["absent"], found["pass_count"]) == (7, 7, 1)
        else:
            assert "absent" in out
    channel = tmp_path / "channel"
    channel.write_bytes(multifd_channel(0, range(1, 8)))
    code, out, err = run(capsys, "ram", path, "--channel", channel, "--json")
    assert (code, err, json.loads(out)["absent_pages"]) == (0, "", 0)


def test_a_shared_block_is_not_counted_as_absent(capsys):
    assert run(capsys, "ram", packed("mapped-ignoreshared-11.1").path)[2] == ""


def test_counts_alone_tell_that_pages_are_missing():
    assert walked(whole(*range(8)) + eos()).held() == (8, 8)
    assert walked(whole(*range(5)) + eos()).held() == (5, 8)
    assert walked(whole(*range(8)) + eos(), whole(*range(8)) + eos()).held() == (8, 8)
    two = (("r", 8 * PAGE), ("s", 4 * PAGE))
    assert walked(whole(*range(8)) + whole(*range(8)) + eos(), blocks=two).held() == (8, 12)
    lost = discard("r", (0, 2 * PAGE), (4 * PAGE, PAGE))
    assert walked(whole(*range(8)) + eos(), whole(0) + eos(), commands=[(2, lost)]).held() == (6, 8)
    assert walked(whole(*range(8)) + eos(), whole(0, 1, 4) + eos(), commands=[(2, lost)]).held() == (8, 8)
    # what was never sent is discarded as well
    assert walked(whole(2, 3, 5, 6, 7) + eos(), whole(0, 1, 4) + eos(), commands=[(2, lost)]).held() == (8, 8)
    state = RamState(PAGE, frozenset(["x-ignore-shared"]))
    state.add_block(RamBlock("shared", 8 * PAGE, 0, mr_addr=0))
    assert state.held() == (0, 0)


def test_zero_pages_at_the_end_of_a_packet_are_no_second_pass():
    normal, empty = [0, 2, 3, 6], [1, 4, 5, 7]
    payload = b"".join(filled(100 + p) for p in normal)
    one = packet([p * PAGE for p in normal], payload, zero=[p * PAGE for p in empty])
    scrambled = packet([PAGE * p for p in (6, 0, 3, 2)], b"".join(filled(p) for p in (6, 0, 3, 2)))
    channel = greeting() + sync() + one + sync() + scrambled + sync() + sync()
    with ram_of(multifd_main(2, 8).finish(), channel) as stream:
        ram = stream.ram
        assert not stream.problems
        assert usage.passes(ram)["pages"].tolist() == [8, 4]
        want = [filled(p) if p in normal else bytes(PAGE) for p in range(8)]
        assert ram.read("r", 0, 8 * PAGE) == b"".join(want)


def test_passes_are_columns():
    """A stream that goes back with every page has as many passes; objects would be many times its size."""
    pages = 50_000
    records = b"".join(be64((pages - 2 - i) * PAGE | 0x22) + b"\0" for i in range(pages - 1))
    with ram_of(plain(zero((pages - 1) * PAGE, "r"), records, pages=pages).finish()) as stream:
        ram = stream.ram
        tracemalloc.start()
        assert len(usage.passes(ram)) == pages
        assert tracemalloc.get_traced_memory()[1] < 200 * pages
        tracemalloc.stop()


@pytest.mark.slow
def test_many_blocks_and_many_runs_do_not_multiply():
    blocks, runs = 65_536, 100_000
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([(str(i), PAGE) for i in range(blocks)]) + eos())
    w.part(1, zero(0, "0") + b"".join(be64(0x22) + bytes([i & 1]) for i in range(1, runs)) + eos())
    w.end(1, eos())
    with ram_of(w.finish()) as stream:
        ram = stream.ram
        start = time.process_time()
        found = usage.blocks(ram)
        assert usage.totals(ram, found)["sent_pages"] == runs
        assert (len(found), found[0]["sent"], found[1]["absent"]) == (blocks, runs, 1)
        assert time.process_time() - start < 20
