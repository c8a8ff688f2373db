"""Captures: their connections, the roles of these, times, and damage."""

import subprocess
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from qmigtool.parsers.pcap import Role, read_capture, role_of
from qmigtool.parsers.source import BufferSource
from tests.parsers.capturing import DATA, capture, content, flows, segments, tcp
from tests.support import samplefiles


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


def test_times(tmp_path: Path) -> None:
    packets = [Ether() / tcp(s, d) for s, d in segments(DATA, 1)]
    for i, packet in enumerate(packets):
        packet.time = 1000 + i
    ((way, _),) = flows(packets, tmp_path)
    assert [way.time_of(at) for at in (0, 999, 1000, 9999)] == [1000 * 10**9, 1000 * 10**9, 1001 * 10**9, 1009 * 10**9]
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
