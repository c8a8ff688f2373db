"""Every record of every channel as one table of runs, in the order of application.

A run is consecutive pages of one block, written by records of one kind at a fixed distance. The order is that
of the bytes on each channel; between the channels of a multifd migration it is that of the epochs that SYNC packets and
FLUSH (or EOS) records end; inside an epoch no page is sent twice.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qmigtool.errors import LimitError, StreamError
from qmigtool.parsers.multifd import Compression, MultiFDFlag, Packet
from qmigtool.parsers.ramstate import LOST
from qmigtool.parsers.records import RamSaveFlag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from qmigtool.parsers.ramruns import RunTable
    from qmigtool.parsers.ramstate import RamBlock
    from qmigtool.parsers.source import Source

__all__ = ["RUN", "VOID", "Encoding", "RunColumns", "checked", "from_mapped", "from_packets", "from_table", "merge"]


MAX_MAPPED_RUNS = 1 << 24  # 640 MiB of columns; a bitmap needs one bit for each
PIECE = 64 << 10  # bytes of a bitmap read at a time


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
    DISCARD = 13  # postcopy: the records of these pages are void
    LOST = 14  # a hole in the stream: any of these pages may have been sent in it

    @property
    def holds_zero(self) -> bool:
        """Whether the page is one byte value, without a payload."""
        return self in (Encoding.ZERO, Encoding.MAPPED_ZERO, Encoding.MULTIFD_ZERO, *VOID)


VOID = (Encoding.DISCARD, Encoding.LOST)
"""What makes pages absent: no record, but a word about earlier ones."""

_BY_FLAG = {
    int(RamSaveFlag.ZERO): Encoding.ZERO,
    int(RamSaveFlag.PAGE): Encoding.NORMAL,
    int(RamSaveFlag.XBZRLE): Encoding.XBZRLE,
    int(RamSaveFlag.COMPRESS_PAGE): Encoding.COMPRESSED,
    0: Encoding.DISCARD,
    LOST: Encoding.LOST,
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
        ("offset", "u8"),  # of the first record in its channel (if compressed: of the first decompressed page)
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


def checked(packets: Iterable[Packet], blocks: Sequence[RamBlock], page_size: int) -> Iterator[Packet]:
    """Yield the packets of one multifd channel; raise StreamError for an invalid one."""
    sizes = {block.idstr: block.used_length for block in blocks}
    packing: Compression | None = None
    for packet in packets:
        if packet.block is not None:
            size = sizes.get(packet.block)
            if size is None:
                raise StreamError(
                    f"a page of RAM block {packet.block!r}, which the block list does not have", offset=packet.offset
                )
            for addr in (*packet.normal, *packet.zero):
                if addr >= size or addr % page_size:
                    raise StreamError(
                        f"page {addr:#x} of RAM block {packet.block!r}",
                        offset=packet.offset,
                        expected=f"a multiple of {page_size} below {size:#x}",
                    )
        if packet.normal:
            if packet.compression not in _BY_COMPRESSION:
                raise StreamError(f"compression {packet.flags & MultiFDFlag.COMPRESSION:#x}", offset=packet.offset)
            packing = packet.compression if packing is None else packing
            if packet.compression != packing:
                raise StreamError("a channel that changes its compression", offset=packet.offset)
        yield packet


def from_packets(
    packets: Iterable[Packet], blocks: Mapping[str, int], page_size: int, channel: int
) -> tuple[RunColumns, Compression | None]:
    """Turn the (checked) packets of one multifd channel into columns; also return the channel's compression.

    The offset of a compressed page is its offset in the decompressed channel. The rows of a packet are in the order of
    their pages: a sender puts the zero pages last, which is not a second round through memory.
    """
    rows: list[tuple[int, ...]] = []
    packing: Compression | None = None
    unpacked = 0
    for packet in packets:
        if packet.block is None:
            continue
        block = blocks[packet.block]
        if packet.normal:
            packing = packet.compression
        packed = packing is not None and packing is not Compression.NOCOMP
        base = unpacked if packed else packet.payload
        for addr, count, index in _consecutive(packet, page_size):
            if index is None:
                encoding, payload, offset = Encoding.MULTIFD_ZERO, 0, packet.offset
            else:
                encoding, payload, offset = _BY_COMPRESSION[packet.compression], page_size, base + index * page_size
            rows.append((channel, encoding, 0, block, 0, packet.epoch, payload, addr // page_size, count, offset))
        unpacked += len(packet.normal) * page_size
    return np.array(rows, dtype=RUN), packing


def _consecutive(packet: Packet, page_size: int) -> Iterator[tuple[int, int, int | None]]:
    """Yield (address, pages, index of the first in the payload) of each range of ascending pages; zero pages: None."""
    # A page that is listed as both is a normal one: a receiver handles the zero pages first.
    listed = sorted([(addr, -1) for addr in packet.zero] + [(addr, i) for i, addr in enumerate(packet.normal)])
    start = 0
    for i, (addr, place) in enumerate(listed, start=1):
        follows = place if place < 0 else place + 1
        if i == len(listed) or listed[i] != (addr + page_size, follows):
            first, at = listed[start]
            yield first, i - start, None if at < 0 else at
            start = i


def from_mapped(
    index: int, block: RamBlock, source: Source, page_size: int, origin: int = 0, room: int = MAX_MAPPED_RUNS
) -> RunColumns:
    """Turn the mapped-ram bitmap of block number ``index`` into columns; none if it has no area.

    A set bit is a page in the block's area; a clear one is a zero page, and the bytes at its offset are stale. The
    bitmap is an array of the writing host's ``unsigned long``: little-endian unless only the other order leaves the
    bits beyond the last page clear. More runs than ``room`` are a :class:`~qmigtool.errors.LimitError`.
    """
    mapped = block.mapped
    if mapped is None or mapped.bitmap_offset == mapped.pages_offset == 0:
        return np.zeros(0, RUN)
    pages = -(-block.used_length // page_size)
    if mapped.page_size != page_size or mapped.pages_offset + block.used_length >= 1 << 63:
        raise StreamError(
            f"RAM block {block.idstr!r} has pages of {mapped.page_size} bytes at {mapped.pages_offset:#x}",
            offset=block.offset,
            section="ram",
            expected=f"pages of {page_size} bytes, inside a file",
        )
    bitmap = mapped.bitmap_offset - origin
    swapped = _swapped(source, bitmap, pages, block.idstr)
    first, held = _runs_of_bits(source, bitmap, pages, swapped=swapped, room=room, name=block.idstr)
    out = np.zeros(len(first), RUN)
    out["page"] = first
    out["pages"] = np.diff(np.append(first, pages))
    out["block"] = index
    out["encoding"] = np.where(held, Encoding.MAPPED, Encoding.MAPPED_ZERO)
    out["payload"] = np.where(held, page_size, 0)
    out["offset"] = np.where(held, mapped.pages_offset - origin + first * page_size, bitmap)
    return out


def _swapped(source: Source, bitmap: int, pages: int, name: str) -> bool:
    """Whether the host was big-endian: only the last word shows it, by its bits beyond the last page."""
    stray = pages % 64
    if not stray:
        return False
    last = source.view(bitmap + pages // 64 * 8, 8)
    if not int.from_bytes(last, "little") >> stray:
        return False
    if int.from_bytes(last, "big") >> stray:
        raise StreamError(
            f"the bitmap of RAM block {name!r} has bits beyond its {pages} pages", offset=bitmap, section="ram"
        )
    return True


def _runs_of_bits(
    source: Source, bitmap: int, pages: int, *, swapped: bool, room: int, name: str
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the start of each run of equal bits, and whether it is set; piece by piece."""
    size = -(-pages // 64) * 8
    found = [np.zeros(0, np.int64)]
    count = 0
    last = None  # the bit before this piece
    initial = False
    for at in range(0, size, PIECE):
        words = np.frombuffer(source.view(bitmap + at, min(PIECE, size - at)), "<u8")
        if int(words[0]) in (0, (1 << 64) - 1) and bool((words == words[0]).all()):
            bits = np.full(1, words[0] != 0)  # all equal, like most in a sparse file
        else:
            ordered = words.byteswap() if swapped else words
            bits = np.unpackbits(ordered.view(np.uint8), bitorder="little").astype(bool)
        edges = np.flatnonzero(bits[1:] != bits[:-1]) + (at * 8 + 1)
        if last is None:
            initial = bool(bits[0])
        if last is None or bits[0] != last:
            edges = np.concatenate(([at * 8], edges))
        last = bits[-1]
        edges = edges[edges < pages]
        count += len(edges)
        if count > room:
            raise LimitError(
                f"the bitmap of RAM block {name!r} changes more than {room} times",
                offset=bitmap,
                section="ram",
                expected=f"at most {MAX_MAPPED_RUNS} runs of pages in all bitmaps",
            )
        found.append(edges)
    first = np.concatenate(found)
    return first, np.arange(len(first)) % 2 == (0 if initial else 1)


def merge(parts: Iterable[RunColumns], first: Sequence[RunColumns] = ()) -> RunColumns:
    """Put the runs of all channels into the order of application; those of ``first`` start their epochs."""
    rest = list(parts)
    runs = np.concatenate([*first, *rest])
    later = np.arange(len(runs)) >= sum(map(len, first))
    # Stable: inside an epoch and a channel the byte order is kept.
    return runs[np.lexsort((runs["channel"], later, runs["epoch"]))]
