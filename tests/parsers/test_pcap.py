"""Connections put together again; scapy builds the packets, so that nothing here is read by what wrote it."""

import random
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, fragment6
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.layers.vxlan import VXLAN
from scapy.utils import wrpcap, wrpcapng

from qmigtool.errors import UnsupportedError
from qmigtool.parsers.pcap import Capture, Role, read_capture, role_of
from qmigtool.parsers.reassembly import TcpDirection
from qmigtool.parsers.source import BufferSource
from tests.support import samplefiles

DATA = b"QEVM" + bytes(range(256)) * 40


def capture(packets: Iterable[Any], tmp_path: Path, *, ng: bool = False, **options: Any) -> tuple[Capture, bytes]:
    file = tmp_path / "capture"
    (wrpcapng if ng else wrpcap)(str(file), list(packets), **options)
    data = file.read_bytes()
    return read_capture(BufferSource(data)), data


def flows(packets: Iterable[Any], tmp_path: Path, **options: Any) -> list[tuple[TcpDirection, bytes]]:
    """The directions with data, and the bytes of each; a hole is dots."""
    found, data = capture(packets, tmp_path, **options)
    return [(way, content(way, data)) for connection in found.connections for way in connection.directions if way.size]


def content(way: TcpDirection, data: bytes) -> bytes:
    out = bytearray(b"." * way.size)
    for position, offset, length in way.places():
        out[position : position + length] = data[offset : offset + length]
    return bytes(out)


def segments(data: bytes, start: int, size: int = 1000) -> list[tuple[int, bytes]]:
    return [((start + at) & 0xFFFFFFFF, data[at : at + size]) for at in range(0, len(data), size)]


def tcp(sequence: int, data: bytes = b"", flags: str = "A", sport: int = 1, **more: Any) -> Any:
    return IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=sport, dport=4444, seq=sequence, flags=flags, **more) / data


@pytest.mark.parametrize("start", [0, 0xFFFFF000])  # the second passes the end of the sequence numbers
@pytest.mark.parametrize("ng", [False, True])
def test_in_any_order_and_more_than_once(start: int, ng: bool, tmp_path: Path) -> None:
    parts = segments(DATA, start + 1)
    chance = random.Random(3)  # noqa: S311 - no secret
    shuffled = parts + chance.sample(parts, 4)
    chance.shuffle(shuffled)
    packets = [Ether() / tcp(start, flags="S")] + [Ether() / tcp(s, d) for s, d in shuffled]
    ((way, data),) = flows(packets, tmp_path, ng=ng)
    assert data == DATA
    assert (way.name, way.size, way.holes) == ("10.0.0.1:1 -> 10.0.0.2:4444", len(DATA), [])
    assert way.began
    assert 3000 < way.repeated <= 4000
    assert way.late > 0
    assert not way.conflicts


def test_segments_that_overlap(tmp_path: Path) -> None:
    packets = [Ether() / tcp(9, flags="S")]
    packets += [Ether() / tcp(10 + at, DATA[at : at + 700]) for at in range(0, len(DATA), 500)]
    ((way, data),) = flows(packets, tmp_path)
    assert data == DATA
    assert way.repeated == 200 * 20
    assert not way.conflict_count


def test_a_hole_has_a_place_and_a_length(tmp_path: Path) -> None:
    parts = segments(DATA, 1)
    del parts[4:6], parts[6]
    ((way, data),) = flows([Ether() / tcp(0, flags="S"), *(Ether() / tcp(s, d) for s, d in parts)], tmp_path)
    assert way.holes == [(4000, 2000), (8000, 1000)]
    assert data == DATA[:4000] + b"." * 2000 + DATA[6000:8000] + b"." * 1000 + DATA[9000:]


