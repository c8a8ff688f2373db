"""Multifd channels: greeting, packets, payloads."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmigtool.errors import LimitError, QmigError, StreamError, TruncatedError, UnsupportedError
from qmigtool.parsers.multifd import (
    Compression,
    DeviceStatePacket,
    MultiFDFlag,
    MultiFDInit,
    MultiFDPacket,
    Packet,
    decode_payload,
    page_decoder,
    read_channel,
)
from qmigtool.parsers.window import Window
from tests.support.packedsamples import FOLDER, packed
from tests.support.ramwriter import Deflate, device_state, filled, greeting, packet, sync
from tests.support.streamwriter import PAGE

CHANNELS = sorted({path.name.split(".ch")[0] for path in FOLDER.glob("*.ch0.bin.xz")})


def read(data, page_size=PAGE):
    return list(read_channel(Window(data, final=True), page_size))


def test_constants():
    assert [flag.value for flag in (MultiFDFlag.SYNC, MultiFDFlag.COMPRESSION, MultiFDFlag.DEVICE_STATE)] == [
        1,
        0x3E,
        0x40,
    ]
    names = ("NOCOMP", "ZLIB", "ZSTD", "QPL", "UADK", "QATZIP")
    assert {name: Compression[name].value for name in names} == {
        "NOCOMP": 0, "ZLIB": 2, "ZSTD": 4, "QPL": 8, "UADK": 16, "QATZIP": 32,
    }  # fmt: skip


def test_a_channel():
    data = greeting(3, b"u" * 16) + sync() + packet([0, 2 * PAGE], bytes(2 * PAGE), zero=[PAGE]) + sync()
    init, first, pages, last = read(data)
    assert (init.channel, init.uuid) == (3, b"u" * 16)
    head = 320 + 8 * 128
    assert (first.offset, first.end, first.epoch, first.block) == (64, 64 + head, 0, None)
    assert (pages.offset, pages.epoch, pages.block) == (64 + head, 1, "r")
    assert (pages.normal, pages.zero) == ((0, 2 * PAGE), (PAGE,))
    assert (pages.payload, pages.payload_length) == (64 + 2 * head, 2 * PAGE)
    assert (last.epoch, last.end) == (1, len(data))


@pytest.mark.parametrize("page_size", [1024, 4096, 8192, 65536])
def test_the_header_grows_with_the_slots(page_size):
    data = greeting() + packet([page_size], bytes(page_size), page_size=page_size)
    _, one = read(data, page_size)
    assert one.payload == 64 + 320 + 8 * (524288 // page_size)
    assert one.end == len(data)


def test_stale_numbers_of_an_empty_packet_are_ignored():
    _, one = read(greeting() + packet([], size=0xEC19, block="pc.ram"))
    assert (one.normal, one.payload_length, one.block) == ((), 0, None)


def test_device_state():
    _, one, two = read(greeting() + device_state("0000:00:02.0", b"x" * 33) + sync())
    assert (one.block, one.normal, one.payload_length, one.end - one.offset) == (None, (), 33, 276 + 33)
    assert two.offset == one.end


@pytest.mark.parametrize("name", CHANNELS)
def test_real_channels_are_read_to_the_end_and_built_again(name):
    sample = packed(name)
    syncs = set()
    for channel in sample.channels:
        data = channel.read_bytes()
        window = Window(data, final=True)
        init, *packets = read(data)
        out = init.build()
        for one in packets:
            head, at = MultiFDPacket.parse(window, one.offset)
            slots = b"".join(o.to_bytes(8, "big") for o in (*one.normal, *one.zero))
            used = len(slots)
            out += head.build() + slots + data[at + used : one.payload]  # behind the used slots: whatever was there
            out += data[one.payload : one.end]
            assert head.pages_alloc in (0, 128)
        assert out == data
        assert packets[-1].end == len(data)
        syncs.add(sum(one.flags & 1 for one in packets))
    assert len(syncs) == 1  # as many on every channel


def test_records_are_built_again():
    for record, data in (
        (MultiFDInit, greeting(2)),
        (MultiFDPacket, packet([PAGE], filled(1))[:320]),
        (DeviceStatePacket, device_state("x", b"")),
    ):
        found, end = record.parse(Window(data, final=True), 0)
        assert (found.build(), end) == (data, len(data))


@pytest.mark.parametrize(
    ("data", "error", "offset"),
    [
        (greeting()[:63], TruncatedError, 63),
        (b"\x11\x22\x33\x45" + greeting()[4:], StreamError, 0),
        (greeting()[:4] + b"\0\0\0\2" + greeting()[8:], StreamError, 4),
        (greeting() + packet(count=129), LimitError, 64 + 16),
        (greeting() + packet(count=64, zeros=65), LimitError, 64 + 16),
        (greeting() + packet(count=0xFFFFFFFF), LimitError, 64 + 16),
        (greeting() + packet([0], bytes(PAGE), size=(1 << 20) + 1), LimitError, 64 + 20),
        (greeting() + packet([0], bytes(PAGE - 1)), StreamError, 64 + 20),
        (greeting() + packet([0], bytes(PAGE))[:-1], TruncatedError, None),
        (greeting() + packet()[:-1], TruncatedError, None),
        (greeting() + packet(magic=1), StreamError, 64),
        (greeting() + packet(version=3), StreamError, 68),
        (greeting() + device_state("x", b"", size=1), TruncatedError, None),
        (greeting() + device_state("x", b"", size=0xFFFFFFFF), TruncatedError, None),
        (greeting() + device_state("x", b"")[:100], TruncatedError, None),
    ],
)
def test_hostile_numbers(data, error, offset):
    with pytest.raises(error) as caught:
        read(data)
    assert type(caught.value) is error
    assert caught.value.offset == (len(data) if offset is None else offset)


@settings(max_examples=100)
@given(st.integers(0, 1400), st.binary(min_size=1, max_size=8))
def test_any_change_of_a_channel_is_read_or_one_of_our_errors(at, new):
    data = bytearray(greeting() + packet([0, PAGE], bytes(2 * PAGE), zero=[2 * PAGE]) + sync())
    data[at : at + len(new)] = new
    try:
        found = read(bytes(data))
    except QmigError:
        return
    assert found[-1].end == len(data)


def the_packet(count):
    return Packet(0, 2, 0, "r", tuple(range(count)), (), 99, 0, 0)


def test_payloads_continue_one_stream():
    pack, decoder = Deflate(), page_decoder(Compression.ZLIB)
    for value in range(5):
        data = filled(value) * 2
        assert decode_payload(decoder, the_packet(2), pack(data), PAGE) == data
    with pytest.raises(StreamError):  # the second payload of another channel's stream
        decode_payload(page_decoder(Compression.ZLIB), the_packet(2), pack(data), PAGE)


@pytest.mark.parametrize(
    ("size", "error"), [(PAGE - 1, TruncatedError), (PAGE + 1, StreamError), (1 << 22, StreamError)]
)
def test_a_payload_of_another_size(size, error):
    with pytest.raises(error) as caught:
        decode_payload(page_decoder(Compression.ZLIB), the_packet(1), Deflate()(bytes(size)), PAGE)
    assert (type(caught.value), caught.value.offset, caught.value.section) == (error, 99, "multifd")


@pytest.mark.parametrize("method", ["QPL", "UADK", "QATZIP"])
def test_methods_that_are_only_known_by_name(method):
    with pytest.raises(UnsupportedError, match=method):
        page_decoder(Compression[method])
