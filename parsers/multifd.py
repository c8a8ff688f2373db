"""The extra channels of a multifd migration (QEMU: ``migration/multifd.c``), one file per channel.

A channel is a 64-byte greeting and then packets until it closes. A packet is a header of ``320 + 8 * (512 KiB / page
size)`` bytes, always, and a payload if it has normal pages. There is no QEVM magic, and only the SYNC packets
relate packets to the main channel: the k-th one ends the k-th epoch.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from qmigtool.errors import LimitError, StreamError, TruncatedError, UnsupportedError
from qmigtool.parsers.extras import lacking
from qmigtool.parsers.record import Blob, Fixed, ListOf, Record, be32, be64, decode_name, record, u8

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qmigtool.parsers.window import Window

__all__ = [
    *("MULTIFD_MAGIC", "Compression", "MultiFDFlag", "MultiFDInit", "MultiFDPacket", "Packet"),
    *("read_channel", "zstd_decompressor"),
]

MULTIFD_MAGIC = 0x11223344
MULTIFD_VERSION = 1
MULTIFD_PACKET_SIZE = 512 * 1024  # bytes of pages that a packet can have
PAGES_IN_PACKET = MULTIFD_PACKET_SIZE // 4096  # of 4 KiB
MAX_PAYLOAD = 1 << 20  # what a receiver accepts for compressed pages


class MultiFDFlag(IntFlag):
    """``MULTIFD_FLAG_*``; the compression is a number in bits 1 to 5."""

    SYNC = 0x01
    COMPRESSION = 0x3E
    DEVICE_STATE = 0x40  # since 10.0


class Compression(IntFlag):
    """``MULTIFD_FLAG_ZLIB`` and the other compressions."""

    NOCOMP = 0x00
    ZLIB = 0x02
    ZSTD = 0x04
    QPL = 0x08
    UADK = 0x10
    QATZIP = 0x20


# All the bits of a packet's flags, with the names of migration/multifd.h
MultiFDFlags = IntFlag(  # type: ignore[misc]  # mypy wants the names in a literal
    "MultiFDFlags",
    {
        f"MULTIFD_FLAG_{name}": int(bit)
        for names in (MultiFDFlag, Compression)
        for name, bit in names.__members__.items()
        if int(bit).bit_count() == 1
    },
)


_MAGIC = Fixed("I", default=MULTIFD_MAGIC, constant="MULTIFD_MAGIC")
_VERSION = Fixed("I", default=MULTIFD_VERSION, constant="MULTIFD_VERSION")


@record
class MultiFDInit(Record):
    """The greeting of a channel; ``uuid`` is zero if the VM has none."""

    magic: Annotated[int, _MAGIC]
    version: Annotated[int, _VERSION]
    uuid: Annotated[bytes, Blob(16)]
    channel: u8
    reserved: Annotated[bytes, Blob(39)]


@record
class MultiFDPacket(Record):
    """The first 320 bytes of a packet. ``zero_pages`` and below were reserved until 8.2.

    ``next_packet_size`` is the payload's length; it is stale without normal pages, and so is ``ramblock``.
    """

    magic: Annotated[int, _MAGIC]
    version: Annotated[int, _VERSION]
    flags: Annotated[int, Fixed("I", MultiFDFlags)]
    pages_alloc: Annotated[int, Fixed("I", default=PAGES_IN_PACKET)]
    normal_pages: be32
    next_packet_size: Annotated[int, Fixed("I", counts="pages")]
    packet_num: be64
    zero_pages: be32
    reserved32: be32
    reserved: Annotated[bytes, Blob(24)]
    ramblock: Annotated[bytes, Blob(256)]


@record
class DeviceStatePacket(Record):
    """A packet with the state of a VFIO device (flag DEVICE_STATE); ``next_packet_size`` bytes follow."""

    magic: Annotated[int, _MAGIC]
    version: Annotated[int, _VERSION]
    flags: Annotated[int, Fixed("I", MultiFDFlags, MultiFDFlag.DEVICE_STATE)]
    idstr: Annotated[bytes, Blob(256)]
    instance_id: be32
    next_packet_size: Annotated[int, Fixed("I", counts="state")]


def _places(packet: Any) -> int:
    return int(packet.pages_alloc or PAGES_IN_PACKET)


@record
class MultiFDPagePacket(MultiFDPacket):
    """A :class:`MultiFDPacket` with what follows it: the offsets of its pages in the RAM block, and the payload.

    Of the ``offsets``, the first are those of ``normal_pages``, the next those of ``zero_pages``, and the rest is
    unused. There is a place for all pages of 4 KiB that a packet can have, also in a packet without pages.
    """

    offsets: Annotated[tuple[int, ...], ListOf(Fixed("Q"), _places)]
    pages: Annotated[bytes, Blob(lambda packet: packet.next_packet_size if packet.normal_pages else 0)]


@record
class DeviceStateData(DeviceStatePacket):
    """A :class:`DeviceStatePacket` with the state that follows it."""

    state: Annotated[bytes, Blob(lambda packet: packet.next_packet_size)]


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: its offset, and its pages.

    ``epoch`` counts the SYNC packets before it. ``normal`` and ``zero`` are byte offsets in the RAMBlock ``block``;
    ``payload`` is the offset of the payload in the channel, ``payload_length`` its length. A packet of device state has
    no block and no pages.
    """

    offset: int
    flags: int
    epoch: int
    block: str | None
    normal: tuple[int, ...]
    zero: tuple[int, ...]
    payload: int
    payload_length: int
    end: int

    @property
    def compression(self) -> Compression:
        """The compression of the payload."""
        return Compression(self.flags & MultiFDFlag.COMPRESSION)


