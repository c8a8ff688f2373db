"""From a captured packet to the TCP segment in it: link layers, VLAN tags, VXLAN, IPv4 and IPv6 with their fragments.

Sources: the LINKTYPE_* pages of tcpdump.org, IEEE 802.1Q, RFC 791, 8200, 9293, 7348 (VXLAN), 8684 (MPTCP). Nothing is
copied: a segment's data are places in the capture. Only a datagram that was sent in fragments is put together, while
its header is read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from qmigtool.parsers.capturefile import CapturedPacket

__all__ = ["ACK", "FIN", "RST", "SYN", "Decoder", "Segment"]

IPV4, IPV6 = 0x0800, 0x86DD
VLAN = (0x8100, 0x88A8, 0x9100)
TCP, UDP, FRAGMENT = 6, 17, 44
EXTENSIONS = (0, 43, 60, 135)  # hop-by-hop options, routing, destination options, mobility
VXLAN_PORTS = (4789, 8472)  # IANA's, and the one that Linux used before
ETHERNET, NULL, LOOP, SLL, SLL2 = 1, 0, 108, 113, 276
RAW = (12, 14, 101, 228, 229)
FAMILIES = (2, 10, 24, 28, 30)  # AF_INET, and AF_INET6 of Linux and the BSDs
FIN, SYN, RST, ACK = 1, 2, 4, 16
MPTCP_OPTION = 30
MAX_DEPTH = 4  # of tunnels inside each other
MAX_DATAGRAMS, MAX_PIECES = 4096, 1 << 16  # waiting for their other fragments
MAX_FRAGMENTS = 256  # of a datagram: 64 KiB in pieces of 576 bytes are 120
_HALF = struct.Struct(">H").unpack_from
_TCP = struct.Struct(">4xIIBB").unpack_from
_USUAL = struct.Struct(">12xHBxH2xHxB2x12sIIBB").unpack_from  # Ethernet, IPv4 without options, TCP
MAX_ENDS = 1 << 14

Places = tuple[tuple[int, int], ...]
"""(offset, length) in the capture, in order."""


class Segment(NamedTuple):
    """A TCP segment: ``ends`` are source and destination, each an address and a port; ``places`` have its data.

    ``length`` is that of the data as sent: more than in ``places`` if the packet was cut when captured.
    """

    ends: tuple[bytes, bytes]
    sequence: int
    ack: int
    flags: int
    length: int
    places: Places
    mptcp: bool


class _Datagram(NamedTuple):
    """The fragments of a datagram so far: (offset, places), and its length, once the last is there."""

    pieces: dict[int, tuple[int, Places]]
    size: list[int]


@dataclass
class Decoder:
    """Decodes packets of a capture ``whole``, and counts what it leaves out.

    ``unknown_links`` counts packets by link types that it does not know, ``overlapping`` datagrams whose fragments
    overlap with other bytes (the first at capture offset ``overlap_at``).
    """

    whole: memoryview
    unknown_links: dict[int, int] = field(default_factory=dict)
    overlapping: int = 0
    overlap_at: int | None = None
    lost_fragments: int = 0
    _datagrams: dict[bytes, _Datagram] = field(default_factory=dict)
    _waiting: int = 0
    _ends: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)

    def decode(self, packet: CapturedPacket) -> Segment | None:
        """Return the TCP segment in a packet; None for anything else."""
        link, start, end, wire, _ = packet
        stop = start + wire
        buf = self.whole
        if link == ETHERNET:
            return self._usual(start, end, stop) or self._ethernet(buf, start, end, stop, None, 0)
        if link in RAW:
            return self._ip(buf, start, end, stop, None, 0)
        if link == SLL:
            return self._typed(buf, start + 14, end, stop, None, 0)
        if link == SLL2:
            kind = _HALF(buf, start)[0] if end - start >= 20 else 0
            if kind in VLAN:
                return self._typed(buf, start + 22, end, stop, None, 0)
            return self._ip(buf, start + 20, end, stop, None, 0) if kind in (IPV4, IPV6) else None
        if link in (NULL, LOOP):
            family = bytes(buf[start : start + 4])
            if int.from_bytes(family, "big") in FAMILIES or int.from_bytes(family, "little") in FAMILIES:
                return self._ip(buf, start + 4, end, stop, None, 0)
            return None
        self.unknown_links[link] = self.unknown_links.get(link, 0) + 1
        return None

    @property
    def waiting(self) -> int:
        """The number of datagrams of which fragments are missing."""
        return len(self._datagrams) + self.lost_fragments

    def _usual(self, start: int, end: int, stop: int) -> Segment | None:
        """Return the segment in an Ethernet frame with IPv4 and TCP, neither fragment nor SYN; None for any other."""
        if end - start < 54:
            return None
        kind, version, total, fragment, protocol, key, sequence, ack, words, flags = _USUAL(self.whole, start)
        if kind != IPV4 or version != 0x45 or protocol != TCP or fragment & 0x3FFF or flags & SYN or words < 0x50:
            return None
        data = start + 34 + (words >> 4) * 4
        if total > 20:
            stop = min(stop, start + 14 + total)
        if data > stop:
            return None
        ends = self._ends.get(key)
        if ends is None:
            if len(self._ends) >= MAX_ENDS:
                self._ends.clear()
            ends = self._ends[key] = key[:4] + key[8:10], key[4:8] + key[10:]
        there = (end if end < stop else stop) - data
        return Segment(ends, sequence, ack, flags, stop - data, ((data, there),) if there > 0 else (), False)

    def _ethernet(
        self, buf: memoryview, at: int, end: int, stop: int, where: Places | None, depth: int
    ) -> Segment | None:
        return self._typed(buf, at + 12, end, stop, where, depth)

    def _typed(self, buf: memoryview, at: int, end: int, stop: int, where: Places | None, depth: int) -> Segment | None:
        """Read from the EtherType at ``at`` on, over any VLAN tags."""
        while at + 2 <= end:
            kind = _HALF(buf, at)[0]
            if kind in (IPV4, IPV6):
                return self._ip(buf, at + 2, end, stop, where, depth)
            if kind not in VLAN:
                return None
            at += 4
        return None

    def _ip(self, buf: memoryview, at: int, end: int, stop: int, where: Places | None, depth: int) -> Segment | None:
        """Read an IP packet; ``end`` is where the captured bytes end, ``stop`` where the packet did as it was sent."""
        if end - at < 20:
            return None
        version = buf[at] >> 4
        if version == 4:
            head, total = (buf[at] & 15) * 4, _HALF(buf, at + 2)[0]
            addresses = bytes(buf[at + 12 : at + 16]), bytes(buf[at + 16 : at + 20])
            # Large segments that the network card splits later are captured with a total length of 0.
            stop = min(stop, at + total) if total > head else stop
            protocol, fragment = buf[at + 9], _HALF(buf, at + 6)[0]
            if head < 20:
                return None
            if fragment & 0x3FFF:
                key = b"".join((*addresses, buf[at + 4 : at + 6], buf[at + 9 : at + 10]))
                more, offset = bool(fragment & 0x2000), (fragment & 0x1FFF) * 8
                return self._fragment(
                    key, buf, at + head, end, stop, where, depth, offset, protocol, addresses, more=more
                )
            return self._transport(buf, at + head, end, stop, where, depth, protocol, addresses)
        if version != 6 or end - at < 40:
            return None
        length = _HALF(buf, at + 4)[0]
        addresses = bytes(buf[at + 8 : at + 24]), bytes(buf[at + 24 : at + 40])
        stop = min(stop, at + 40 + length) if length else stop
        protocol = buf[at + 6]
        at += 40
        for _ in range(16):
            if protocol in EXTENSIONS and at + 8 <= end:
                protocol, at = buf[at], at + 8 + 8 * buf[at + 1]
            elif protocol == FRAGMENT and at + 8 <= end:
                protocol, word = buf[at], _HALF(buf, at + 2)[0]
                more, offset = bool(word & 1), word & 0xFFF8
                key = b"".join((*addresses, buf[at + 4 : at + 8]))
                at += 8
                if more or offset:
                    return self._fragment(key, buf, at, end, stop, where, depth, offset, protocol, addresses, more=more)
            else:
                break
        return self._transport(buf, at, end, stop, where, depth, protocol, addresses)

    def _transport(
        self,
        buf: memoryview,
        at: int,
        end: int,
        stop: int,
        where: Places | None,
        depth: int,
        protocol: int,
        addresses: tuple[bytes, bytes],
    ) -> Segment | None:
        if protocol == TCP and end - at >= 20:
            sequence, ack, words, flags = _TCP(buf, at)
            data = at + (words >> 4) * 4
            if words < 0x50 or data > stop:
                return None
            ends = addresses[0] + bytes(buf[at : at + 2]), addresses[1] + bytes(buf[at + 2 : at + 4])
            there = min(end, stop) - data
            places = _places(where, data, there) if there > 0 else ()
            mptcp = bool(flags & SYN) and _has_option(bytes(buf[at + 20 : min(data, end)]), MPTCP_OPTION)
            return Segment(ends, sequence, ack, flags, stop - data, places, mptcp)
        if protocol == UDP and end - at >= 16 and depth < MAX_DEPTH:
            port = _HALF(buf, at + 2)[0]
            if port in VXLAN_PORTS and buf[at + 8] & 0x08:
                return self._ethernet(buf, at + 16, min(end, stop), stop, where, depth + 1)
        return None

    def _fragment(
        self,
        key: bytes,
        buf: memoryview,
        at: int,
        end: int,
        stop: int,
        where: Places | None,
        depth: int,
        offset: int,
        protocol: int,
        addresses: tuple[bytes, bytes],
        *,
        more: bool,
    ) -> Segment | None:
        """Keep a fragment; with the last of a datagram, read that."""
        length = stop - at
        if length <= 0 or end < stop or depth >= MAX_DEPTH:
            self.lost_fragments += 1
            return None
        found = self._datagrams.get(key)
        if found is None:
            found = self._datagrams[key] = _Datagram({}, [])
        places = _places(where, at, length)
        if not self._fits(found, offset, length, places):
            self.overlapping += 1
            self.overlap_at = self.overlap_at if self.overlap_at is not None else places[0][0]
            self._drop(key)
            return None
        if len(found.pieces) > MAX_FRAGMENTS:
            self.lost_fragments += 1
            self._drop(key)
            return None
        if offset not in found.pieces:
            found.pieces[offset] = length, places
            self._waiting += 1
        if not more:
            found.size[:] = [offset + length]
        while len(self._datagrams) > MAX_DATAGRAMS or self._waiting > MAX_PIECES:
            self._drop(next(iter(self._datagrams)))
            self.lost_fragments += 1
        if not found.size or sum(one for one, _ in found.pieces.values()) < found.size[0] or key not in self._datagrams:
            return None
        self._drop(key)
        every = tuple(place for _, (_, places) in sorted(found.pieces.items()) for place in places)
        whole = memoryview(b"".join(self.whole[place : place + size] for place, size in every))
        return self._transport(whole, 0, len(whole), len(whole), every, depth + 1, protocol, addresses)

    def _fits(self, found: _Datagram, offset: int, length: int, places: Places) -> bool:
        """Return whether a fragment overlaps none, or is one again."""
        again = found.pieces.get(offset)
        if again is not None:
            return again[0] == length and self._bytes(again[1]) == self._bytes(places)
        if found.size and offset + length > found.size[0]:
            return False
        return all(offset + length <= at or at + size <= offset for at, (size, _) in found.pieces.items())

    def _bytes(self, places: Places) -> bytes:
        return b"".join(self.whole[place : place + size] for place, size in places)

    def _drop(self, key: bytes) -> None:
        self._waiting -= len(self._datagrams.pop(key).pieces)


def _places(where: Places | None, start: int, length: int) -> Places:
    """Return where ``length`` bytes from ``start`` are in the capture; ``where`` are the places of the buffer."""
    if where is None:
        return ((start, length),)
    found = []
    at = 0
    for offset, size in where:
        first, last = max(start, at), min(start + length, at + size)
        if first < last:
            found.append((offset + first - at, last - first))
        at += size
    return tuple(found)


def _has_option(options: bytes, wanted: int) -> bool:
    """Return whether the options of a TCP header have one of this kind."""
    at = 0
    while at < len(options) and options[at]:
        if options[at] == wanted:
            return True
        if options[at] == 1:
            at += 1
        elif at + 1 < len(options) and options[at + 1] >= 2:
            at += options[at + 1]
        else:
            break
    return False
