"""Captures put together again; scapy builds the packets, so that nothing here is read by what wrote it."""

import io
import random
import struct
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import CookedLinux, Dot1Q, Ether
from scapy.utils import wrpcap, wrpcapng

from qmigtool.errors import StreamError, UnsupportedError
from qmigtool.parsers.capturefile import read_packets
from qmigtool.parsers.pcap import Flow, read_flows
from qmigtool.parsers.source import BufferSource
from tests.support import samplefiles

DATA = bytes(range(256)) * 40


def flows(packets: list[Any], tmp_path: Path, *, ng: bool = False, **options: Any) -> list[Flow]:
    file = tmp_path / "capture"
    (wrpcapng if ng else wrpcap)(str(file), packets, **options)
    return read_flows(BufferSource(file.read_bytes()), io.BytesIO)


def content(flow: Flow) -> bytes:
    flow.file.seek(0)
    return flow.file.read()


def segments(data: bytes, start: int, size: int = 1000) -> list[tuple[int, bytes]]:
    return [((start + at) & 0xFFFFFFFF, data[at : at + size]) for at in range(0, len(data), size)]


def tcp(sequence: int, data: bytes = b"", flags: str = "A") -> Any:
    return IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=4444, seq=sequence, flags=flags) / data


@pytest.mark.parametrize("start", [0, 0xFFFFF000])  # the second passes the end of the sequence numbers
@pytest.mark.parametrize("ng", [False, True])
def test_in_any_order_and_more_than_once(start: int, ng: bool, tmp_path: Path) -> None:
    parts = segments(DATA, start + 1)
    chance = random.Random(3)  # noqa: S311 - no secret
    shuffled = parts + chance.sample(parts, 4)
    chance.shuffle(shuffled)
    packets = [Ether() / tcp(start, flags="S")] + [Ether() / tcp(s, d) for s, d in shuffled]
    (flow,) = flows(packets, tmp_path, ng=ng)
    assert content(flow) == DATA
    assert (flow.name, flow.size, flow.missing) == ("10.0.0.1:1 -> 10.0.0.2:4444", len(DATA), None)


def test_segments_that_overlap(tmp_path: Path) -> None:
    packets = [Ether() / tcp(9, flags="S")]
    packets += [Ether() / tcp(10 + at, DATA[at : at + 700]) for at in range(0, len(DATA), 500)]
    (flow,) = flows(packets, tmp_path)
    assert content(flow) == DATA


def test_a_hole_ends_it(tmp_path: Path) -> None:
    parts = segments(DATA, 1)
    del parts[4]
    (flow,) = flows([Ether() / tcp(0, flags="S"), *(Ether() / tcp(s, d) for s, d in parts)], tmp_path)
    assert content(flow) == DATA[:4000]
    assert flow.missing == 4000


def test_a_capture_that_began_late(tmp_path: Path) -> None:
    (flow,) = flows([Ether() / tcp(s, d) for s, d in segments(DATA, 5000)], tmp_path)
    assert content(flow) == DATA


def test_many_segments_behind_a_gap(tmp_path: Path) -> None:
    count = 1000
    late = [Ether() / tcp(1 + 1 + i, bytes([i & 255])) for i in reversed(range(count))]
    packets = [Ether() / tcp(0, flags="S"), *late, Ether() / tcp(1, b"!")]
    (flow,) = flows(packets, tmp_path)
    assert content(flow) == b"!" + bytes(i & 255 for i in range(count))


def test_two_connections_between_the_same_ends(tmp_path: Path) -> None:
    packets = [Ether() / tcp(9, flags="S"), Ether() / tcp(10, b"one"), Ether() / tcp(9, flags="S")]
    packets += [Ether() / tcp(5000, flags="S"), Ether() / tcp(5001, b"two")]
    found = flows(packets, tmp_path)
    assert [(flow.name.partition(" (")[2], content(flow)) for flow in found] == [
        ("", b"one"),
        ("connection 2)", b"two"),
    ]
    assert [flow.missing for flow in found] == [None, None]


