"""Preflight: would this stream load on that target, in which words would QEMU refuse it, and what would be lost?

=======  =====================================================================================
target   :class:`Target`, what is known of the QEMU that is to load the stream
=======  =====================================================================================
"""

from __future__ import annotations

from qmigtool.preflight.target import Target, TargetBlock, TargetSection

__all__ = ["Target", "TargetBlock", "TargetSection"]
