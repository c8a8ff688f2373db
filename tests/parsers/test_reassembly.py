"""The bytes of a connection put together again; scapy builds the packets."""

import random
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from tests.parsers.capturing import DATA, capture, content, flows, segments, tcp


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
