"""Packets of pcap and pcapng files: both byte orders, times, interfaces, what is cut and what contradicts itself."""

import struct

import pytest

from qmigtool.errors import StreamError
from qmigtool.parsers.capturefile import CapturedPacket, PacketReader
from qmigtool.parsers.source import BufferSource


def read(data: bytes) -> list[tuple[int, bytes, int, int | None]]:
    return [(p.link, data[p.start : p.end], p.wire, p.time) for p in PacketReader(BufferSource(data))]


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(f"{order}II", kind, 12 + len(body)) + body + struct.pack(f"{order}I", 12 + len(body))


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "time"), [(0xA1B2C3D4, 5_000_000_007_000), (0xA1B23C4D, 5_000_000_000_007)])
def test_pcap_in_both_byte_orders_and_both_units(order: str, magic: int, time: int) -> None:
    data = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, 0x10000000 | 101)
    data += struct.pack(f"{order}4I", 5000, 7, 3, 9) + b"one"
    assert read(data) == [(101, b"one", 9, time)]


@pytest.mark.parametrize("order", ["<", ">"])
def test_each_kind_of_block(order: str) -> None:
    """By hand: two interfaces, an enhanced, an obsolete and a simple packet, a block of an unknown type."""
    data = section(order) + block(order, 1, struct.pack(f"{order}HHI", 101, 0, 4))
    data += block(order, 1, struct.pack(f"{order}HHI", 1, 0, 0)) + block(order, 0xBAD, b"?")
    data += block(order, 6, struct.pack(f"{order}5I", 1, 0, 8, 3, 3) + b"one")
    data += block(order, 2, struct.pack(f"{order}HH4I", 1, 0, 1, 0, 3, 3) + b"two")
    data += block(order, 3, struct.pack(f"{order}I", 5) + b"three")
    assert read(data) == [
        (1, b"one", 3, 8000),
        (1, b"two", 3, (1 << 32) * 1000),
        (101, b"thre", 5, None),  # cut at the interface's snaplen
    ]
    with pytest.raises(StreamError, match="a packet of interface 7"):
        read(data + block(order, 6, struct.pack(f"{order}5I", 7, 0, 0, 1, 1) + b"x"))
    with pytest.raises(StreamError, match="a block of 4 bytes"):
        read(data + struct.pack(f"{order}3I", 6, 4, 0))
    with pytest.raises(StreamError, match="ends with the length 5"):
        read(data + struct.pack(f"{order}3I", 0xBAD, 12, 5))


def test_a_section_has_its_own_interfaces_byte_order_and_clock() -> None:
    # 2**-10 s, 100 s after 1970; then nanoseconds.
    clock = struct.pack("<HHB3xHHq", 9, 1, 0x8A, 14, 8, 100) + struct.pack("<HH", 0, 0)
    data = section("<") + block("<", 1, struct.pack("<HHI", 1, 0, 0) + clock)
    data += block("<", 6, struct.pack("<5I", 0, 0, 512, 1, 1) + b"a")
    data += section(">") + block(">", 1, struct.pack(">HHI", 113, 0, 0) + struct.pack(">HHB3x", 9, 1, 9))
    data += block(">", 6, struct.pack(">5I", 0, 0, 512, 1, 1) + b"b")
    assert read(data) == [(1, b"a", 1, 100_500_000_000), (113, b"b", 1, 512)]
    with pytest.raises(StreamError, match="a packet of interface 0"):
        read(data + section("<") + block("<", 6, struct.pack("<5I", 0, 0, 0, 1, 1) + b"x"))


def test_where_a_capture_is_cut() -> None:
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    data = head + struct.pack("<4I", 0, 0, 4, 4) + b"four" + struct.pack("<4I", 0, 0, 4, 4) + b"fo"
    reader = PacketReader(BufferSource(data))
    assert [packet.end - packet.start for packet in reader] == [4, 2]
    assert reader.cut == len(head) + 20
    reader = PacketReader(BufferSource(data[:-10]))
    assert len(list(reader)) == 1
    assert reader.cut == len(head) + 20
    reader = PacketReader(BufferSource(data[: len(head) + 20]))
    assert list(reader) == [CapturedPacket(1, 40, 44, 4, 0)]
    assert reader.cut is None


def test_large_packets_are_whole() -> None:
    """scapy 2.8 cuts these at 262,140 bytes."""
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 20, 1) + struct.pack("<4I", 0, 0, 300_000, 300_000)
    ((_, packet, _, _),) = read(data + bytes(300_000))
    assert len(packet) == 300_000


def test_a_length_that_no_packet_has() -> None:
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"\xff" * 100
    with pytest.raises(StreamError, match="a packet of 4294967295 bytes"):
        read(data)


@pytest.mark.parametrize("data", [b"nothing", b"", b"\xd4\xc3\xb2\xa1", b"\x0a\x0d\x0d\x0a" + bytes(20)])
def test_what_is_no_capture(data: bytes) -> None:
    with pytest.raises(StreamError):
        read(data)
