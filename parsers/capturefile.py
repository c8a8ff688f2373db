"""Packet capture files: pcap and pcapng, in either byte order.

Sources: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng of the IETF. Read here because scapy accepts packets
only up to 32 KiB (loopback and segmentation offload exceed that) and trusts the length of every block.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from qmigtool.errors import StreamError

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["read_packets"]

SECTION = "capture"
# Microseconds and nanoseconds; packet times are not used.
PCAP = {bytes.fromhex(magic): order for magic, order in {
    "d4c3b2a1": "<", "4d3cb2a1": "<", "a1b2c3d4": ">", "a1b23c4d": ">",
}.items()}  # fmt: skip
SECTION_HEADER, INTERFACE, PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6
BYTE_ORDER = {bytes.fromhex("4d3c2b1a"): "<", bytes.fromhex("1a2b3c4d"): ">"}
HEAD, MIN_BLOCK = 8, 12  # bytes of a block before its body, and of the smallest block
MAX_PACKET = 1 << 20  # bytes; the rest is left out


def read_packets(source: BufferSource) -> Iterator[tuple[int, bytes]]:
    """Yield (LINKTYPE_*, packet) of each packet, up to the end of the file, truncated or not.

    Raises :class:`~qmigtool.errors.StreamError` if it is not a capture, or if a pcapng block contradicts itself.
    """
    magic = bytes(source.whole[:4])
    if magic in PCAP:
        yield from _pcap(source, PCAP[magic])
    elif magic == SECTION_HEADER.to_bytes(4, "big"):
        yield from _pcapng(source)
    else:
        raise StreamError("not a capture", offset=0, section=SECTION, expected="pcap or pcapng")


def _pcap(source: BufferSource, order: str) -> Iterator[tuple[int, bytes]]:
    whole, at = source.whole, 24
    if len(whole) < at:
        raise StreamError("a capture that ends in its header", offset=len(whole), section=SECTION)
    link = struct.unpack_from(f"{order}I", whole, 20)[0] & 0xFFFF  # the upper half is the type of the checksum
    while at + 16 <= len(whole):
        captured = struct.unpack_from(f"{order}I", whole, at + 8)[0]
        at += 16
        yield link, bytes(whole[at : at + min(captured, MAX_PACKET)])
        at += captured
        source.passed(at)


def _pcapng(source: BufferSource) -> Iterator[tuple[int, bytes]]:
    whole, at, order = source.whole, 0, "<"
    links: list[int] = []  # of the section's interfaces
    while at + MIN_BLOCK <= len(whole):
        kind, length = struct.unpack_from(f"{order}2I", whole, at)
        if kind == SECTION_HEADER:
            order, links = BYTE_ORDER.get(bytes(whole[at + 8 : at + 12]), ""), []
            length = struct.unpack_from(f"{order}I", whole, at + 4)[0] if order else 0
        if length < MIN_BLOCK or length % 4:
            raise StreamError(f"a block of {length} bytes", offset=at, section=SECTION, expected="12 or more, by fours")
        body = whole[at + HEAD : min(at + length - 4, len(whole))]
        if kind == INTERFACE and len(body) >= 2:
            links.append(struct.unpack_from(f"{order}H", body)[0])
        elif kind in (PACKET, ENHANCED_PACKET) and len(body) >= 20:
            number = struct.unpack_from(f"{order}{'H' if kind == PACKET else 'I'}", body)[0]
            captured = struct.unpack_from(f"{order}I", body, 12)[0]
            yield _link(links, number, at), bytes(body[20 : 20 + min(captured, MAX_PACKET)])
        elif kind == SIMPLE_PACKET and len(body) >= 4:
            original = struct.unpack_from(f"{order}I", body)[0]
            yield _link(links, 0, at), bytes(body[4 : 4 + min(original, MAX_PACKET)])
        at += length
        source.passed(at)


def _link(links: list[int], number: int, at: int) -> int:
    if number >= len(links):
        raise StreamError(f"a packet of interface {number}", offset=at, section=SECTION, expected=f"of {len(links)}")
    return links[number]
