"""Compare the guest memory of two streams page by page.

=======  =====================================================================================
compare  :func:`compare_ram`, and its result: counts and stretches of pages
walk     one RAMBlock in both streams: each page and its class
pages    where the pages of a block are in one stream, and reading many of them at once
moved    pages with the contents of another page
text     a comparison as text and JSON
=======  =====================================================================================
"""

from __future__ import annotations

from qmigtool.diff.ram.compare import (
    MOVED,
    RANGE,
    BlockComparison,
    PageClass,
    PageDifference,
    RamComparison,
    compare_ram,
    ram_ranges,
)

__all__ = [
    "MOVED",
    "RANGE",
    "BlockComparison",
    "PageClass",
    "PageDifference",
    "RamComparison",
    "compare_ram",
    "ram_ranges",
]
