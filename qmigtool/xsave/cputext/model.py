"""Rows of CPUID in a text."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import NamedTuple

from qmigtool.xsave.components import COMPONENTS
from qmigtool.xsave.layout import CpuidRow

XSTATE_LEAF = 0xD


class CpuidLine(NamedTuple):
    """One row of a dump; ``labelled`` says whether the dump names the subleaf; otherwise it was counted.

    ``at`` is its start in the text, in characters.
    """

    leaf: int
    subleaf: int
    labelled: bool
    registers: CpuidRow
    at: int = 0


@dataclass(slots=True)
class CpuidBlock:
    """The rows of one logical CPU, in the dump's order; ``cpu`` is its number, None if the dump has none.

    ``view`` names one of several views of a CPU: ``guest`` and ``host``, or Xen's policies.
    """

    cpu: int | None
    lines: list[CpuidLine] = field(default_factory=list)
    view: str = ""
    form: str = "CPUID dump"
    """The kind of text, for the source of a layout."""
    vendor: str = ""
    """CPUID leaf 0's vendor string, where the text has it without that leaf."""

    @property
    def label(self) -> str:
        """The name after ``#`` that selects this block; empty if it has none."""
        return self.view or ("" if self.cpu is None else str(self.cpu))


Leaves = Container[int] | None
"""The leaves to read; None: all."""


def wanted(leaf: int, leaves: Leaves) -> bool:
    """Return whether rows of this leaf are to be read."""
    return leaves is None or leaf in leaves


def component_row(
    bit: int,
    size: int,
    offset: int | None,
    *,
    supervisor: bool | None = None,
    align64: bool | None = None,
    xfd: bool | None = None,
) -> CpuidRow:
    """Return the row of a component from a decoded text; what the text leaves out is architectural."""
    known = COMPONENTS.get(bit)
    flags = (
        supervisor if supervisor is not None else bool(known and known.supervisor),
        align64 if align64 is not None else bool(known and known.align64),
        xfd if xfd is not None else bool(known and known.xfd),
    )
    ecx = sum(flag << number for number, flag in enumerate(flags))
    return size, 0 if flags[0] else offset or 0, ecx, 0


def mask_row(mask: int, size: int = 0, largest: int = 0) -> CpuidRow:
    """Return the row of subleaf 0: the XCR0 mask, the size for the current XCR0, the size for the whole mask."""
    return mask & 0xFFFFFFFF, size & 0xFFFFFFFF, largest & 0xFFFFFFFF, mask >> 32


def features_row(features: int, size: int, xss_mask: int) -> CpuidRow:
    """Return the row of subleaf 1: features, the size for the current XCR0 and IA32_XSS, the IA32_XSS mask."""
    return features, size & 0xFFFFFFFF, xss_mask & 0xFFFFFFFF, xss_mask >> 32
