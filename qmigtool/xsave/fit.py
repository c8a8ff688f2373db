"""Whether a layout fits an area, and which of the known layouts do.

An area does not contain its components' offsets. A layout is contradicted by a header with components that it
does not have, a length that only other CPUs' areas have, and non-zero bytes where it has no component.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import combinations

from qmigtool.xsave.catalog import layout as built_in
from qmigtool.xsave.catalog import layout_names
from qmigtool.xsave.components import (
    AMX_MASK,
    APX_MASK,
    AVX512_MASK,
    AVX_MASK,
    EXTENDED_OFFSET,
    LEGACY_MASK,
    MPX_MASK,
    PKRU_MASK,
    XCOMP_BV_COMPACTED,
    Format,
    bit_name,
    bits,
    check_xcr0,
    mask_names,
)
from qmigtool.xsave.header import BUFFER, area_format, header
from qmigtool.xsave.holders.software import software_misfit
from qmigtool.xsave.layout import Layout
from qmigtool.xsave.vendor import NO_CPU, vendor

__all__ = ["fits", "fitting_layouts", "misfits", "stray_fill"]


def misfits(area: bytes, layout: Layout) -> tuple[str, ...]:
    """Return why ``area`` cannot be of ``layout``: one sentence each, none if nothing contradicts it.

    An area without a whole header has no layout, and gives no sentence.
    """
    if len(area) < EXTENDED_OFFSET:
        return ()
    found = [*_header(area, layout)]
    if not found:
        found += [*_length(area, layout), *_stray(area, layout)]
    if not found and (contradiction := software_misfit(area, layout)) is not None:
        found.append(contradiction)
    if not found:
        found += _better(area, layout)
    return tuple(found)


def fits(area: bytes, layout: Layout) -> bool:
    """Return whether nothing in ``area`` contradicts ``layout``."""
    return not misfits(area, layout) and (area_format(area) is Format.STANDARD or layout.has_xsavec)


def fitting_layouts(area: bytes) -> tuple[Layout, ...]:
    """Return the built-in layouts that fit an area, in the catalog's order.

    Those that are not CPUs (``qemu``, ``tcg``) are tried only if no CPU's layout fits. Raises XsaveError if the area is
    too short to have a format.
    """
    area_format(area)
    known = [built_in(name) for name in layout_names()]
    real = tuple(one for one in known if one.name not in NO_CPU and fits(area, one))
    return real or tuple(one for one in known if one.name in NO_CPU and fits(area, one))


def stray_fill(area: bytes, layout: Layout) -> int | None:
    """Return the one value, not 0, that fills whole spans outside the layout's components: uninitialised memory.

    None if all of them are zero, or if one has several values.
    """
    found = set()
    for start, end in _outside(area, layout):
        values = set(area[start:end])
        if len(values) > 1:
            return None
        found |= values - {0}
    return found.pop() if len(found) == 1 else None


def _header(area: bytes, layout: Layout) -> Iterable[str]:
    xstate_bv, xcomp_bv = header(area)
    if area_format(area) is Format.STANDARD:
        if foreign := xstate_bv & ~layout.user_mask & ~XCOMP_BV_COMPACTED:
            yield f"XSTATE_BV is {xstate_bv:#x}, but {layout.name} has no {_names(foreign)} in standard format"
        held, register = xstate_bv, "XSTATE_BV"
    else:
        if foreign := xcomp_bv & ~layout.mask & ~XCOMP_BV_COMPACTED:
            yield f"XCOMP_BV is {xcomp_bv:#x}, but {layout.name} has no {_names(foreign)}"
        held, register = xcomp_bv, "XCOMP_BV"
    if held & MPX_MASK and held & APX_MASK:
        yield f"{register} is {held:#x}: no XCR0 has {_names(held & (MPX_MASK | APX_MASK))} together"


def _length(area: bytes, layout: Layout) -> Iterable[str]:
    size = len(area)
    if area_format(area) is Format.COMPACTED or size % BUFFER == 0:
        return
    whose = vendor(layout)
    known = [built_in(name) for name in layout_names() if name not in NO_CPU]
    own = [layout, *(one for one in known if whose and vendor(one) == whose)]
    if any(size in _sizes(one) for one in own):
        return
    others = [one for one in known if size in _sizes(one)]
    if others:
        names = ", ".join(one.name for one in others[:4]) + (" and others" if len(others) > 4 else "")
        mine = f"{whose} layout" if whose else f"area of {layout.name}"
        yield f"the area has {size} bytes, like areas of {names}, but unlike any {mine}"


@lru_cache(maxsize=256)
def _sizes(layout: Layout) -> frozenset[int]:
    """Return the sizes that CPUID.(0DH,0).EBX has on such a CPU: one for each XCR0 that it can have."""
    groups = (AVX_MASK, MPX_MASK, AVX512_MASK, PKRU_MASK, AMX_MASK, APX_MASK, 1 << 62)
    there = [group for group in groups if group & ~layout.user_mask == 0]
    masks = (LEGACY_MASK | sum(some) for count in range(len(there) + 1) for some in combinations(there, count))
    return frozenset(layout.standard_size(mask) for mask in masks if not check_xcr0(mask))


def _outside(area: bytes, layout: Layout) -> Iterable[tuple[int, int]]:
    """Yield the spans (start, end) of the extended region in which the layout has no component."""
    form = area_format(area)
    mask = header(area)[1] if form is Format.COMPACTED else layout.user_mask
    at = EXTENDED_OFFSET
    for bit, offset in sorted(layout.offsets(form, mask).items(), key=lambda place: place[1]):
        if offset > at:
            yield at, min(offset, len(area))
        at = max(at, offset + layout.rows[bit].size)
    if at < len(area):
        yield at, len(area)


def _stray(area: bytes, layout: Layout) -> Iterable[str]:
    if stray_fill(area, layout) is not None:
        return
    for start, end in _outside(area, layout):
        if any(area[start:end]):
            first = next(offset for offset in range(start, end) if area[offset])
            below = [bit for bit in bits(layout.mask) if bit in layout.rows and layout.rows[bit].end == start]
            behind = f", after {bit_name(below[0])}" if below and area_format(area) is Format.STANDARD else ""
            yield (
                f"byte {first} is {area[first]:#x}, but {layout.name} has no component in bytes {start} to "
                f"{end - 1}{behind}"
            )


def _better(area: bytes, layout: Layout) -> Iterable[str]:
    """Yield a sentence if another vendor's layout has all non-zero bytes in declared components, and this one does not.

    XSAVE writes zeros where a component is initial, so such bytes are either stale or of another layout.
    """
    stray = _undeclared(area, layout)
    whose = vendor(layout)
    if area_format(area) is Format.COMPACTED or not stray or not whose:
        return
    for name in layout_names():
        other = built_in(name)
        if name in NO_CPU or vendor(other) == whose or [*_header(area, other)] or [*_stray(area, other)]:
            continue
        if not _undeclared(area, other) and stray_fill(area, other) is None:
            yield (
                f"{_names(stray)}: not declared in XSTATE_BV, but bytes are not zero there; in {name} every such byte "
                "is in a declared component"
            )
            return


def _undeclared(area: bytes, layout: Layout) -> int:
    """Return the extended components of a standard area that are not declared but have non-zero bytes."""
    xstate_bv, _ = header(area)
    found = 0
    for bit in bits(layout.user_mask & ~LEGACY_MASK & ~xstate_bv):
        row = layout.rows[bit]
        if any(area[row.offset : row.end]):
            found |= 1 << bit
    return found


def _names(mask: int) -> str:
    return " ".join(mask_names(mask))
