"""A comparison of guest memory as text and as JSON."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from qmigtool.diff.ram.compare import PageClass, ram_ranges
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.diff.ram.compare import BlockComparison, RamComparison

__all__ = [
    *("BLOCK_HEAD", "MOVED_HEAD", "RANGE_HEAD"),
    *("block_cells", "moved_cells", "ram_as_dict", "ram_verdict", "range_cells"),
]

MAX_RANGES = 10_000  # in a JSON document
BLOCK_HEAD = ["RAM block", "pages", *(kind.word.replace("_", " ") for kind in PageClass)]
MOVED_HEAD = ["page of B", "offset", "has contents of", "at"]
RANGE_HEAD = ["RAM block", "offset", "pages", "what"]


def block_cells(block: BlockComparison) -> list[str]:
    """Return the number of pages of each class in a RAMBlock as a line of cells, as :data:`BLOCK_HEAD` names them."""
    return [printable(block.name), str(block.pages), *(str(block.counts[kind]) for kind in PageClass)]


def range_cells(found: RamComparison, limit: int | None) -> list[list[str]]:
    """Return the first stretches of pages that differ as lines of cells, as :data:`RANGE_HEAD` names them."""
    rows = islice(ram_ranges.rows(found), limit)
    return [[printable(block), f"{offset:#x}", str(pages), kind] for block, offset, _, pages, kind in rows]


def moved_cells(found: RamComparison) -> list[list[str]]:
    """Return the pages of B with the contents of another page of A as lines of cells (:data:`MOVED_HEAD`)."""
    names = [printable(block.name) for block in found.blocks]
    return [
        [names[block], f"{offset:#x}", names[origin], f"{at:#x}"]
        for block, origin, offset, at in found.moved().tolist()
    ]


def ram_verdict(found: RamComparison) -> str:
    """Return the outcome in one sentence."""
    pages = sum(found.counts.values())
    differing = pages - found.counts[PageClass.SAME]
    return f"{differing} of {pages} pages of guest memory differ" if differing else "no page of guest memory differs"


def ram_as_dict(found: RamComparison, *, moved: bool = False) -> dict[str, Any]:
    """Return the comparison as ``--json`` prints it, with the first 10,000 stretches that differ.

    ``moved`` adds the first 10,000 pages of B with the contents of another page of A.
    """
    rows = list(islice(ram_ranges.rows(found), MAX_RANGES + 1))
    document: dict[str, Any] = {
        "same": found.same,
        "blocks": [block.as_dict() for block in found.blocks],
        "ranges": [
            {"block": block, "offset": offset, "length": length, "pages": pages, "class": kind}
            for block, offset, length, pages, kind in rows[:MAX_RANGES]
        ],
        "ranges_complete": len(rows) <= MAX_RANGES,
    }
    if moved:
        names = [block.name for block in found.blocks]
        document["moved"] = [
            {"block": names[block], "offset": offset, "from_block": names[origin], "from_offset": at}
            for block, origin, offset, at in found.moved()[:MAX_RANGES].tolist()
        ]
    return document
