"""Preflight: would this stream load on that target, in which words would QEMU refuse it, and what would be lost?

============  =====================================================================================
target        :class:`Target`, what is known of the QEMU that is to load the stream
reference     a target as a stream shows it that it has saved itself; partial targets joined to one
vmstate_dump  ... as -dump-vmstate shows it
cpumodel      ... as QMP's query-cpu-model-expansion shows its CPU
masks         ... as the properties of an MSHV partition show it
builds        ... as its version tells (``vmsds.json``)
targetfile    ... as a person writes it down in TOML
readers       files of all these kinds, recognised by what is in them
============  =====================================================================================
"""

from __future__ import annotations

from qmigtool.preflight.target import Target, TargetBlock, TargetSection, TargetVmsd

__all__ = ["Target", "TargetBlock", "TargetSection", "TargetVmsd"]
