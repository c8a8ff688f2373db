"""The pages of a block that will be written, and their contents, for both memory formats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qmigtool.rewrite.memory import BlockDraft, MemoryDraft

__all__ = ["contents", "live_stretches"]


def live_stretches(memory: MemoryDraft, block: BlockDraft) -> list[tuple[int, int]]:
    """Return the stretches of pages (first, after the last) of a block that are not written as zero pages.

    Without ``squeeze`` these are the pages that were not sent as zero, whatever they contain: nothing is read.
    """
    if block.scrub:
        return []
    name, most = block.block.idstr, -(-block.sent // memory.page_size)
    sent = memory.ram.stretches(name, absent=memory.absent)
    found = [(first, min(last, most)) for first, last in sent if first < most]
    if not memory.squeeze:
        return found
    return [part for first, last in found for part in _not_zero(memory, name, first, last)]


def _not_zero(memory: MemoryDraft, name: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    begin = None
    for at, pages in memory.ram.read_pages(name, first, last):
        live: NDArray[np.bool_] = np.asarray(pages.any(axis=1))
        for i in np.flatnonzero(np.diff(live, prepend=[begin is not None])).tolist():
            if live[i]:
                begin = at + i
            elif begin is not None:
                yield begin, at + i
                begin = None
    if begin is not None:
        yield begin, last


def contents(memory: MemoryDraft, block: BlockDraft, first: int, last: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield (first page, pages) of a stretch of live pages."""
    yield from memory.ram.read_pages(block.block.idstr, first, last)
