"""Comparing two streams: by what the state means, not by where its bytes lie.

=======  =====================================================================================
model    :class:`Difference` and :class:`Comparison`
=======  =====================================================================================
"""

from __future__ import annotations

from qmigtool.diff.model import Comparison, Difference, Kind

__all__ = ["Comparison", "Difference", "Kind"]
