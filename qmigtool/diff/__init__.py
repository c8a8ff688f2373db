"""Comparing two streams: by what the state means, not by where its bytes lie.

=========  =====================================================================================
model      :class:`Difference` and :class:`Comparison`
ram        guest memory, page by page
rammoved   pages that hold what another page held
ramwalk    a block in both streams, page by page
rampages   where the pages of a block stand, and many of them at once
=========  =====================================================================================
"""

from __future__ import annotations

from qmigtool.diff.model import Comparison, Difference, Kind

__all__ = ["Comparison", "Difference", "Kind"]
