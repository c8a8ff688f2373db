"""Compare two streams by the meaning of their state, not by the place of its bytes.

=========  =====================================================================================
compare    two streams as a whole: :func:`compare`
threeway   two streams and their common base: :func:`compare_three`
domain     the libvirt XML of two save images
ram        the contents of guest memory, page by page
fields     two devices, field by field
defaults   the value of a field that was not sent
xstate     two vCPUs' extended state, by register
noise      rules that excuse differences, or name their topic (``noise.toml``)
words      descriptions of differences
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