def test_both_directions_and_other_traffic(tmp_path: Path) -> None:
    back = IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=4444, dport=1, seq=7, flags="A") / b"answer"
    packets = [Ether() / tcp(1, b"question"), Ether() / back, Ether() / IP() / b"no tcp", Ether(type=0x88CC) / b"lldp"]
    found = flows(packets, tmp_path)
    assert [content(flow) for flow in found] == [b"question", b"answer"]


@pytest.mark.parametrize(
    "link",
    [
        lambda packet: Ether() / Dot1Q(vlan=7) / packet,
        lambda packet: Ether() / Dot1Q(vlan=7) / Dot1Q(vlan=8) / packet,
        lambda packet: CookedLinux(proto=0x800) / packet,
        lambda packet: packet,
    ],
)
def test_links(link: Any, tmp_path: Path) -> None:
    (flow,) = flows([link(tcp(s, d)) for s, d in segments(DATA, 1)], tmp_path)
    assert content(flow) == DATA


def test_ipv6(tmp_path: Path) -> None:
    def packet(sequence: int, data: bytes) -> Any:
        segment = bytes(tcp(sequence, data)[TCP])
        ends = ip_address("::1").packed + ip_address("::2").packed
        return Ether(type=0x86DD) / (struct.pack(">IHBB", 6 << 28, len(segment), 6, 64) + ends + segment)

    (flow,) = flows([packet(s, d) for s, d in segments(DATA, 1)], tmp_path)
    assert content(flow) == DATA
    assert flow.name == "[::1]:1 -> [::2]:4444"


def test_a_capture_that_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "capture"
    wrpcap(str(file), [Ether() / tcp(s, d) for s, d in segments(DATA, 1)])
    (flow,) = read_flows(BufferSource(file.read_bytes()[:-300]), io.BytesIO)
    assert DATA.startswith(content(flow))
    assert flow.size >= len(DATA) - 2000


def test_what_is_no_capture() -> None:
    for data in (b"\xd4\xc3\xb2\xa1", b"\x0a\x0d\x0d\x0a" + bytes(3), b"\xd4\xc3\xb2\xa1" + b"\xff" * 100, b"nothing"):
        try:
            found = read_flows(BufferSource(data), io.BytesIO)
        except (StreamError, UnsupportedError):
            continue
        assert found == []


def test_each_kind_of_block() -> None:
    """By hand, big-endian: two interfaces, an enhanced, an obsolete and a simple packet, a block that nobody knows."""

    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack(">II", kind, 12 + len(body)) + body + struct.pack(">I", 12 + len(body))

    data = block(0x0A0D0D0A, bytes.fromhex("1a2b3c4d00010000ffffffffffffffff"))
    data += block(1, struct.pack(">HHI", 101, 0, 0)) + block(1, struct.pack(">HHI", 1, 0, 0)) + block(0xBAD, b"?")
    data += block(6, struct.pack(">5I", 1, 0, 0, 3, 3) + b"one")
    data += block(2, struct.pack(">HH4I", 1, 0, 0, 0, 3, 3) + b"two") + block(3, struct.pack(">I", 5) + b"three")
    assert list(read_packets(BufferSource(data))) == [(1, b"one"), (1, b"two"), (101, b"three")]
    with pytest.raises(StreamError, match="a packet of interface 7"):
        list(read_packets(BufferSource(data + block(6, struct.pack(">5I", 7, 0, 0, 1, 1) + b"x"))))
    with pytest.raises(StreamError, match="a block of 4 bytes"):
        list(read_packets(BufferSource(data + struct.pack(">3I", 6, 4, 0))))


def test_captures_open_where_scapy_is_not() -> None:
    code = "import sys; sys.modules['scapy'] = None; import qmigtool; print(qmigtool.open(sys.argv[1]).container.name)"
    path = samplefiles.SAMPLES / "containers" / "multifd-10.0.pcap.xz"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "pcap\n"
