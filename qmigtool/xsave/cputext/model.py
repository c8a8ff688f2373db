"""Rows of CPUID as a text has them."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import NamedTuple

from qmigtool.xsave.components import COMPONENTS
from qmigtool.xsave.layout import CpuidRow

XSTATE_LEAF = 0xD


class CpuidLine(NamedTuple):
    """One row of a dump; ``labelled`` says whether the dump tells the subleaf, or it was counted.

    ``at`` is where it starts in the text, in characters.
    """

    leaf: int
    subleaf: int
    labelled: bool
    registers: CpuidRow
    at: int = 0


@dataclass(slots=True)
class CpuidBlock:
    """What a dump has of one logical CPU, in its order; ``cpu`` is its number, None if the dump has none.

    ``view`` is a word for what is no CPU but one of several views of it: ``guest`` and ``host``, or Xen's policies.
    """

    cpu: int | None
    lines: list[CpuidLine] = field(default_factory=list)
    view: str = ""
    form: str = "CPUID dump"
    """What the text is, for the source of a layout."""
    vendor: str = ""
    """CPUID leaf 0's word, where the text tells it without that leaf."""

    @property
    def label(self) -> str:
        """What stands behind the ``#`` to choose this block; empty if nothing does."""
        return self.view or ("" if self.cpu is None else str(self.cpu))


Leaves = Container[int] | None
"""Which leaves are wanted; None: all."""


def wanted(leaf: int, leaves: Leaves) -> bool:
    """Say whether rows of this leaf are."""
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
    """Return the row of a component from what a decoded text says of it; what it does not say is architectural."""
    known = COMPONENTS.get(bit)
    flags = (
        supervisor if supervisor is not None else bool(known and known.supervisor),
        align64 if align64 is not None else bool(known and known.align64),
        xfd if xfd is not None else bool(known and known.xfd),
    )
    ecx = sum(flag << number for number, flag in enumerate(flags))
    return size, 0 if flags[0] else offset or 0, ecx, 0


def mask_row(mask: int, size: int = 0, largest: int = 0) -> CpuidRow:
    """Return the row of subleaf 0: the XCR0 mask, the bytes for the current XCR0, the bytes for all of the mask."""
    return mask & 0xFFFFFFFF, size & 0xFFFFFFFF, largest & 0xFFFFFFFF, mask >> 32


def features_row(features: int, size: int, xss_mask: int) -> CpuidRow:
    """Return the row of subleaf 1: features, the bytes for the current XCR0 and IA32_XSS, the IA32_XSS mask."""
    return features, size & 0xFFFFFFFF, xss_mask & 0xFFFFFFFF, xss_mask >> 32
