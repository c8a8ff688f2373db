"""CapturedPacket capture files: pcap and pcapng, in either byte order, in micro- or nanoseconds.

Sources: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng of the IETF. Read here, not with scapy: this is as fast as
scapy's raw readers, says where it stops, and copies nothing. scapy's readers cut the packets of a loopback interface at
65,535 bytes and larger ones at 262,140, and keep a pcapng section's interfaces for the next section.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.errors import StreamError

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["CapturedPacket", "PacketReader"]

SECTION = "capture"
SECOND = 1_000_000_000
# Magic number -> byte order, nanoseconds of one unit of the second word of a time.
PCAP = {bytes.fromhex(magic): form for magic, form in {
    "d4c3b2a1": ("<", 1000), "4d3cb2a1": ("<", 1), "a1b2c3d4": (">", 1000), "a1b23c4d": (">", 1),
}.items()}  # fmt: skip
SECTION_HEADER, INTERFACE, PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6
BYTE_ORDER = {bytes.fromhex("4d3c2b1a"): "<", bytes.fromhex("1a2b3c4d"): ">"}
HEAD, MIN_BLOCK = 8, 12  # bytes of a block before its body, and of the smallest block
IF_TSRESOL, IF_TSOFFSET = 9, 14  # options of an interface
MAX_PACKET = 1 << 27  # bytes; a larger packet is damage
PASSED = 1 << 20  # bytes between two releases of what was read


class CapturedPacket(NamedTuple):
    """A packet: its bytes are ``[start, end)`` of the file. ``wire`` is its length as sent: more, if it was cut.

    ``link`` is LINKTYPE_*, ``time`` nanoseconds since 1970, None if the capture does not have it.
    """

    link: int
    start: int
    end: int
    wire: int
    time: int | None


class _Interface(NamedTuple):
    link: int
    snaplen: int
    multiply: int  # nanoseconds = units * multiply // divide + offset
    divide: int
    offset: int


class PacketReader:
    """Iterates over the packets of a capture, up to the end of the file, truncated or not.

    ``cut`` is the offset of a packet or block that the end of the file cuts, once it is reached; the part of a packet
    that is there is yielded. Raises :class:`~qmigtool.errors.StreamError` if it is not a capture, or if a header
    contradicts itself: then ``at`` is its offset, and the packets before it were yielded.
    """

    def __init__(self, source: BufferSource) -> None:
        self._source = source
        self.cut: int | None = None
        self.at = 0

    def __iter__(self) -> Iterator[CapturedPacket]:
        magic = bytes(self._source.whole[:4])
        if magic in PCAP:
            return self._pcap(*PCAP[magic])
        if magic == SECTION_HEADER.to_bytes(4, "big"):
            return self._pcapng()
        raise StreamError("not a capture", offset=0, section=SECTION, expected="pcap or pcapng")

    def _pcap(self, order: str, unit: int) -> Iterator[CapturedPacket]:
        whole, at = self._source.whole, 24
        size = len(whole)
        if size < at:
            raise StreamError("a capture that ends in its header", offset=size, section=SECTION)
        link = struct.unpack_from(f"{order}I", whole, 20)[0] & 0xFFFF  # the upper half is the type of the checksum
        header = struct.Struct(f"{order}4I").unpack_from
        released = 0
        while at + 16 <= size:
            self.at = at
            seconds, fraction, captured, wire = header(whole, at)
            if captured > MAX_PACKET:
                raise StreamError(f"a packet of {captured} bytes", offset=at, section=SECTION, expected=str(MAX_PACKET))
            start = at + 16
            at = start + captured
            yield CapturedPacket(
                link, start, min(at, size), captured if wire < captured else wire, seconds * SECOND + fraction * unit
            )
            if at - released >= PASSED:
                self._source.passed(at)
                released = at
        if at != size:
            self.cut = self.at if at > size else at

    def _pcapng(self) -> Iterator[CapturedPacket]:
        whole, at, order = self._source.whole, 0, "<"
        size, released = len(whole), 0
        interfaces: list[_Interface] = []  # of the section
        while at + MIN_BLOCK <= size:
            self.at = at
            kind, length = struct.unpack_from(f"{order}2I", whole, at)
            if kind == SECTION_HEADER:
                order, interfaces = BYTE_ORDER.get(bytes(whole[at + 8 : at + 12]), ""), []
                length = struct.unpack_from(f"{order}I", whole, at + 4)[0] if order else 0
            if length < MIN_BLOCK or length % 4:
                raise StreamError(
                    f"a block of {length} bytes", offset=at, section=SECTION, expected="12 or more, by fours"
                )
            body, end = at + HEAD, min(at + length - 4, size)
            if at + length > size:
                self.cut = at
            elif (again := struct.unpack_from(f"{order}I", whole, end)[0]) != length:
                raise StreamError(
                    f"a block of {length} bytes that ends with the length {again}",
                    offset=at,
                    section=SECTION,
                    expected="the same length at both ends",
                )
            room = end - body
            if kind == INTERFACE and room >= 8:
                interfaces.append(_interface(whole[body:end], order))
            elif kind in (PACKET, ENHANCED_PACKET) and room >= 20:
                number, high, low, captured, wire = struct.unpack_from(
                    f"{order}H2x4I" if kind == PACKET else f"{order}5I", whole, body
                )
                one = _known(interfaces, number, at)
                start = body + 20
                units = high << 32 | low
                time = units * one.multiply // one.divide + one.offset
                yield CapturedPacket(one.link, start, min(start + captured, end), max(captured, wire), time)
            elif kind == SIMPLE_PACKET and room >= 4:
                wire = struct.unpack_from(f"{order}I", whole, body)[0]
                one = _known(interfaces, 0, at)
                captured = min(wire, one.snaplen) if one.snaplen else wire
                yield CapturedPacket(one.link, body + 4, min(body + 4 + captured, end), wire, None)
            at += length
            if at - released >= PASSED:
                self._source.passed(at)
                released = at
        if at < size:
            self.cut = at


def _known(interfaces: list[_Interface], number: int, at: int) -> _Interface:
    if number >= len(interfaces):
        raise StreamError(
            f"a packet of interface {number}", offset=at, section=SECTION, expected=f"of {len(interfaces)}"
        )
    return interfaces[number]


def _interface(body: memoryview, order: str) -> _Interface:
    link, snaplen = struct.unpack_from(f"{order}H2xI", body)
    multiply, divide, offset = 1000, 1, 0
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}2H", body, at)
        value = bytes(body[at + 4 : at + 4 + length])
        if code == IF_TSRESOL and len(value) == 1:
            power = value[0] & 0x7F
            unit = 1 << power if value[0] & 0x80 else 10 ** min(power, 40)
            multiply, divide = SECOND, unit
        elif code == IF_TSOFFSET and len(value) == 8:
            offset = struct.unpack(f"{order}q", value)[0] * SECOND
        elif code == 0:
            break
        at += 4 + length + -length % 4
    return _Interface(link, snaplen, multiply, divide, offset)
