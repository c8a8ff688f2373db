"""What guest memory holds in two streams, page by page.

=======  =====================================================================================
compare  :func:`compare_ram`, and the numbers and stretches of pages that it finds
walk     one RAMBlock in both streams: each page and its class
pages    where the pages of a block stand in one stream, and many of them at once
moved    pages that hold what another page held
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
