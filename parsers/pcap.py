"""Captures of migration traffic: the bytes of each direction of each TCP connection, reassembled.

scapy's own sessions fill missing data with zeros. Here a gap ends a direction: nothing after it is returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from qmigtool.errors import LimitError, UnsupportedError
from qmigtool.parsers.capturefile import read_packets
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["Flow", "read_flows"]

SECTION = "capture"
MAX_FLOWS = 4096
MAX_KEPT = 4 << 10  # bytes of a direction that are kept in memory
MAX_WAITING = 64 << 20  # bytes of segments that arrived too early; beyond that a gap is final
MAX_SEGMENTS = 1 << 16
TCP, IPV4, IPV6 = 6, 0x0800, 0x86DD
VLAN = (0x8100, 0x88A8)
# Link type (LINKTYPE_*) -> bytes before the EtherType; None: the packet starts with IP.
LINKS: dict[int, int | None] = {1: 12, 113: 14, 276: 0, 101: None, 12: None, 14: None, 228: None, 229: None}
NULL, LOOP = 0, 108  # a word with the address family before IP
SYN, FIN, RST = 2, 1, 4


class _Pool:
    """The segments waiting in memory, of all directions together."""

    def __init__(self) -> None:
        self.bytes = 0


@dataclass
class Flow:
    """One direction of a connection; ``size`` bytes of it are in :attr:`file`, in order and without a gap.

    ``missing`` is the offset of the first gap, in bytes from its start; None without a gap. The first KiB are kept in
    memory, and only a longer direction gets a file: most connections next to a migration carry little.
    """

    name: str
    new_file: Callable[[], BinaryIO]
    ends: tuple[bytes, bytes] = (b"", b"")
    size: int = 0
    missing: int | None = None
    kept: bytes | None = b""
    _file: BinaryIO | None = None
    _first: int | None = None  # the sequence number of the first byte
    _waiting: list[tuple[int, bytes]] = field(default_factory=list)  # a heap of early segments, by position
    _pool: _Pool = field(default_factory=_Pool)

    @property
    def file(self) -> BinaryIO:
        """The bytes: a file, or a buffer in its place."""
        return self._file if self._file is not None else BytesIO(self.kept or b"")

    def starts_anew(self, sequence: int) -> bool:
        """Return whether a SYN with this number begins another connection between the same two ends."""
        return self._first is not None and self._first != sequence + 1 & 0xFFFFFFFF

    def segment(self, sequence: int, data: bytes, *, starts: bool) -> None:
        """Add a segment; they may arrive twice and in any order."""
        if starts:
            sequence = sequence + 1 & 0xFFFFFFFF
        if self._first is None:
            if not starts and not data:
                return
            self._first = sequence  # the capture may have begun later than the connection
        # Sequence numbers wrap around: this one is at the nearest such position.
        behind = (self.size + self._first - sequence + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
        place = self.size - behind
        if behind < 0:
            self._wait(place, data)
        elif behind < len(data):
            self._append(data[behind:])
            while self._waiting and self._waiting[0][0] <= self.size:
                place, data = heappop(self._waiting)
                self._pool.bytes -= len(data)
                self._append(data[self.size - place :])

    def _append(self, data: bytes) -> None:
        if self.kept is not None and self.size + len(data) <= MAX_KEPT:
            self.kept += data
        else:
            if self._file is None:
                self._file = self.new_file()
                self._file.write(self.kept or b"")
                self.kept = None
            current().charge("spool", len(data), section=SECTION)
            self._file.write(data)
        self.size += len(data)

    def _wait(self, place: int, data: bytes) -> None:
        if data and self._pool.bytes + len(data) <= MAX_WAITING and len(self._waiting) < MAX_SEGMENTS:
            self._pool.bytes += len(data)
            heappush(self._waiting, (place, data))

    def finish(self) -> None:
        """Record a gap that was never filled."""
        if self._waiting:
            self.missing = self.size
            self._waiting.clear()
        if self._file is not None:
            self._file.flush()


def read_flows(source: BufferSource, new_file: Callable[[], BinaryIO]) -> list[Flow]:
    """Read a capture to its end, truncated or not; return each direction that carried data.

    ``new_file`` makes the file for each that has more than 4 KiB; the caller closes them. Raises
    :class:`~qmigtool.errors.StreamError` if it is not a capture, and :class:`~qmigtool.errors.UnsupportedError` for an
    unknown link type.
    """
    flows: dict[tuple[bytes, bytes], Flow] = {}  # the latest between two ends
    all_flows: list[Flow] = []
    budget, pool = current(), _Pool()
    for link, packet in read_packets(source):
        budget.tick(section=SECTION)
        found = _tcp(link, packet)
        if found is None:
            continue
        ends, sequence, flags, data = found
        flow = flows.get(ends)
        if flow is None or (flags & SYN and flow.starts_anew(sequence)):
            if len(all_flows) >= MAX_FLOWS:
                raise LimitError(f"more than {MAX_FLOWS} connections", section=SECTION)
            again = "" if flow is None else f" (connection {1 + sum(one.ends == ends for one in all_flows)})"
            flow = flows[ends] = Flow(f"{_end(ends[0])} -> {_end(ends[1])}{again}", new_file, ends, _pool=pool)
            all_flows.append(flow)
        flow.segment(sequence, data, starts=bool(flags & SYN))
    for flow in all_flows:
        flow.finish()
    return [flow for flow in all_flows if flow.size]


def _tcp(link: int, packet: bytes) -> tuple[tuple[bytes, bytes], int, int, bytes] | None:
    """Return ((source, destination), sequence number, flags, data) of a TCP segment; None for anything else."""
    if link in (NULL, LOOP):
        ip = packet[4:]
    else:
        if link not in LINKS:
            raise UnsupportedError(f"captures of link type {link}", section=SECTION)
        before = LINKS[link]
        ip = packet if before is None else _behind(packet, before)
    if len(ip) < 20:
        return None
    if ip[0] >> 4 == 4:
        head, total, protocol = (ip[0] & 15) * 4, int.from_bytes(ip[2:4], "big"), ip[9]
        addresses = ip[12:16], ip[16:20]
        fragment = int.from_bytes(ip[6:8], "big") & 0x3FFF
        if fragment:
            return None
    elif ip[0] >> 4 == 6 and len(ip) >= 40:
        head, total, protocol = 40, 40 + int.from_bytes(ip[4:6], "big"), ip[6]
        addresses = ip[8:24], ip[24:40]
    else:
        return None
    # Large segments that the network card splits later are captured with a total length of 0.
    segment = ip[head : total if total > head else len(ip)]
    if protocol != TCP or len(segment) < 20:
        return None
    ends = addresses[0] + segment[0:2], addresses[1] + segment[2:4]
    start = (segment[12] >> 4) * 4
    return ends, int.from_bytes(segment[4:8], "big"), segment[13], segment[start:]


def _behind(packet: bytes, at: int) -> bytes:
    """Return the bytes after the EtherType at ``at`` and any VLAN tags."""
    if at == 0:  # SLL2: the protocol is the first word, and the header has 20 bytes
        return packet[20:] if int.from_bytes(packet[:2], "big") in (IPV4, IPV6) else b""
    while int.from_bytes(packet[at : at + 2], "big") in VLAN:
        at += 4
    return packet[at + 2 :] if int.from_bytes(packet[at : at + 2], "big") in (IPV4, IPV6) else b""


def _end(raw: bytes) -> str:
    from ipaddress import ip_address

    address = ip_address(raw[:-2])
    port = int.from_bytes(raw[-2:], "big")
    return f"[{address}]:{port}" if len(raw) > 6 else f"{address}:{port}"
