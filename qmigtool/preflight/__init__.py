"""Preflight: would this stream load on that target, in which words would QEMU refuse it, and what would be lost?

========  =====================================================================================
outcome   the whole: :func:`preflight`
target    what is known of the QEMU that is to load the stream, and the files that tell it
loader    QEMU's loader, acted out on what is known: :func:`predict`
losses    what is lost without a word
remark    what is said of one place: doubts, notes
remedies  the command that mends it
========  =====================================================================================
"""

from __future__ import annotations

from qmigtool.preflight.loader.predict import Verdict, predict
from qmigtool.preflight.outcome import Preflight, preflight
from qmigtool.preflight.target.model import Target, TargetBlock, TargetSection, TargetVmsd
from qmigtool.preflight.target.readers import read_target, read_targets

__all__ = [
    "Preflight",
    "Target",
    "TargetBlock",
    "TargetSection",
    "TargetVmsd",
    "Verdict",
    "predict",
    "preflight",
    "read_target",
    "read_targets",
]
