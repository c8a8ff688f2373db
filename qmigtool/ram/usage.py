"""How memory was sent, in numbers: by block, by pass, in all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmigtool.ram.columns import VOID, Encoding
from qmigtool.ram.model import Ram

__all__ = ["PASS", "SENT_AS_ZERO", "blocks", "passes", "row", "totals"]

PASS = np.dtype([("pass", "u8"), ("pages", "u8"), ("zero", "u8"), ("bytes", "u8")])
"""One pass: its number, the pages sent, the zero pages among them, bytes of records and payloads."""

_ZERO_NAMES = ("zero", "mapped_zero", "multifd_zero")
SENT_AS_ZERO = np.array([encoding.holds_zero and encoding not in VOID for encoding in Encoding])
"""Whether an encoding is that of zero pages, by its number."""


def blocks(ram: Ram) -> list[dict[str, Any]]:
    """Return one object per RAMBlock: its pages, those sent by encoding, and their final state.

    ``sent`` counts a page each time it was sent; ``distinct`` once; ``zero`` those whose last record is a zero page (a
    normal page may be all zeros too); ``absent`` those that are in none of the given channels (unplugged virtio-mem is
    not counted); ``discarded`` those that postcopy told the destination to forget; ``elsewhere`` if the block is
    shared memory, and absent for that reason.
    """
    out = []
    counted, discarded = ram.count(), ram.discarded()
    for block in ram.blocks:
        sent = counted[block.idstr]
        distinct = zero = 0
        if sent:
            final = ram.final(block.idstr)
            encodings = ram.runs["encoding"][final.run]
            distinct = int(final.pages[~np.isin(encodings, VOID)].sum())
            zero = int(final.pages[SENT_AS_ZERO[encodings]].sum())
        pages = -(-block.used_length // ram.page_size)
        out.append(
            {
                "name": block.idstr,
                "size": block.used_length,
                "pages": pages,
                "sent": sum(sent.values()),
                "distinct": distinct,
                "zero": zero,
                "absent": pages if block.mr_addr is not None and not sent else ram.absent(block.idstr),
                "discarded": discarded[block.idstr],
                "elsewhere": block.mr_addr is not None and not sent,
                "by_encoding": sent,
            }
        )
    return out


def row(block: dict[str, Any]) -> tuple[Any, ...]:
    """Return one of :func:`blocks` as a row of :data:`qmigtool.tables.ram_usage`."""
    encodings = " ".join(f"{name}={pages}" for name, pages in block["by_encoding"].items())
    return (*(block[name] for name in ("name", "pages", "sent", "distinct", "zero", "absent")), encodings)


def passes(ram: Ram) -> NDArray[np.void]:
    """Return the passes as columns (:data:`PASS`): where pages were requested one by one, each may be a pass."""
    sent = ~np.isin(ram.runs["encoding"], VOID)
    runs, rounds = ram.runs[sent], ram.passes[sent]
    if not len(runs):
        return np.zeros(0, PASS)
    pages = runs["pages"].astype(np.int64)
    size = pages * (runs["head"].astype(np.int64) + runs["payload"])
    zero = np.where(SENT_AS_ZERO[runs["encoding"]], pages, 0)
    count = int(rounds.max()) + 1
    out = np.zeros(count, PASS)
    out["pass"] = np.arange(count)
    for name, values in (("pages", pages), ("zero", zero), ("bytes", size)):
        out[name] = np.bincount(rounds, weights=values, minlength=count)
    return out


def totals(ram: Ram, each: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return the totals of all memory: pages sent, pages sent more than once, the share of zero pages.

    ``absent_pages`` leaves out shared blocks that are not in the stream; ``each`` is from :func:`blocks`, if the
    caller has it.
    """
    each = blocks(ram) if each is None else each
    sent = sum(block["sent"] for block in each)
    zero = sum(pages for block in each for name, pages in block["by_encoding"].items() if name in _ZERO_NAMES)
    return {
        "sent_pages": sent,
        "distinct_pages": sum(block["distinct"] for block in each),
        "absent_pages": sum(block["absent"] for block in each if not block["elsewhere"]),
        "rewritten_pages": sent - sum(_ever_sent(ram, block["name"]) for block in each if block["sent"]),
        "zero_ratio": zero / sent if sent else None,
    }


def _ever_sent(ram: Ram, name: str) -> int:
    """Count the pages of a block that some record wrote, discarded ones too."""
    mine = ram.runs_of(name)
    mine = mine[~np.isin(ram.runs["encoding"][mine], VOID)]
    start = ram.runs["page"][mine].astype(np.int64)
    end = start + ram.runs["pages"][mine].astype(np.int64)
    order = np.argsort(start, kind="stable")
    start, end = start[order], end[order]
    if not len(start):
        return 0
    reach = np.maximum.accumulate(end)
    before = np.concatenate(([0], reach[:-1]))
    return int((reach - np.maximum(np.minimum(before, reach), np.minimum(start, reach))).sum())