def test_what_was_acknowledged_or_ends_before_a_fin_was_sent(tmp_path: Path) -> None:
    back = IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=4444, dport=1, seq=7, ack=5001, flags="A")
    ((way, _),) = flows([Ether() / tcp(0, flags="S"), Ether() / tcp(1, DATA[:1000]), Ether() / back], tmp_path)
    assert (way.size, way.holes) == (5000, [(1000, 4000)])
    packets = [Ether() / tcp(0, flags="S"), Ether() / tcp(1, DATA[:1000]), Ether() / tcp(3001, flags="FA")]
    ((way, _),) = flows(packets, tmp_path)
    assert (way.size, way.holes, way.finished) == (3000, [(1000, 2000)], True)
    packets[-1] = Ether() / tcp(1001, flags="FA")
    answer = IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=4444, dport=1, seq=7, ack=1002, flags="A")
    ((way, _),) = flows([*packets, Ether() / answer], tmp_path)
    assert (way.size, way.holes) == (1000, [])


def test_other_bytes_in_the_same_place(tmp_path: Path) -> None:
    """An overlap that differs is named with both of its places in the capture; the first is used."""
    lie = bytearray(DATA[3500:4500])
    lie[700] ^= 0xFF
    packets = [Ether() / tcp(0, flags="S"), *(Ether() / tcp(s, d) for s, d in segments(DATA, 1))]
    packets.insert(6, Ether() / tcp(3501, bytes(lie)))
    found, raw = capture(packets, tmp_path)
    way = found.connections[0].forward
    assert content(way, raw) == DATA
    (conflict,) = way.conflicts
    assert (conflict.offset, conflict.length) == (4200, 1)
    assert raw[conflict.first] == DATA[4200]
    assert raw[conflict.second] == DATA[4200] ^ 0xFF


def test_a_capture_that_began_late(tmp_path: Path) -> None:
    parts = segments(DATA, 5000)
    parts[0], parts[1] = parts[1], parts[0]
    ((way, data),) = flows([Ether() / tcp(s, d) for s, d in parts], tmp_path)
    assert data == DATA
    assert not way.began
    assert not way.holes


def test_many_segments_behind_a_gap(tmp_path: Path) -> None:
    count = 1000
    late = [Ether() / tcp(1 + 4 + i, bytes([i & 255])) for i in reversed(range(count))]
    packets = [Ether() / tcp(0, flags="S"), *late, Ether() / tcp(1, b"QEVM")]
    ((_, data),) = flows(packets, tmp_path)
    assert data == b"QEVM" + bytes(i & 255 for i in range(count))


def test_two_connections_between_the_same_ends(tmp_path: Path) -> None:
    packets = [Ether() / tcp(9, flags="S"), Ether() / tcp(10, b"one"), Ether() / tcp(9, flags="S")]
    packets += [Ether() / tcp(13, flags="R"), Ether() / tcp(5000, flags="S"), Ether() / tcp(5001, b"two")]
    found, raw = capture(packets, tmp_path)
    assert [(one.number, one.again, content(one.forward, raw)) for one in found.connections] == [
        (1, False, b"one"),
        (2, True, b"two"),
    ]
    assert [one.forward.reset for one in found.connections] == [True, False]


def test_both_directions_and_other_traffic(tmp_path: Path) -> None:
    answer = IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=4444, dport=1, seq=6, flags="SA")
    back = IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=4444, dport=1, seq=7, flags="A") / b"answer"
    packets = [Ether() / answer, Ether() / back, Ether() / tcp(1, b"question"), Ether() / IP() / b"no tcp"]
    found, raw = capture([*packets, Ether(type=0x88CC) / b"lldp"], tmp_path)
    (one,) = found.connections
    # The end that answers a SYN is the one that was connected to.
    assert [content(way, raw) for way in one.directions] == [b"question", b"answer"]
    assert one.forward.name == "10.0.0.1:1 -> 10.0.0.2:4444"


