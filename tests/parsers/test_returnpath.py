"""The return path: every message, and what is not one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmigtool.errors import LimitError, QmigError, StreamError, TruncatedError
from qmigtool.parsers.returnpath import MigRpMessageType as Type
from qmigtool.parsers.returnpath import read_return_path
from qmigtool.parsers.window import Window
from tests.support.packedsamples import packed
from tests.support.ramwriter import message, recv_bitmap, request
from tests.support.streamwriter import be32


def read(data):
    return list(read_return_path(Window(data, final=True)))


EVERY = [
    (message(2, be32(1)), (Type.MIG_RP_MSG_PONG, 1, None, None, None)),
    (request(0x2A1E000, 0x1000, "pc.ram"), (Type.MIG_RP_MSG_REQ_PAGES_ID, None, "pc.ram", 0x2A1E000, 0x1000)),
    (request(0x6A15000, 0x2000), (Type.MIG_RP_MSG_REQ_PAGES, None, "pc.ram", 0x6A15000, 0x2000)),
    (request(0, 4096, "0000:00:02.0/vram"), (Type.MIG_RP_MSG_REQ_PAGES_ID, None, "0000:00:02.0/vram", 0, 4096)),
    (request(4096, 4096), (Type.MIG_RP_MSG_REQ_PAGES, None, "0000:00:02.0/vram", 4096, 4096)),
    (message(6, be32(1)), (Type.MIG_RP_MSG_RESUME_ACK, 1, None, None, None)),
    (message(7, b""), (Type.MIG_RP_MSG_SWITCHOVER_ACK, None, None, None, None)),
    (recv_bitmap("pc.ram", b"\xff" * 24), (Type.MIG_RP_MSG_RECV_BITMAP, None, "pc.ram", None, None)),
    (recv_bitmap("m", b""), (Type.MIG_RP_MSG_RECV_BITMAP, None, "m", None, None)),
    (message(1, be32(0)), (Type.MIG_RP_MSG_SHUT, 0, None, None, None)),
]


def test_every_message():
    found = read(b"".join(data for data, _ in EVERY))
    assert [(m.type, m.value, m.block, m.start, m.length) for m in found] == [expected for _, expected in EVERY]
    at = 0
    for one, (data, _) in zip(found, EVERY, strict=True):
        assert (one.offset, one.end) == (at, at + len(data))
        at += len(data)


def test_the_bytes_of_a_real_one():
    """stream.md 1.6, from real QEMU."""
    data = bytes.fromhex(
        "00020004 00000001 00030013 0000000002a1e000 00001000 06 70632e72616d 0004000c 0000000006a15000 00001000"
    )
    assert [(m.type.value, m.value, m.block, m.start) for m in read(data)] == [
        (2, 1, None, None), (3, None, "pc.ram", 0x2A1E000), (4, None, "pc.ram", 0x6A15000),
    ]  # fmt: skip


def test_a_real_destination_asked_for_pages():
    channels = packed("postcopy-preempt-11.1").channels
    data = next(path for path in channels if ".rp." in path.name).read_bytes()
    found = read(data)
    assert found[-1].end == len(data)
    assert found[0].type is Type.MIG_RP_MSG_PONG
    assert {m.length for m in found if m.start is not None} == {4096}
    assert sum(m.start is not None for m in found) > 900


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (message(0, b""), StreamError),
        (message(8, b""), StreamError),
        (message(0xFFFF, b""), StreamError),
        (message(2, b"abc"), StreamError),
        (message(1, b""), StreamError),
        (message(7, b"x"), StreamError),
        (message(4, bytes(13)), StreamError),
        (message(3, bytes(11)), StreamError),
        (message(3, bytes(12)), StreamError),  # no block's name
        (message(3, bytes(12) + b"\x05ab"), StreamError),  # a name that is not there
        (message(3, bytes(12) + b"\x01abc"), StreamError),  # more than the name
        (message(5, b""), StreamError),
        (message(5, b"\x09ab") + bytes(16), StreamError),
        (b"\0\2\2\1" + bytes(513), LimitError),
        (b"\0", TruncatedError),
        (b"\0\2\0\4\0", TruncatedError),
        (recv_bitmap("r", b"", size=1 << 63), TruncatedError),
        (recv_bitmap("r", b"", size=(1 << 64) - 1), TruncatedError),
        (recv_bitmap("r", bytes(8), mark=0), StreamError),
        (recv_bitmap("r", bytes(8))[:-1], TruncatedError),
    ],
)
def test_what_is_no_message(data, error):
    good = request(0, 4096, "r")
    messages = read_return_path(Window(good + data, final=True))
    assert next(messages).block == "r"
    with pytest.raises(error) as caught:
        next(messages)
    assert caught.value.offset >= len(good)


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_one_of_our_errors(data):
    try:
        found = read(data)
    except QmigError:
        return
    assert sum(m.end - m.offset for m in found) == len(data)
