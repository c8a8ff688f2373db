"""Records of further channels: multifd, postcopy preempt, return path."""

import contextlib
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.errors import QmigError, StreamError, TruncatedError
from qmigtool.parsers.returnpath import Message, MigRpMessageType, PageRequests
from qmigtool.parsers.source import BufferSource
from tests.ram.memories import HOSTILE, MIB, multifd_channel, opened, postcopy, ram_of, refused, whole
from tests.support.packedsamples import packed
from tests.support.ramwriter import (
    ZLIB,
    Deflate,
    channel,
    device_state,
    filled,
    greeting,
    message,
    multifd_main,
    named_page,
    packet,
    plain,
    recv_bitmap,
    request,
    sync,
)
from tests.support.streamwriter import PAGE, be32, eos, flush, mem_size, page


def test_requests_of_the_return_path_are_there():
    with opened("postcopy-preempt-7.2") as stream:
        asked = [message for message in stream.ram.return_path if message.start is not None]
        assert len(asked) > 100
        assert {message.block for message in asked} <= {"pc.ram", "pc.bios"}
        assert all(message.length == PAGE and message.start % PAGE == 0 for message in asked)
        # what was asked for was sent, and most of it on the preempt channel
        by = [[record.channel for record in stream.ram.history(m.block, m.start)] for m in asked]
        preempt = 1 + [path.name for path in packed("postcopy-preempt-7.2").channels].index(
            "postcopy-preempt-7.2.preempt.bin"
        )
        assert all(by)
        assert sum(preempt in channels for channels in by) > len(asked) * 0.8


def test_device_state_packets_are_passed_over():
    other = channel(2, device_state("0000:00:02.0", b"x" * 5000) + packet([0], filled(1)))
    with ram_of(multifd_main(0, 8).finish(), other) as stream:
        assert stream.ram.page("r", 0, absent="zero") == filled(1)
        assert not stream.problems


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_channel_leaves_the_rest_readable(data):
    other = channel(2, packet([PAGE], filled(2)), number=1)
    if not any(data is HOSTILE[name] for name in ("short greeting", "cut header", "cut payload", "device state")):
        data += sync() + sync()  # so that it is not their number that is noticed
    for channels in ((data, other), (other, data)):
        with ram_of(multifd_main(0, 8).finish(), *channels) as stream:
            stream.ram  # noqa: B018
            assert stream.problems, "nobody noticed"
            assert all(isinstance(problem, StreamError) for problem in stream.problems)
            assert stream.ram.page("r", PAGE, absent="zero") == filled(2)


def test_the_preempt_channel_has_its_own_continue():
    """Its pages apply after the switchover, whatever came before on the main channel."""
    preempt = page(2 * PAGE, filled(50), "r") + page(3 * PAGE, filled(51)) + page(4 * PAGE, filled(52))
    for terminator in (b"", eos()):
        with ram_of(postcopy((2 * PAGE, 3 * PAGE)).finish(vmdesc=False), preempt + terminator) as stream:
            assert not stream.problems
            assert stream.ram.read("r", 2 * PAGE, 3 * PAGE, absent="zero") == filled(50) + filled(51) + filled(52)
            assert stream.ram.history("r", 3 * PAGE)[-1].offset == 8 + 2 + PAGE


@pytest.mark.parametrize(
    "data", [page(0, filled(1)), page(8 * PAGE, filled(1), "r"), page(0, filled(1), "s"), page(0, filled(1), "r")[:-1]]
)
def test_a_hostile_preempt_channel(data):
    with ram_of(postcopy().finish(vmdesc=False), data) as stream:
        assert stream.ram.page("r", 0, absent="zero") == filled(1)
        assert [type(problem) for problem in stream.problems] in ([StreamError], [TruncatedError])


def test_a_hostile_return_path_leaves_the_messages_before():
    good = request(PAGE, PAGE, "r") + request(2 * PAGE, PAGE)
    for bad in (
        b"\0\0\0\0",
        b"\0\4\0\1x",
        b"\0\2\xff\xff",
        recv_bitmap("r", b"", size=1 << 62),
        recv_bitmap("r", b"", mark=1),
    ):
        with ram_of(postcopy().finish(vmdesc=False), good + bad) as stream:
            assert [(m.block, m.start) for m in stream.ram.return_path] == [("r", PAGE), ("r", 2 * PAGE)]
            assert len(stream.problems) == 1
            assert isinstance(stream.problems[0], StreamError)


@settings(max_examples=150, deadline=None)
@given(
    other=st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=3000).map(lambda raw: greeting() + raw),
        st.binary(max_size=200).map(lambda raw: greeting() + packet([0], filled(1))[:320] + raw),
        st.binary(max_size=200).map(lambda raw: b"\0\3\0\x0e" + raw),
        st.binary(max_size=200).map(lambda raw: be32(0) + be32(0x108) + b"\x01r" + raw),
    )
)
def test_whatever_a_channel_holds_only_our_errors_come(other):
    # One that starts as a packed file is unpacked, and may be refused, when it is opened.
    with contextlib.suppress(QmigError), ram_of(multifd_main(0, 8).finish(), other) as stream:
        with contextlib.suppress(QmigError):
            stream.ram.read("r", 0, 8 * PAGE, absent="zero")
        assert all(isinstance(problem, QmigError) for problem in stream.problems)


def test_every_flip_in_a_real_channel_is_ours():
    """Bits flipped in a zlib channel of real QEMU: never another exception."""
    sample = packed("multifd-zlib-7.2")
    raw = sample.channels[0].read_bytes()
    rng = random.Random(7)  # noqa: S311
    for _ in range(15):
        data = bytearray(raw)
        for _ in range(3):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        channels = [bytes(data), sample.channels[1]]
        with contextlib.suppress(QmigError), qmigtool.open(sample.path, channels=channels) as stream:
            stream.ram.read("pc.ram", 0, 16 * MIB)


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


def test_packets_before_the_damage_stay():
    channel = greeting() + sync() + packet([0], filled(1)) + packet([PAGE], filled(2), magic=7)
    with ram_of(multifd_main(1, 8).finish(), channel) as stream:
        assert stream.ram.page("r", 0) == filled(1)
        assert [one.section for one in stream.problems] == ["<bytes>"]
        assert stream.problems[0].__traceback__ is None
        refused(lambda: stream.ram.page("r", PAGE))


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
