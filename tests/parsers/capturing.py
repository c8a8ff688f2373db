"""Captures out of packets that scapy builds."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.utils import wrpcap, wrpcapng

from qmigtool.parsers.pcap import Capture, read_capture
from qmigtool.parsers.reassembly import TcpDirection
from qmigtool.parsers.source import BufferSource

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
