"""Captures of migration traffic: the TCP connections in one, and what each direction carries by its first bytes.

A capture is read once, and only the places of what may be a migration's bytes are kept: scapy's sessions copy
everything and fill what is missing with zeros. QEMU's channels, by the first bytes that the source sends:

===========  =========================================================================
main         ``QEVM``; the other direction is the return path, once it carries data
multifd      the magic number and version of its greeting
preempt      a RAM record that names its block: postcopy preempt has no magic number
recovery     the commands after which postcopy continues on a new main channel
tls          a TLS handshake, whatever is inside
===========  =========================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from qmigtool.errors import LimitError, StreamError, UnsupportedError
from qmigtool.parsers.capturefile import PacketReader
from qmigtool.parsers.frames import ACK, FIN, RST, SYN, Decoder, Segment
from qmigtool.parsers.reassembly import TcpDirection
from qmigtool.parsers.records import RamSaveFlag, is_plain_stream
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["Capture", "Connection", "Role", "read_capture", "role_of"]

SECTION = "capture"
MAX_CHANNELS = 4096  # that carry a migration's data
MAX_CONNECTIONS = 1 << 14  # at one time; the oldest of the others are only counted
MULTIFD_HEAD = bytes.fromhex("1122334400000001")
_TLS = re.compile(rb"\x16\x03[\x00-\x04]..\x01", re.DOTALL)
_RECOVERY = re.compile(rb"\x08\x00(?:\x0a\x00.|\x09\x00\x00)", re.DOTALL)
_PAGES = (RamSaveFlag.ZERO, RamSaveFlag.PAGE, RamSaveFlag.XBZRLE, RamSaveFlag.COMPRESS_PAGE)
CONSIDERED = frozenset(1 << i for i in range(6, 40, 3))  # segments, at which to look whether it is of a migration
MAX_GREETED = 1 << 14  # SYNs of connections without data
TICKED = 256  # packets between two looks at the clock


class Role(StrEnum):
    """What a direction of a connection carries."""

    MAIN = "main"
    MULTIFD = "multifd"
    PREEMPT = "preempt"
    RETURN_PATH = "return path"
    RECOVERY = "recovery"
    TLS = "TLS"
    UNKNOWN = "unknown"  # its start was not captured
    EMPTY = "empty"
    OTHER = "other"


def role_of(head: bytes) -> Role:
    """Return what a direction carries by its first bytes; a return path only its connection tells."""
    if not head:
        return Role.EMPTY  # or the capture does not have its start
    if is_plain_stream(head):
        return Role.MAIN
    if head.startswith(MULTIFD_HEAD):
        return Role.MULTIFD
    if _TLS.match(head):
        return Role.TLS
    if _RECOVERY.match(head):
        return Role.RECOVERY
    flags = int.from_bytes(head[:8], "big") & 0xFFF
    if len(head) > 8 and flags in _PAGES and head[0] == 0 and 0 < head[8] < len(head) - 8:
        name = head[9 : 9 + head[8]]
        if all(0x20 < byte < 0x7F for byte in name):
            return Role.PREEMPT
    return Role.OTHER


@dataclass(slots=True)
class Connection:
    """A TCP connection, numbered from 1 in the order of their first packets.

    ``forward`` is the direction of the end that connected, where the capture has that, else of the first packet.
    ``opened`` and ``closed`` are the times of its first and last packets, in nanoseconds since 1970.
    """

    number: int
    forward: TcpDirection
    backward: TcpDirection
    opened: int | None = None
    closed: int | None = None
    mptcp: bool = False
    again: bool = False  # between the same two ends as an earlier one

    @property
    def directions(self) -> tuple[TcpDirection, TcpDirection]:
        """Both directions."""
        return self.forward, self.backward

    @property
    def began(self) -> bool:
        """Whether the capture has its start."""
        return self.forward.began or self.backward.began


@dataclass(slots=True)
class Capture:
    """The connections of a capture. ``dropped`` others, with ``dropped_bytes``, carry nothing of a migration.

    ``cut`` is the capture's offset of a packet that its end cuts; ``error`` what ended reading it; ``links`` the
    packets that were left out by their LINKTYPE_*.
    """

    connections: list[Connection] = field(default_factory=list)
    packets: int = 0
    segments: int = 0
    dropped: int = 0
    dropped_bytes: int = 0
    cut: int | None = None
    error: StreamError | None = None
    links: dict[int, int] = field(default_factory=dict)
    lost_fragments: int = 0
    overlapping_fragments: int = 0
    overlap_at: int | None = None


def read_capture(source: BufferSource) -> Capture:
    """Read a capture to its end, truncated or not.

    Raises :class:`~qmigtool.errors.StreamError` if it is not a capture, :class:`~qmigtool.errors.UnsupportedError` if
    its link types are all unknown, and :class:`~qmigtool.errors.LimitError` for more channels than any migration has.
    """
    reader, decoder, found = PacketReader(source), Decoder(source.whole), _Table(source.whole)
    budget, capture = current(), found.capture
    try:
        for packet in reader:
            capture.packets += 1
            if not capture.packets % TICKED:
                budget.tick(packet.start, SECTION)
            segment = decoder.decode(packet)
            if segment is not None:
                found.add(segment, packet.time)
    except StreamError as error:
        if not capture.packets or isinstance(error, LimitError):
            raise
        capture.error = error
    found.close()
    capture.cut, capture.links = reader.cut, decoder.unknown_links
    capture.lost_fragments = decoder.waiting
    capture.overlapping_fragments, capture.overlap_at = decoder.overlapping, decoder.overlap_at
    if capture.packets and sum(capture.links.values()) == capture.packets:
        raise UnsupportedError(f"captures of link type {', '.join(map(str, capture.links))}", section=SECTION)
    return capture


class _Table:
    """The connections so far."""

    def __init__(self, whole: memoryview) -> None:
        self.capture = Capture()
        self._whole = whole
        self._latest: dict[tuple[bytes, bytes], tuple[Connection, TcpDirection, TcpDirection]] = {}
        self._all: dict[int, Connection] = {}
        self._count = 0
        self._greeted: dict[tuple[bytes, bytes], tuple[int, Segment, int | None]] = {}  # SYNs, before any data

    def add(self, segment: Segment, time: int | None) -> None:
        self.capture.segments += 1
        ends, flags = segment.ends, segment.flags
        known = self._latest.get(ends)
        if known is None and not segment.length:
            if flags & SYN:
                self._greet(segment, time)
            return
        if known is None or (flags & SYN and known[1].starts_anew(segment.sequence)):
            known = self._open(segment, anew=known is not None)
        connection, here, there = known
        if connection.opened is None:
            connection.opened = time
        if time is not None:
            connection.closed = time
        if flags & SYN:
            if not here.began:
                here.start(segment.sequence)
            connection.mptcp = connection.mptcp or segment.mptcp
        if segment.length:
            here.add(segment, time)
            if here.kept and here.segments in CONSIDERED:
                self._consider(connection, here, there)
        if flags & ACK:
            there.acknowledged(segment.ack)
        if flags & FIN:
            here.finish_at((segment.sequence + segment.length) % (1 << 32))
        if flags & RST:
            here.reset = True

    def _open(self, segment: Segment, *, anew: bool) -> tuple[Connection, TcpDirection, TcpDirection]:
        source, destination = segment.ends
        # The answer to a SYN comes from the end that was connected to.
        answer = segment.flags & (SYN | ACK) == SYN | ACK
        here, there = TcpDirection(source, destination), TcpDirection(destination, source)
        greetings = [(way, self._greeted.pop((way.source, way.destination), None)) for way in (here, there)]
        numbers = [greeting[0] for _, greeting in greetings if greeting is not None]
        for way, greeting in greetings:
            if greeting is not None:
                answer = (way is here) == bool(greeting[1].flags & ACK)
        if not numbers:
            self._count += 1
        number = min(numbers, default=self._count)
        connection = Connection(number, *((there, here) if answer else (here, there)), again=anew)
        for way, greeting in greetings:
            if greeting is not None:
                _, syn, time = greeting
                way.start(syn.sequence)
                connection.mptcp = connection.mptcp or syn.mptcp
                if time is not None and (connection.opened is None or time < connection.opened):
                    connection.opened = time
        known = connection, here, there
        self._latest[segment.ends] = known
        self._latest[destination, source] = connection, there, here
        self._all[connection.number] = connection
        if len(self._all) > MAX_CONNECTIONS:
            self._thin()
        return known

    def _greet(self, segment: Segment, time: int | None) -> None:
        """Keep a SYN until its connection has data: most never have any."""
        source, destination = segment.ends
        other = self._greeted.get((destination, source))
        self._count += other is None
        self._greeted[segment.ends] = self._count if other is None else other[0], segment, time
        if len(self._greeted) > MAX_GREETED:
            self._greeted.pop(next(iter(self._greeted)))
            self.capture.dropped += 1

    def _consider(self, connection: Connection, here: TcpDirection, there: TcpDirection) -> None:
        """Keep no places of a direction that does not carry a migration's data."""
        if _useful(role_of(here.head(self._whole))) or role_of(there.head(self._whole, 8)) is Role.MAIN:
            return
        if here.head(self._whole, 1):
            here.forget(self._whole)

    def _thin(self) -> None:
        """Count the older half of the connections that carry nothing of a migration, and drop them."""
        whole = self._whole
        channels = 0
        room = MAX_CONNECTIONS // 2
        for number, one in list(self._all.items()):
            if any(way.edge and _useful(role_of(way.head(whole))) for way in one.directions):
                channels += 1
                if channels > MAX_CHANNELS:
                    raise LimitError(f"more than {MAX_CHANNELS} channels", section=SECTION)
            elif room > 0 and number != self._count:
                room -= 1
                self._drop(one)

    def _drop(self, one: Connection) -> None:
        del self._all[one.number]
        for way in one.directions:
            ends = way.source, way.destination
            if ends in self._latest and self._latest[ends][0] is one:
                del self._latest[ends]
            self.capture.dropped_bytes += way.edge
        self.capture.dropped += 1

    def close(self) -> None:
        self.capture.dropped += len({number for number, _, _ in self._greeted.values()})
        for _, one in sorted(self._all.items()):
            for way in one.directions:
                way.close(self._whole)
            self.capture.connections.append(one)


def _useful(role: Role) -> bool:
    return role in (Role.MAIN, Role.MULTIFD, Role.PREEMPT, Role.RECOVERY)
