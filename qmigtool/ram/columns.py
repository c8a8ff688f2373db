"""Every record of every channel as one table of runs, in the order in which they apply.

A run is a number of pages in a row of one block, written by records of one kind at a fixed distance. The order is that
of the bytes on each channel; between the channels of a multifd migration it is that of the epochs that SYNC packets and
FLUSH (or EOS) records close, and inside an epoch no page is sent twice.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qmigtool.errors import StreamError
from qmigtool.parsers.multifd import Compression, MultiFDFlag, Packet
from qmigtool.parsers.records import RamSaveFlag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qmigtool.parsers.ram import RamBlock
    from qmigtool.parsers.ramruns import RunTable
    from qmigtool.parsers.source import Source

__all__ = ["RUN", "Encoding", "RunColumns", "from_mapped", "from_packets", "from_table", "merge"]


class Encoding(IntEnum):
    """How a page was sent."""

    ZERO = 0
    NORMAL = 1
    XBZRLE = 2
    COMPRESSED = 3
    MAPPED = 4
    MAPPED_ZERO = 5
    MULTIFD = 6
    MULTIFD_ZERO = 7
    MULTIFD_ZLIB = 8
    MULTIFD_ZSTD = 9
    MULTIFD_QPL = 10
    MULTIFD_UADK = 11
    MULTIFD_QATZIP = 12
    DISCARD = 13  # postcopy: what was sent of these pages is to be forgotten

    @property
    def holds_zero(self) -> bool:
        """Whether the page is one byte value, without a payload."""
        return self in (Encoding.ZERO, Encoding.MAPPED_ZERO, Encoding.MULTIFD_ZERO, Encoding.DISCARD)


_BY_FLAG = {
    int(RamSaveFlag.ZERO): Encoding.ZERO,
    int(RamSaveFlag.PAGE): Encoding.NORMAL,
    int(RamSaveFlag.XBZRLE): Encoding.XBZRLE,
    int(RamSaveFlag.COMPRESS_PAGE): Encoding.COMPRESSED,
    0: Encoding.DISCARD,
}

_BY_COMPRESSION = {
    Compression.NOCOMP: Encoding.MULTIFD,
    Compression.ZLIB: Encoding.MULTIFD_ZLIB,
    Compression.ZSTD: Encoding.MULTIFD_ZSTD,
    Compression.QPL: Encoding.MULTIFD_QPL,
    Compression.UADK: Encoding.MULTIFD_UADK,
    Compression.QATZIP: Encoding.MULTIFD_QATZIP,
}

RUN = np.dtype(
    [
        ("channel", "u2"),  # 0: the main stream
        ("encoding", "u1"),
        ("fill", "u1"),  # the byte of a page without payload
        ("block", "u2"),
        ("head", "u2"),  # bytes before each payload
        ("epoch", "u4"),
        ("payload", "u4"),  # bytes of each payload
        ("page", "u8"),  # number of the first page in its block
        ("pages", "u8"),
        ("offset", "u8"),  # of the first record in its channel (of the first page in the unpacked channel, if packed)
    ]
)
"""One run: 40 bytes."""

RunColumns = NDArray[np.void]


def from_table(table: RunTable, page_size: int, syncs: Sequence[int], channel: int = 0) -> RunColumns:
    """Turn the runs of a stream into columns; ``syncs`` are the offsets that end each epoch."""
    words = np.frombuffer(table.words, dtype=np.uint64).reshape(-1, 4)
    offset, addr, sizes, kind = words.T
    out = np.zeros(len(words), RUN)
    out["channel"] = channel
    flags = (kind >> np.uint64(40)).astype(np.int64)
    encodings = np.zeros(int(max(_BY_FLAG)) + 1, np.uint8)
    for flag, encoding in _BY_FLAG.items():
        encodings[flag] = encoding
    out["encoding"] = encodings[flags]
    out["fill"] = kind & np.uint64(0xFF)
    out["block"] = kind >> np.uint64(24) & np.uint64(0xFFFF)
    out["head"] = kind >> np.uint64(8) & np.uint64(0xFFFF)
    out["payload"] = sizes & np.uint64(0xFFFFFFFF)
    out["pages"] = sizes >> np.uint64(32)
    out["page"] = addr // np.uint64(page_size)
    out["offset"] = offset
    out["epoch"] = np.searchsorted(np.asarray(syncs, dtype=np.uint64), offset)
    return out


def from_packets(
    packets: Iterable[Packet], blocks: Mapping[str, int], page_size: int, channel: int
) -> tuple[RunColumns, Compression | None]:
    """Turn the packets of one multifd channel into columns; also return how the channel is packed.

    The offset of a packed page is where it will be once the channel is unpacked.
    """
    rows: list[tuple[int, ...]] = []
    packing: Compression | None = None
    unpacked = 0
    for packet in packets:
        if packet.block is None:
            continue
        block = blocks.get(packet.block)
        if block is None:
            raise StreamError(
                f"a page of RAM block {packet.block!r}, which the block list does not have",
                offset=packet.offset,
                section="multifd",
            )
        if packet.normal:
            packing = packet.compression if packing is None else packing
            if packet.compression != packing:
                raise StreamError("a channel that changes its compression", offset=packet.offset, section="multifd")
            packed = packet.compression is not Compression.NOCOMP
            base = unpacked if packed else packet.payload
            encoding = _BY_COMPRESSION.get(packet.compression)
            if encoding is None:
                raise StreamError(f"compression {packet.flags & MultiFDFlag.COMPRESSION:#x}", offset=packet.offset)
            for first, count, index in _consecutive(packet.normal, page_size):
                rows.append(
                    (channel, encoding, 0, block, 0, packet.epoch, page_size, first, count, base + index * page_size)
                )
            unpacked += len(packet.normal) * page_size
        for first, count, _ in _consecutive(packet.zero, page_size):
            rows.append((channel, Encoding.MULTIFD_ZERO, 0, block, 0, packet.epoch, 0, first, count, packet.offset))
    return np.array(rows, dtype=RUN), packing


def _consecutive(offsets: Sequence[int], page_size: int) -> Iterable[tuple[int, int, int]]:
    """Give (first page, pages, index of the first) of each stretch of rising pages."""
    start = 0
    for i in range(1, len(offsets) + 1):
        if i == len(offsets) or offsets[i] != offsets[i - 1] + page_size:
            yield offsets[start] // page_size, i - start, start
            start = i


def from_mapped(blocks: Sequence[RamBlock], source: Source, page_size: int, origin: int = 0) -> RunColumns:
    """Turn the bitmaps of mapped-ram into columns.

    A set bit is a page in the block's area; a clear one is a zero page, and the bytes in its place are stale. The
    bitmap is an array of the writing host's ``unsigned long``: little-endian unless only the other order leaves the
    bits beyond the last page clear.
    """
    parts = [np.zeros(0, RUN)]
    for index, block in enumerate(blocks):
        mapped = block.mapped
        if mapped is None or mapped.bitmap_offset == mapped.pages_offset == 0:
            continue
        pages = -(-block.used_length // page_size)
        raw = np.frombuffer(source.view(mapped.bitmap_offset - origin, -(-pages // 64) * 8), np.uint8)
        if _bits(raw, len(raw) * 8)[pages:].any():
            swapped = raw.reshape(-1, 8)[:, ::-1].reshape(-1)
            if _bits(swapped, len(raw) * 8)[pages:].any():
                raise StreamError(
                    f"the bitmap of RAM block {block.idstr!r} has bits beyond its {pages} pages",
                    offset=mapped.bitmap_offset - origin,
                    section="ram",
                )
            raw = swapped
        present = _bits(raw, pages)
        edges = np.flatnonzero(np.diff(present)) + 1
        first = np.concatenate(([0], edges))
        part = np.zeros(len(first), RUN)
        part["page"] = first
        part["pages"] = np.diff(np.append(first, pages))
        part["block"] = index
        held = present[first] == 1
        part["encoding"] = np.where(held, Encoding.MAPPED, Encoding.MAPPED_ZERO)
        part["payload"] = np.where(held, page_size, 0)
        part["offset"] = np.where(held, mapped.pages_offset - origin + first * page_size, mapped.bitmap_offset - origin)
        parts.append(part)
    return np.concatenate(parts)


def _bits(raw: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    return np.unpackbits(raw, bitorder="little", count=count)


def merge(parts: Iterable[RunColumns]) -> RunColumns:
    """Put the runs of all channels into the order in which they apply."""
    runs = np.concatenate(list(parts))
    # Stable: inside an epoch and a channel the order of the bytes stays.
    return runs[np.lexsort((runs["channel"], runs["epoch"]))]
