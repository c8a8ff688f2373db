"""Frames down to their TCP segments; scapy builds the packets."""

import random
import struct
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, fragment6
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.layers.vxlan import VXLAN

from qmigtool.errors import UnsupportedError
from tests.parsers.capturing import DATA, capture, flows, segments, tcp

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


def ether() -> Any:
    """Return a header with both addresses: scapy asks the network for the one of an IPv6 address, for a second each."""
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def test_ipv6_with_and_without_extensions(tmp_path: Path) -> None:
    packets = [ether() / six(s, d) for s, d in segments(DATA, 1)]
    ((way, data),) = flows(packets, tmp_path)
    assert data == DATA
    assert way.name == "[::1]:1 -> [::2]:4444"
    head = IPv6(src="::1", dst="::2") / IPv6ExtHdrHopByHop() / TCP(sport=1, dport=4444, seq=1, flags="A") / DATA[:500]
    ((_, data),) = flows([ether() / head], tmp_path)
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
    ((_, data),) = flows([ether() / piece for piece in reversed(parts)], tmp_path)
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
