"""vCPUs, as commands name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qmigtool.errors import UnsupportedError

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream
    from qmigtool.x86.vcpu import VCpu


def some_vcpus(stream: Stream) -> Sequence[VCpu]:
    """Return the x86 vCPUs; raises if there is none and nothing else is wrong."""
    vcpus = stream.vcpus
    if not vcpus and not stream.problems:
        raise UnsupportedError("XSAVE state of a machine that is not x86", "no x86 vCPU in this stream")
    return vcpus
