"""Memory written as plain page records, whatever it was before: mapped-ram, XBZRLE, compressed, multifd, postcopy.

All pages go into one PART after the START section, with their final contents; the other PARTs of ``ram`` are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qmigtool.parsers.bodies import footer_of
from qmigtool.parsers.ram import CONTINUE, PAGE, encode_page
from qmigtool.parsers.records import SectionReference, SectionType
from qmigtool.rewrite.live import contents, live_stretches
from qmigtool.rewrite.memory import EOS, WORD, BlockDraft, MemoryDraft
from qmigtool.rewrite.records import zero_records
from qmigtool.rewrite.splice import Made, Part, Splice

__all__ = ["splices"]


def splices(memory: MemoryDraft, *, footers: bool) -> Iterator[Splice]:
    """Yield the splices of all of ``ram``; ``footers``: whether sections end with one."""
    memory.check_list()
    start = memory.start
    yield Splice(start.body_offset, start.body_length, memory.block_list() + EOS)
    parts: list[Part] = []
    for block in memory.kept:
        if not memory.sent_elsewhere(block):
            parts += _block(memory, block)
    section_id = start.section_id or 0
    head = bytes([SectionType.QEMU_VM_SECTION_PART]) + SectionReference(section_id).build()
    footer = footer_of(section_id) if footers else b""
    yield Splice(start.end, 0, (head, *parts, EOS + footer))
    yield from memory.without_pages()


def _block(memory: MemoryDraft, block: BlockDraft) -> Iterator[Part]:
    """Yield the records of a block; the first one names it."""
    name: str | None = block.name
    at = 0
    unplugged = memory.ram.unplugged(block.block.idstr).tolist()
    # Pages added by a larger size are not written: the loader keeps its own contents there.
    pages = -(-min(block.length, block.sent) // memory.page_size)
    for first, last in [*live_stretches(memory, block), (pages, pages)]:
        for start, end in _outside(at, first, unplugged):
            yield zero_records(start, end - start, name, memory.page_size)
            name = None
        if last > first:
            yield _records(memory, block, first, last, name)
            name = None
        at = last


def _outside(first: int, last: int, unplugged: list[list[int]]) -> Iterator[tuple[int, int]]:
    """Yield the stretches of pages from ``first`` to ``last`` that virtio-mem has plugged: QEMU never sends others."""
    for start, end in unplugged:
        if end <= first:
            continue
        if start >= last:
            break
        if start > first:
            yield first, start
        first = max(first, end)
    if last > first:
        yield first, last


def _records(memory: MemoryDraft, block: BlockDraft, first: int, last: int, name: str | None) -> Made:
    """Return the records of a stretch of live pages."""
    size = memory.page_size
    head = b"" if name is None else encode_page(first * size | PAGE, name, b"", page_size=size)

    def chunks() -> Iterator[bytes]:
        for at, pages in contents(memory, block, first, last):
            out = np.empty((len(pages), WORD + size), np.uint8)
            words = np.arange(at, at + len(pages), dtype=np.uint64) * np.uint64(size) | np.uint64(PAGE | CONTINUE)
            out[:, :WORD] = words.astype(">u8").view(np.uint8).reshape(len(pages), WORD)
            out[:, WORD:] = pages
            raw = out.tobytes()
            yield head + raw[WORD:] if at == first and head else raw

    named = len(head) - WORD if head else 0
    return Made((last - first) * (WORD + size) + named, chunks)
