"""Memory that is not there, channels that do not belong, and files that ask for more than they hold."""

import io
import json
import time
import tracemalloc

import numpy as np
import pytest

import qmigtool
from qmigtool.cli import main
from qmigtool.errors import LimitError, StreamError, UnsupportedError
from qmigtool.parsers.ram import RamBody
from qmigtool.parsers.ramruns import RunTable
from qmigtool.parsers.ramstate import MAX_PROBLEMS, RamBlock, RamState
from qmigtool.parsers.returnpath import Message, MigRpMessageType, PageRequests
from qmigtool.parsers.source import BufferSource
from qmigtool.parsers.window import Window
from qmigtool.ram import columns, usage
from tests.support.packedsamples import packed
from tests.support.ramwriter import (
    ZLIB,
    ZSTD,
    Deflate,
    discard,
    filled,
    greeting,
    mapped,
    message,
    multifd_main,
    named_page,
    packet,
    plain,
    request,
    sync,
)
from tests.support.streamwriter import PAGE, StreamWriter, be64, eos, flush, mem_size, page, xbzrle, zero

MIB = 1 << 20


def ram_of(data, *channels):
    return qmigtool.open(data, channels=channels)


def whole(*numbers, base=1):
    """PAGE records of ``r``, from page 0 on."""
    return b"".join(named_page(i, base + i) for i in numbers)


def multifd_channel(number, pages, *, epochs=3, **options):
    """A channel that says all ``pages`` in the epoch behind START, and has as many epochs as multifd_main(1, ...)."""
    payload = b"".join(filled(100 + p) for p in pages)
    return greeting(number, **options) + sync() + packet([p * PAGE for p in pages], payload) + sync() * (epochs - 1)


# -- pages that are in none of the given channels ----------------------------------------------------------------------


def refused(action):
    with pytest.raises(UnsupportedError) as caught:
        action()
    assert caught.value.feature == "pages that are in none of the given channels"
    return str(caught.value)


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


def run(capsys, *arguments):
    code = main.run([str(one) for one in arguments])
    return (code, *capsys.readouterr())


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


def walked(*bodies, blocks=(("r", 8 * PAGE),), commands=()):
    """A state that walked START and then ``bodies``; (place, command) are DISCARDs between them."""
    state = RamState(PAGE)
    for i, data in enumerate((mem_size(blocks) + eos(), *bodies)):
        for place, payload in commands:
            if place == i:
                state.discard(payload, 0)
        pos, ended = 0, False
        body = RamBody(state)
        while not ended:
            pos, ended = body.advance(Window(data, final=True), pos)
    return state


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


# -- channels that do not belong together ----------------------------------------------------------------------------


def problems_with(*channels, rounds=1, uuid=None):
    from qmigtool.ram.build import build_ram

    data = multifd_main(rounds, 8).finish()
    with ram_of(data) as stream:
        reader = stream._reading.new_reader(keep_runs=True)
        list(reader.sections())
        found = []
        build_ram(stream.source, reader.ram, (), [BufferSource(c) for c in channels], found, uuid)
    assert all(type(one) is StreamError and one.section == "<bytes>" for one in found)
    return [str(one) for one in found]


ONE, TWO = multifd_channel(0, [0, 1]), multifd_channel(1, [2, 3])


def test_channels_of_one_migration_are_no_problem():
    assert problems_with(ONE, TWO) == problems_with(TWO, ONE) == problems_with(ONE, uuid=bytes(16)) == []


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ((ONE, ONE), ["channel 0, as another one", "channel 0, as another one"]),
        ((TWO,), ["channel 1 of 1 (expected all channels from 0 to 1)"]),
        ((ONE, multifd_channel(2, [2])), ["channel 2 of 2 (expected all channels from 0 to 2)"]),
        ((ONE, multifd_channel(1, [2], uuid=b"u" * 16)), [f"the channel of VM {'75' * 16}"]),
        ((ONE, multifd_channel(1, [2], epochs=4)), ["4 SYNC packets (expected 3,"]),
        ((ONE, multifd_channel(1, [2], epochs=2)), ["2 SYNC packets (expected 3,"]),
        (
            (ONE, greeting(1) + packet([0], Deflate()(filled(1)), flags=ZLIB) + sync() * 3),
            ["pages compressed with ZLIB (expected NOCOMP)"],
        ),
    ],
)
def test_foreign_and_missing_channels_are_reported(channels, words):
    found = problems_with(*channels)
    assert len(found) == len(words)
    assert all(word in one for word, one in zip(words, found, strict=True)), found


