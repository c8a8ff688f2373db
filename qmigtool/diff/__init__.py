"""Comparing two streams: by what the state means, not by where its bytes lie.

=========  =====================================================================================
compare    two streams as a whole: :func:`compare`
threeway   two streams and the one that both came from: :func:`compare_three`
ram        what guest memory holds, page by page
fields     two devices, field by field
defaults   what a field holds that was not sent
xstate     two vCPUs' extended state, by register
noise      rules that excuse differences, or name what they are about (``noise.toml``)
words      a difference in words
table      a comparison as a pandas DataFrame
text       a comparison as text
html       a comparison as a page
outcome    state and memory together, and whether all could be compared
model      :class:`Difference` and :class:`Comparison`
=========  =====================================================================================
"""

from __future__ import annotations

from qmigtool.diff.compare import compare
from qmigtool.diff.model import Comparison, Difference, DifferenceKind
from qmigtool.diff.noise import Noise, NoiseRule, default_noise, load_noise
from qmigtool.diff.table import differences
from qmigtool.diff.threeway import ThreeWay, ThreeWayChange, Who, compare_three

__all__ = [
    "Comparison",
    "Difference",
    "DifferenceKind",
    "Noise",
    "NoiseRule",
    "ThreeWay",
    "ThreeWayChange",
    "Who",
    "compare",
    "compare_three",
    "default_noise",
    "differences",
    "load_noise",
]
