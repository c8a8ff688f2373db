"""Which sections belong to one vCPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["LAPIC", "pairs"]

LAPIC = "apic"
"""The section of a local APIC."""

_Cpu = TypeVar("_Cpu")
_Other = TypeVar("_Other")


def pairs(cpus: Sequence[_Cpu], others: Sequence[_Other]) -> tuple[tuple[_Cpu, _Other], ...] | None:
    """Return each vCPU with its ``apic`` or ``cpu_common``; None if their numbers differ, so that nothing shows which.

    Both are given by ascending instance. The instance of ``cpu`` and ``cpu_common`` is the vCPU's number, that of
    ``apic`` the APIC ID: it rises with the number, and has gaps where a topology's sizes are not powers of two
    (hw/i386/x86-common.c), so the order pairs them and the instance does not. Without any, there is no pair.
    """
    if others and len(cpus) != len(others):
        return None
    return tuple(zip(cpus, others, strict=False))