LINKS: dict[str, Any] = {
    "VLAN": lambda packet: Ether() / Dot1Q(vlan=7) / packet,
    "QinQ": lambda packet: Ether() / Dot1AD(vlan=7) / Dot1Q(vlan=8) / packet,
    "VXLAN": lambda packet: Ether() / IP() / UDP(sport=9, dport=4789) / VXLAN(vni=5) / Ether() / packet,
    "VLAN in VXLAN": lambda packet: Ether() / IP() / UDP(dport=8472) / VXLAN() / Ether() / Dot1Q() / packet,
    "SLL": lambda packet: CookedLinux(proto=0x800) / packet,
    "SLL, VLAN": lambda packet: CookedLinux(proto=0x8100) / Dot1Q(vlan=7) / packet,
    "SLL2": lambda packet: CookedLinuxV2(proto=0x800) / packet,
    "NULL": lambda packet: Loopback(type=2) / packet,
    "raw": lambda packet: packet,
}
LINKTYPES = {"SLL": 113, "SLL, VLAN": 113, "SLL2": 276, "NULL": 0, "raw": 101}


@pytest.mark.parametrize("link", LINKS)
def test_links(link: str, tmp_path: Path) -> None:
    packets = [LINKS[link](tcp(s, d)) for s, d in segments(DATA, 1)]
    ((_, data),) = flows(packets, tmp_path, linktype=LINKTYPES.get(link, 1))
    assert data == DATA


def test_loop_has_its_family_in_network_order(tmp_path: Path) -> None:
    packets = [struct.pack(">I", 2) + bytes(tcp(s, d)) for s, d in segments(DATA, 1)]
    ((_, data),) = flows(packets, tmp_path, linktype=108)
    assert data == DATA


def test_an_unknown_link_type(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="link type 147"):
        flows([b"something"], tmp_path, linktype=147)


def six(sequence: int, data: bytes) -> Any:
    return IPv6(src="::1", dst="::2") / TCP(sport=1, dport=4444, seq=sequence, flags="A") / data


def test_ipv6_with_and_without_extensions(tmp_path: Path) -> None:
    packets = [Ether() / six(s, d) for s, d in segments(DATA, 1)]
    ((way, data),) = flows(packets, tmp_path)
    assert data == DATA
    assert way.name == "[::1]:1 -> [::2]:4444"
    head = IPv6(src="::1", dst="::2") / IPv6ExtHdrHopByHop() / TCP(sport=1, dport=4444, seq=1, flags="A") / DATA[:500]
    ((_, data),) = flows([Ether() / head], tmp_path)
    assert data == DATA[:500]


def test_fragments(tmp_path: Path) -> None:
    pieces = [part for i, (s, d) in enumerate(segments(DATA, 1, 3000)) for part in fragment(ip(s, d, i), 576)]
    random.Random(1).shuffle(pieces)  # noqa: S311 - no secret
    ((way, data),) = flows([Ether() / piece for piece in pieces], tmp_path)
    assert (data, way.holes) == (DATA, [])
    parts = []
    for i, (s, d) in enumerate(segments(DATA, 1, 3000)):
        whole = IPv6(src="::1", dst="::2") / IPv6ExtHdrFragment(id=i) / six(s, d)[TCP]
        parts += fragment6(whole, 1280)
    ((_, data),) = flows([Ether() / piece for piece in reversed(parts)], tmp_path)
    assert data == DATA
    # The usual reason: a tunnel whose packets are larger than what the network below takes.
    parts = []
    for i, (s, d) in enumerate(segments(DATA, 1, 1400)):
        outer = IP(src="1.1.1.1", dst="2.2.2.2", id=i) / UDP(sport=9, dport=4789, chksum=0) / VXLAN() / Ether()
        parts += fragment(IP(bytes(outer / tcp(s, d))), 1000)
    ((_, data),) = flows([Ether() / piece for piece in parts], tmp_path)
    assert data == DATA


def ip(sequence: int, data: bytes, number: int) -> Any:
    packet = tcp(sequence, data)
    packet.id = number
    return IP(bytes(packet))


def test_fragments_that_are_missing_or_overlap(tmp_path: Path) -> None:
    first, *rest = fragment(ip(1, DATA[:3000], 1), 576)
    found, _ = capture([Ether() / one for one in rest], tmp_path)
    assert found.lost_fragments == 1
    lie = rest[1].copy()
    lie.frag -= 1
    found, raw = capture([Ether() / one for one in (first, rest[0], lie, *rest)], tmp_path)
    assert found.overlapping_fragments == 1
    assert found.overlap_at is not None
    assert raw[found.overlap_at : found.overlap_at + 8] == bytes(lie.payload)[:8]