def read_channel(window: Window, page_size: int) -> Iterator[MultiFDInit | Packet]:
    """Yield the greeting and then every packet of a channel that is completely in memory.

    Raises :class:`~qmigtool.errors.StreamError` with the offset in the channel.
    """
    greeting, pos = MultiFDInit.parse(window, 0)
    _check_magic(greeting.magic, greeting.version, 0)
    yield greeting
    epoch = 0
    limit = MULTIFD_PACKET_SIZE // page_size
    while not window.at_end(pos):
        packet = _packet(window, pos, epoch, limit, page_size)
        yield packet
        if packet.flags & MultiFDFlag.SYNC:
            epoch += 1
        pos = packet.end


PACKET_HEAD = 320  # bytes of MultiFDPacket


def read_packet(window: Window, pos: int, epoch: int, page_size: int) -> Packet:
    """Return the packet at ``pos``; raises what :func:`read_channel` raises."""
    return _packet(window, pos, epoch, MULTIFD_PACKET_SIZE // page_size, page_size)


def page_packet_size(page_size: int) -> int:
    """Return the bytes of a packet before its payload."""
    return PACKET_HEAD + 8 * (MULTIFD_PACKET_SIZE // page_size)


def _check_magic(magic: int, version: int, pos: int) -> None:
    if magic != MULTIFD_MAGIC:
        raise StreamError(f"not a multifd packet: {magic:#010x}", offset=pos, expected=f"{MULTIFD_MAGIC:#010x}")
    if version != MULTIFD_VERSION:
        raise StreamError(f"multifd version {version}", offset=pos + 4, expected=str(MULTIFD_VERSION))


def _packet(window: Window, pos: int, epoch: int, limit: int, page_size: int) -> Packet:
    flags = window.be32(pos + 8, "a multifd packet's flags")
    if flags & MultiFDFlag.DEVICE_STATE:
        device, at = DeviceStatePacket.parse(window, pos)
        _check_magic(device.magic, device.version, pos)
        window.need(at, device.next_packet_size, "device state")
        return Packet(pos, flags, epoch, None, (), (), at, device.next_packet_size, at + device.next_packet_size)
    head, at = MultiFDPacket.parse(window, pos)
    _check_magic(head.magic, head.version, pos)
    if head.normal_pages + head.zero_pages > limit:
        raise LimitError(
            f"{head.normal_pages} normal and {head.zero_pages} zero pages in a packet",
            offset=pos + 16,
            expected=f"at most {limit}",
        )
    if head.normal_pages and head.next_packet_size > MAX_PAYLOAD:
        raise LimitError(
            f"a payload of {head.next_packet_size} bytes", offset=pos + 20, expected=f"at most {MAX_PAYLOAD}"
        )
    raw = window.view(at, 8 * limit, "a multifd packet's page offsets")
    pages = [int.from_bytes(raw[8 * i : 8 * i + 8], "big") for i in range(head.normal_pages + head.zero_pages)]
    payload = at + 8 * limit
    # Without normal pages the length and the block's name are left over from an earlier packet.
    length = head.next_packet_size if head.normal_pages else 0
    packed = flags & MultiFDFlag.COMPRESSION
    if head.normal_pages and not packed and length != head.normal_pages * page_size:
        raise StreamError(
            f"{head.normal_pages} pages in {length} bytes",
            offset=pos + 20,
            expected=f"{head.normal_pages * page_size} bytes",
        )
    window.need(payload, length, "a multifd payload")
    block = decode_name(head.ramblock.split(b"\0", 1)[0]) if pages else None
    return Packet(
        pos,
        flags,
        epoch,
        block,
        tuple(pages[: head.normal_pages]),
        tuple(pages[head.normal_pages :]),
        payload,
        length,
        payload + length,
    )


class PageDecoder(Protocol):
    """Decompresses the payloads of one channel, in order; state carries over from payload to payload."""

    def pages(self, payload: bytes, size: int) -> bytes:
        """Return the ``size`` bytes of pages in the next payload."""
        ...


class _Inflate:
    """One deflate stream for a channel's whole life; each payload ends with a sync flush."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj()

    def pages(self, payload: bytes, size: int) -> bytes:
        try:
            return self._inflate.decompress(payload, size + 1)
        except zlib.error as error:
            raise StreamError(f"zlib: {error}") from None


class _Zstd:
    """One zstd stream for a channel's whole life, flushed after each payload and never ended."""

    def __init__(self) -> None:
        self._zstd: Any = zstd_decompressor()

    def pages(self, payload: bytes, size: int) -> bytes:
        # The decoders' errors have no common base but Exception.
        try:
            return bytes(self._zstd.decompress(payload, size + 1))
        except Exception as error:
            raise StreamError(f"zstd: {error}") from None


def zstd_decompressor(memory: int | None = None) -> Any:
    """Return a zstd decompressor from the available module; raises :class:`~qmigtool.errors.UnsupportedError`.

    ``memory`` bounds the window that a frame may require, in bytes; by default zstd's own limit, 128 MiB.
    """
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            raise lacking("zstd compression", "backports.zstd", "zstd") from None
    if memory is None:
        return zstd.ZstdDecompressor()
    window = min(max(memory.bit_length() - 1, 10), 31)
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window})


def page_decoder(compression: Compression) -> PageDecoder:
    """Return a decoder for a channel; raises :class:`~qmigtool.errors.UnsupportedError` and names the method."""
    if compression is Compression.ZLIB:
        return _Inflate()
    if compression is Compression.ZSTD:
        return _Zstd()
    raise UnsupportedError(f"multifd pages compressed with {compression.name or hex(compression)}")


def decode_payload(decoder: PageDecoder, packet: Packet, payload: bytes, page_size: int) -> bytes:
    """Return the pages of one packet, in the order of ``packet.normal``."""
    size = len(packet.normal) * page_size
    try:
        pages = decoder.pages(payload, size)
    except StreamError as error:
        error.offset, error.section = packet.payload, "multifd"
        raise
    if len(pages) != size:
        short = len(pages) < size
        raise (TruncatedError if short else StreamError)(
            f"{len(pages)} bytes of pages in the payload" if short else "more pages in the payload than announced",
            offset=packet.payload,
            section="multifd",
            expected=f"{size}",
        )
    return pages
