"""XCR0 and IA32_XSS that a CPU can have: XSETBV and WRMSR fault (#GP) on others, so no area is restored with them."""

from __future__ import annotations

from qmigtool.xsave.components import LEGACY_MASK, SUPERVISOR_MASK, XCOMP_BV_COMPACTED, check_xcr0, mask_names
from qmigtool.xsave.layout import Layout

__all__ = ["impossible_xcr0", "impossible_xss"]


def impossible_xcr0(xcr0: int, layout: Layout) -> list[str]:
    """Return why a CPU of ``layout`` cannot have this XCR0; an empty list if it can (SDM volume 1, 13.3)."""
    reasons = check_xcr0(xcr0)
    foreign = xcr0 & ~(layout.xcr0_mask | LEGACY_MASK | SUPERVISOR_MASK | XCOMP_BV_COMPACTED)
    if foreign:
        reasons.append(f"{layout.name} cannot place {', '.join(mask_names(foreign))}")
    return [f"XCR0 cannot be {xcr0:#x} there, because XSETBV faults (#GP): {reason}" for reason in reasons]


def impossible_xss(xss: int, layout: Layout) -> list[str]:
    """Return why a CPU of ``layout`` cannot have this IA32_XSS; an empty list if it can."""
    foreign = xss & ~layout.xss_mask
    if not foreign:
        return []
    names = ", ".join(mask_names(foreign))
    return [f"IA32_XSS cannot be {xss:#x} there, because WRMSR faults (#GP): {layout.name} does not have {names}"]