def test_the_stream_s_own_uuid_decides():
    found = problems_with(ONE, uuid=b"v" * 16)
    assert len(found) == 1
    assert f"(expected {'76' * 16})" in found[0]


# -- passes ----------------------------------------------------------------------------------------------------------


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


# -- what costs more than it holds -----------------------------------------------------------------------------------


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


def test_a_bitmap_that_changes_with_every_bit_is_bounded(monkeypatch):
    pages = 8 * columns.PIECE * 8
    header = mapped({}, 64)
    with ram_of(header) as stream:
        block = stream.ram_blocks[0]
    size = pages // 8
    huge = RamBlock("r", pages * PAGE, 0, mapped=block.mapped)
    source = BufferSource(header[: block.mapped.bitmap_offset] + b"\x55" * size)
    tracemalloc.start()
    with pytest.raises(LimitError, match="the bitmap of RAM block 'r'"):
        columns.from_mapped(0, huge, source, PAGE, room=100_000)
    assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    found = columns.from_mapped(0, huge, source, PAGE)
    tracemalloc.stop()
    assert len(found) == pages
    assert found["encoding"][:4].tolist() == [4, 5, 4, 5]


@pytest.mark.parametrize("big_endian", [False, True])
def test_bitmaps_longer_than_a_piece(big_endian, monkeypatch):
    monkeypatch.setattr(columns, "PIECE", 16)
    rng = np.random.default_rng(5)
    for count in (64, 128, 129, 700, 1024):
        held = rng.random(count) < 0.5
        held[100:500] = held[100] if count > 500 else held[100:500]  # alike all over, across pieces
        held[:3] = True  # else nothing tells the byte order of whole words
        pages = {i: filled(i) for i in np.flatnonzero(held).tolist()}
        if count % 64 == 0 and big_endian:
            continue  # no bits beyond the last page: nothing tells
        with ram_of(mapped(pages, count, big_endian=big_endian)) as stream:
            want = b"".join(pages.get(i, bytes(PAGE)) for i in range(count))
            assert stream.ram.read("r", 0, count * PAGE) == want
            assert int(stream.ram.runs["pages"].sum()) == count
            changes = int((held[1:] != held[:-1]).sum())
            assert len(stream.ram.runs) == changes + 1


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


# -- what is damaged takes no more away than it has to ---------------------------------------------------------------


def test_packets_before_the_damage_stay():
    channel = greeting() + sync() + packet([0], filled(1)) + packet([PAGE], filled(2), magic=7)
    with ram_of(multifd_main(1, 8).finish(), channel) as stream:
        assert stream.ram.page("r", 0) == filled(1)
        assert [one.section for one in stream.problems] == ["<bytes>"]
        assert stream.problems[0].__traceback__ is None
        refused(lambda: stream.ram.page("r", PAGE))


@pytest.mark.parametrize("method", [ZLIB, ZSTD])
def test_what_was_unpacked_before_the_damage_stays(method):
    if method == ZSTD:
        zstd = pytest.importorskip("backports.zstd")
        packer = zstd.ZstdCompressor()
        good = packer.compress(filled(1), packer.FLUSH_BLOCK)
    else:
        good = Deflate()(filled(1))
    channel = greeting() + sync() + packet([0], good, flags=method) + packet([PAGE], b"garbage", flags=method)
    channel += sync() * 2
    with ram_of(multifd_main(1, 8).finish(), channel) as stream:
        ram = stream.ram
        for _ in range(2):
            assert ram.page("r", 0) == filled(1)
            with pytest.raises(StreamError) as caught:
                ram.page("r", PAGE)
            assert caught.value.section == "multifd"


