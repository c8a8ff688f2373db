"""How memory was sent, in numbers: by block, by pass, in all."""

from __future__ import annotations

from typing import Any

import numpy as np

from qmigtool.ram.columns import Encoding
from qmigtool.ram.model import Ram

__all__ = ["blocks", "passes", "totals"]

_ZERO = np.array([encoding.holds_zero and encoding is not Encoding.DISCARD for encoding in Encoding])


def blocks(ram: Ram) -> list[dict[str, Any]]:
    """Return one object per RAMBlock: its pages, those sent by encoding, and what they are in the end.

    ``sent`` counts a page each time; ``distinct`` once; ``zero`` those whose last record is a zero page (a normal page
    may be all zeros too); ``elsewhere`` says that the block is shared memory and not in the stream.
    """
    out = []
    counted = ram.count()
    for index, block in enumerate(ram.blocks):
        final = ram.final(block.idstr)
        mine = ram.runs[ram.runs["block"] == index]
        kept = ram.runs["encoding"][final.run] != Encoding.DISCARD
        distinct = int(final.pages[kept].sum())
        out.append(
            {
                "name": block.idstr,
                "size": block.used_length,
                "pages": -(-block.used_length // ram.page_size),
                "sent": int(mine["pages"][mine["encoding"] != Encoding.DISCARD].sum()),
                "distinct": distinct,
                "zero": int(final.pages[_ZERO[ram.runs["encoding"][final.run]]].sum()),
                "elsewhere": block.mr_addr is not None and not len(mine),
                "by_encoding": counted[block.idstr],
            }
        )
    return out


def passes(ram: Ram) -> list[dict[str, Any]]:
    """Return one object per pass: pages sent, zero pages among them, bytes of records and payloads."""
    runs = ram.runs[ram.runs["encoding"] != Encoding.DISCARD]
    rounds = ram.passes[ram.runs["encoding"] != Encoding.DISCARD]
    if not len(runs):
        return []
    pages = runs["pages"].astype(np.int64)
    size = pages * (runs["head"].astype(np.int64) + runs["payload"])
    zero = np.where(_ZERO[runs["encoding"]], pages, 0)
    count = int(rounds.max()) + 1
    columns = [np.bincount(rounds, weights=weights, minlength=count) for weights in (pages, zero, size)]
    return [
        {"pass": number, "pages": int(p), "zero": int(z), "bytes": int(b)}
        for number, (p, z, b) in enumerate(zip(*columns, strict=True))
    ]


def totals(ram: Ram) -> dict[str, Any]:
    """Return the numbers for all of memory: pages sent, pages sent more than once, the share of zero pages."""
    each = blocks(ram)
    sent = sum(block["sent"] for block in each)
    runs = ram.runs
    zero = int(runs["pages"][_ZERO[runs["encoding"]]].sum())
    return {
        "sent_pages": sent,
        "distinct_pages": sum(block["distinct"] for block in each),
        "rewritten_pages": sent - sum(_ever_sent(ram, index) for index in range(len(ram.blocks))),
        "zero_ratio": zero / sent if sent else None,
    }


def _ever_sent(ram: Ram, index: int) -> int:
    """Count the pages of a block that some record wrote, discarded ones too."""
    mine = (ram.runs["block"] == index) & (ram.runs["encoding"] != Encoding.DISCARD)
    start = ram.runs["page"][mine].astype(np.int64)
    end = start + ram.runs["pages"][mine].astype(np.int64)
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    if not len(start):
        return 0
    reach = np.maximum.accumulate(end)
    before = np.concatenate(([0], reach[:-1]))
    return int((reach - np.maximum(np.minimum(before, reach), np.minimum(start, reach))).sum())
