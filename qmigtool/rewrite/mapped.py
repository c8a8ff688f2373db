"""Memory written as mapped-ram: a bitmap and a place for every page, per block (QEMU: ``mapped_ram_setup_ramblock``).

Every offset in it is absolute in the file. If data before it grows, the bitmaps move. The pages start at the next
multiple of 1 MiB after the bitmap, so they mostly stay where they are; the kernel copies them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qmigtool.parsers.records import MappedRamHeader
from qmigtool.rewrite.live import contents, live_stretches
from qmigtool.rewrite.memory import EOS, BlockDraft, MemoryDraft, MemoryFormat
from qmigtool.rewrite.splice import Hole, Made, Moved, Part, Splice

__all__ = ["splices"]

ALIGNMENT = 1 << 20  # MAPPED_RAM_FILE_OFFSET_ALIGNMENT
HEADER = len(MappedRamHeader(1, 0, 0, 0).build())
MAPPED_RAM_HDR_VERSION = 1


def splices(memory: MemoryDraft, shift: int) -> Iterator[Splice]:
    """Yield the splices of all of ``ram``; ``shift``: how many bytes its START body moves back from the source."""
    memory.check_list()
    start = memory.start
    word = memory.total_word()
    parts: list[Part] = [word]
    at = start.body_offset + shift + len(word)
    for block in memory.kept:
        for part in _block(memory, block, at):
            parts.append(part)
            at += len(part) if isinstance(part, bytes) else part.size
    yield Splice(start.body_offset, start.body_length, (*parts, EOS))
    if not memory.mapped_before:
        yield from memory.without_pages()


def _block(memory: MemoryDraft, block: BlockDraft, at: int) -> Iterator[Part]:
    """Yield a block's entry of the list, which will be at ``at``, its bitmap and its pages."""
    pages = -(-block.length // memory.page_size)
    bitmap = at + len(memory.entry(block)) + HEADER
    size = -(-pages // 64) * 8
    behind = -(-(bitmap + size) // ALIGNMENT) * ALIGNMENT
    if memory.sent_elsewhere(block):
        # Listed and not sent; QEMU since 11.0 writes offsets of 0, and no area.
        yield memory.entry(block, MappedRamHeader(MAPPED_RAM_HDR_VERSION, memory.page_size, 0, 0))
        return
    yield memory.entry(block, MappedRamHeader(MAPPED_RAM_HDR_VERSION, memory.page_size, bitmap, behind))
    old = block.block.mapped
    keep = (
        memory.format is MemoryFormat.KEEP and old is not None and not (block.resized or block.scrub or memory.squeeze)
    )
    if keep and old is not None:
        # Everything of the block stays, stale pages included.
        yield Moved(old.bitmap_offset, size)
        yield Hole(behind - bitmap - size)
        yield Moved(old.pages_offset, block.length)
        return
    live = live_stretches(memory, block)
    yield _bitmap(live, size)
    yield Hole(behind - bitmap - size)
    yield from _pages(memory, block, live)


def _bitmap(live: list[tuple[int, int]], size: int) -> bytes:
    """Return the bitmap, ``size`` bytes: bit i%8 of byte i/8 is page i, as a little-endian host writes it."""
    out = np.zeros(size, np.uint8)
    for first, last in live:
        start, end = -(-first // 8), last // 8
        if start > end:  # inside one byte
            out[end] |= (1 << last % 8) - (1 << first % 8)
            continue
        out[start:end] = 0xFF
        if first % 8:
            out[start - 1] |= 0x100 - (1 << first % 8)
        if last % 8:
            out[end] |= (1 << last % 8) - 1
    return out.tobytes()


def _pages(memory: MemoryDraft, block: BlockDraft, live: list[tuple[int, int]]) -> Iterator[Part]:
    page_size, at = memory.page_size, 0
    for first, last in live:
        if first > at:
            yield Hole((first - at) * page_size)
        yield _stretch(memory, block, first, last)
        at = last
    if block.length > at * page_size:
        yield Hole(block.length - at * page_size)


def _stretch(memory: MemoryDraft, block: BlockDraft, first: int, last: int) -> Part:
    size = (last - first) * memory.page_size
    old = block.block.mapped
    if old is not None:
        return Moved(old.pages_offset + first * memory.page_size, size)

    def chunks() -> Iterator[bytes]:
        for _, pages in contents(memory, block, first, last):
            yield pages.tobytes()

    return Made(size, chunks)
