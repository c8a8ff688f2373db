"""Preflight: whether a target loads a stream, the error message that it prints otherwise, and what is lost silently.

========  =====================================================================================
outcome   the whole prediction: :func:`preflight`
target    what is known of the QEMU that loads the stream, and the files that contain it
loader    a model of QEMU's loader: :func:`predict`
losses    what is lost silently
remark    remarks on a section: doubts, notes
remedies  the command that fixes the stream
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
