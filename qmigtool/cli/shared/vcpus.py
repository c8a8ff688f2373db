"""vCPUs, as commands name them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
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


def ranges(indexes: Iterable[int]) -> str:
    """Write numbers as in ``0-3,7``."""
    parts = []
    for _, run in groupby(enumerate(indexes), key=lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        parts.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(parts)
