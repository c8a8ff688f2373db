"""The vendor of a layout's CPU, and the MXCSR bits that this CPU defines.

A built-in layout has its vendor, and so has a dump of CPUID leaf 0. For any other, the vendor follows from the offsets
of opmask and PKRU, and from components that only one vendor has. x87, SSE and AVX alone do not decide it.
"""

from __future__ import annotations

import struct

from qmigtool.errors import XsaveError
from qmigtool.xsave.components import (
    AMX_MASK,
    APX_MASK,
    CET_MASK,
    MPX_MASK,
    MXCSR_MASK_OFFSET,
    MXCSR_OFFSET,
    PT_MASK,
    SUPERVISOR_MASK,
    component,
)
from qmigtool.xsave.header import MXCSR_DEFINED
from qmigtool.xsave.layout import Layout

__all__ = [
    "AMD",
    "INTEL",
    "MXCSR_MASK_AMD",
    "MXCSR_MASK_INTEL",
    "check_mxcsr",
    "cpu_mxcsr_mask",
    "mxcsr_mask",
    "vendor",
]

AMD, INTEL = "AMD", "Intel"

MXCSR_MASK_INTEL = 0xFFFF
MXCSR_MASK_AMD = MXCSR_DEFINED
"""AMD defines bit 17, too (the misaligned exception mask): measured on a Zen 4, and in CPUs since family 10h."""

MXCSR_MASK_LEAST = 0xFFBF
"""The meaning of MXCSR_MASK 0: every mask has these bits (SDM volume 1, 11.6.6)."""

_WHOSE = {
    "AuthenticAMD": AMD,
    "HygonGenuine": AMD,
    "GenuineIntel": INTEL,
    "CentaurHauls": INTEL,  # and Zhaoxin's: they have Intel's offsets
    "none": "",
}
NO_CPU = ("qemu", "tcg")
AMD_OPMASK, AMD_PKRU = 832, 2432
OPMASK, PKRU, LWP = (component(name).bit for name in ("opmask", "PKRU", "LWP"))
ONLY_INTEL = MPX_MASK | AMX_MASK | APX_MASK | PT_MASK | SUPERVISOR_MASK & ~CET_MASK


def vendor(layout: Layout) -> str:
    """Return ``"AMD"`` (Hygon too), ``"Intel"`` (Zhaoxin and Centaur too), or ``""`` if it is unknown."""
    if layout.vendor in _WHOSE:
        return _WHOSE[layout.vendor]
    if layout.mask & ONLY_INTEL:
        return INTEL
    if LWP in layout.rows:
        return AMD
    for bit, place in ((OPMASK, AMD_OPMASK), (PKRU, AMD_PKRU)):
        if bit in layout.rows:
            return AMD if layout.rows[bit].offset == place else INTEL
    return ""


def cpu_mxcsr_mask(layout: Layout) -> int | None:
    """Return the MXCSR bits that the CPU of a layout defines, or None if the vendor is unknown."""
    return {AMD: MXCSR_MASK_AMD, INTEL: MXCSR_MASK_INTEL}.get(vendor(layout))


def check_mxcsr(area: bytes, mxcsr: int, layout: Layout) -> None:
    """Raise XsaveError if restoring ``area``, which gives ``mxcsr``, faults on it on a CPU of ``layout``."""
    if wrong := mxcsr & ~mxcsr_mask(area, layout):
        raise XsaveError(
            f"MXCSR is {mxcsr:#x}, whose bits {wrong:#x} are reserved", offset=MXCSR_OFFSET, section=layout.name
        )


def mxcsr_mask(area: bytes, layout: Layout) -> int:
    """Return the MXCSR bits that the CPU of ``layout`` accepts, as far as it is known.

    If the vendor is unknown, MXCSR_MASK (byte 28 of the area) gives the bits of the CPU that saved the area, if it can
    be such a mask; otherwise every bit that any CPU defines is accepted.
    """
    known = cpu_mxcsr_mask(layout)
    if known is not None:
        return known
    (said,) = struct.unpack_from("<I", area, MXCSR_MASK_OFFSET)
    possible = said & MXCSR_MASK_LEAST == MXCSR_MASK_LEAST and not said & ~MXCSR_DEFINED
    return int(said) if possible else MXCSR_DEFINED
