"""Preflight: would this stream load on that target, in which words would QEMU refuse it, and what would be lost?

==========  =====================================================================================
target      :class:`Target`, what is known of the QEMU that is to load the stream
reference   a target as a stream shows it that it has saved itself; partial targets joined to one
==========  =====================================================================================
"""

from __future__ import annotations

from qmigtool.preflight.target import Target, TargetBlock, TargetSection, TargetVmsd

__all__ = ["Target", "TargetBlock", "TargetSection", "TargetVmsd"]