def test_packets_that_were_cut(tmp_path: Path) -> None:
    """tcpdump -s 200: the length in the IP header shows what is missing."""
    packets = []
    for s, d in segments(DATA, 1):
        packet = Ether() / tcp(s, d)
        cut = Ether(bytes(packet)[:200])
        cut.wirelen = len(packet)
        packets.append(cut)
    ((way, data),) = flows(packets, tmp_path)
    assert way.size == len(DATA)
    assert way.cut == len(packets)
    assert len(way.holes) == len(packets)
    assert way.holes[0] == (146, 854)
    assert data[1000:1146] == DATA[1000:1146]


def test_times(tmp_path: Path) -> None:
    packets = [Ether() / tcp(s, d) for s, d in segments(DATA, 1)]
    for i, packet in enumerate(packets):
        packet.time = 1000 + i
    ((way, _),) = flows(packets, tmp_path)
    assert [way.time_of(at) for at in (0, 999, 1000, 9999)] == [1000 * 10**9, 1000 * 10**9, 1001 * 10**9, 1009 * 10**9]
    assert way.time_before(1000) == 1000 * 10**9
    assert (way.first, way.last) == (1000 * 10**9, 1010 * 10**9)


def test_mptcp_is_seen(tmp_path: Path) -> None:
    option = [("MSS", 1460), (30, b"\x01\x00" + bytes(8))]
    found, _ = capture([Ether() / tcp(0, flags="S", options=option), Ether() / tcp(1, b"x")], tmp_path)
    assert found.connections[0].mptcp
    found, _ = capture([Ether() / tcp(0, flags="S", options=[("MSS", 1460)]), Ether() / tcp(1, b"x")], tmp_path)
    assert not found.connections[0].mptcp


@pytest.mark.parametrize(
    ("head", "role"),
    [
        (b"", Role.EMPTY),
        (b"QEVM\0\0\0\3", Role.MAIN),
        (bytes.fromhex("1122334400000001"), Role.MULTIFD),
        (bytes.fromhex("1603010200010001fc0303"), Role.TLS),
        (bytes.fromhex("0000000002a1e008") + b"\x06pc.ram" + bytes(9), Role.PREEMPT),
        (bytes.fromhex("0000000002a1e028") + b"\x06pc.ram" + bytes(9), Role.OTHER),  # CONTINUE names no block
        (bytes.fromhex("08000a0007") + b"\x06pc.ram", Role.RECOVERY),
        (b"GET / HTTP/1.1\r\n", Role.OTHER),
    ],
)
def test_roles(head: bytes, role: Role) -> None:
    assert role_of(head) is role


def test_a_capture_that_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "capture"
    wrpcap(str(file), [Ether() / tcp(s, d) for s, d in segments(DATA, 1)])
    data = file.read_bytes()[:-100]
    found = read_capture(BufferSource(data))
    way = found.connections[0].forward
    assert DATA.startswith(content(way, data)[: len(DATA) - 100])
    assert found.cut is not None
    assert way.holes == [(len(DATA) - 100, 100)]


def test_what_is_read_before_damage_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "capture"
    wrpcap(str(file), [Ether() / tcp(s, d) for s, d in segments(DATA, 1)])
    found = read_capture(BufferSource(file.read_bytes() + b"\xff" * 16))
    assert found.connections[0].forward.size == len(DATA)
    assert found.error is not None
    assert found.error.offset == file.stat().st_size


def test_captures_open_where_scapy_is_not() -> None:
    code = "import sys; sys.modules['scapy'] = None; import qmigtool; print(qmigtool.open(sys.argv[1]).container.name)"
    path = samplefiles.SAMPLES / "containers" / "multifd-10.0.pcap.xz"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == "pcap\n"
