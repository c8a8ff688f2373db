"""Preflight: whether a target loads a stream, the error message that it prints otherwise, and what is lost silently.

========  =====================================================================================
outcome   the whole prediction, :func:`preflight`, and its exit status
document  the document that ``preflight --json`` prints
target    what is known of the QEMU that loads the stream, and the files that contain it
loader    a model of QEMU's loader: :func:`predict`
losses    what is lost silently
remark    remarks on a section: doubts, notes
remedies  the command that fixes the stream
========  =====================================================================================
"""

from __future__ import annotations

from qmigtool.preflight.document import preflight_document
from qmigtool.preflight.loader.predict import Verdict, predict
from qmigtool.preflight.outcome import Preflight, PreflightStatus, preflight, preflight_file
from qmigtool.preflight.target.model import Target, TargetBlock, TargetSection, TargetVmsd
from qmigtool.preflight.target.readers import read_target, read_targets

__all__ = [
    "Preflight",
    "PreflightStatus",
    "Target",
    "TargetBlock",
    "TargetSection",
    "TargetVmsd",
    "Verdict",
    "predict",
    "preflight",
    "preflight_document",
    "preflight_file",
    "read_target",
    "read_targets",
]