def test_one_broken_bitmap_leaves_the_others():
    data = bytearray(mapped({1: filled(5)}, 70))
    with ram_of(bytes(data)) as stream:
        bitmap = stream.ram_blocks[0].mapped.bitmap_offset
    data[bitmap + 8 : bitmap + 16] = b"\xff" * 8
    with ram_of(bytes(data)) as stream:
        assert stream.ram.absent("r") == 70
        assert len(stream.problems) == 1


@pytest.mark.parametrize("record", [mem_size([("s", PAGE)]), mem_size([("r", PAGE)]), flush()])
def test_a_preempt_channel_cannot_touch_the_stream(record):
    data = plain(whole(*range(8))).finish()
    with ram_of(data, named_page(0, 50) + record + named_page(1, 51)) as stream:
        ram = stream.ram
        assert [block.idstr for block in ram.blocks] == ["r"]
        assert stream.ram_blocks == ram.blocks
        assert [type(one) for one in stream.problems] == [StreamError]
        assert "where only pages are allowed" in str(stream.problems[0])
        assert ram.read("r", 0, 2 * PAGE) == filled(50) + filled(2)


@pytest.mark.parametrize("pages", [{"normal": [8 * PAGE]}, {"normal": [5]}, {"zero": [8 * PAGE]}, {"zero": [1]}])
def test_a_packet_s_pages_lie_in_their_block(pages):
    payload = filled(1) if "normal" in pages else b""
    bad = packet(pages.get("normal", []), payload, zero=pages.get("zero", []))
    with ram_of(multifd_main(1, 8).finish(), greeting() + sync() + packet([0], filled(9)) + bad) as stream:
        assert stream.ram.count() == {"r": {"multifd": 1}}
        assert len(stream.problems) == 1


def test_only_page_requests_of_a_return_path_are_kept():
    pong = message(2, bytes(4))
    path = pong * 50_000 + request(PAGE, PAGE, "r") + pong + request(3 * PAGE, 2 * PAGE)
    with ram_of(plain(whole(*range(8))).finish(), path) as stream:
        assert not stream.problems
        asked = stream.ram.return_path
        assert [(m.block, m.start, m.length) for m in asked] == [("r", PAGE, PAGE), ("r", 3 * PAGE, 2 * PAGE)]
        assert asked[-1] == asked[1:][0]
        assert asked[0].type is MigRpMessageType.MIG_RP_MSG_REQ_PAGES_ID
        assert (path[asked[1].offset : asked[1].end]) == request(3 * PAGE, 2 * PAGE)


def test_page_requests_are_columns():
    table = PageRequests()
    tracemalloc.start()
    for i in range(20_000):
        table.add(Message(MigRpMessageType.MIG_RP_MSG_REQ_PAGES, 16 * i, 16 * i + 16, None, None, i * PAGE, PAGE))
    assert tracemalloc.get_traced_memory()[1] < 64 * len(table)
    tracemalloc.stop()
    assert table[19_999].start == 19_999 * PAGE
    assert table[0].block is None
    with pytest.raises(IndexError):
        table[20_000]


def test_a_ram_has_a_short_name():
    with ram_of(plain(whole(*range(8))).finish()) as stream:
        assert repr(stream.ram) == "<Ram 1 blocks, 0x8000 bytes, 1 runs, 1 channels>"


def test_a_table_of_runs_takes_no_run_that_its_column_cannot_hold():
    table = RunTable(PAGE)
    table.add(0, 0, 0, 0, (1 << 32) - 1, 0, 0, 0)
    table.add(0, 0, 0, ((1 << 32) - 1) * PAGE, 1, 0, 0, 0)
    assert [run.pages for run in table] == [(1 << 32) - 1, 1]
