"""An area from a file: the layout to read it with, and its conversion.

``auto`` is the layout in the file itself, or else every built-in one that fits: then there is one result only
if all of them agree.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from qmigtool.errors import LiveStateError, QmigError, UnsupportedError, UsageError, XsaveError
from qmigtool.xsave.area import XsaveArea
from qmigtool.xsave.components import (
    AMX_MASK,
    AVX512_MASK,
    AVX_MASK,
    MPX_MASK,
    SUPERVISOR_MASK,
    XCOMP_BV_COMPACTED,
    Format,
    mask_names,
)
from qmigtool.xsave.convert import Result, convert
from qmigtool.xsave.fit import fitting_layouts
from qmigtool.xsave.fit import misfits as misfits_of
from qmigtool.xsave.header import header
from qmigtool.xsave.holders import FoundArea
from qmigtool.xsave.layout import Layout
from qmigtool.xsave.notes import area_notes, kvm_amx_note
from qmigtool.xsave.vendor import check_mxcsr

__all__ = [
    "AUTO",
    "Agreed",
    "agreed",
    "auto_note",
    "contradictions",
    "convert_found",
    "meaning",
    "own_layout",
    "placed",
]

AUTO = "auto"
T = TypeVar("T")


def own_layout(area: FoundArea, layout: Layout | str) -> Layout | str:
    """Return the layout in the area's file for ``auto``, otherwise the requested one."""
    return area.layout if area.layout is not None and not isinstance(layout, Layout) else layout


def contradictions(area: FoundArea, layout: Layout) -> tuple[str, ...]:
    """Return where ``layout`` contradicts the layout in the area's file, a sentence for each component."""
    if area.layout is None or area.layout is layout:
        return ()
    rows = layout.rows
    return tuple(
        f"the file has {mask_names(1 << bit)[0]} at {row.offset}, not at {rows[bit].offset}"
        for bit, row in sorted(area.layout.rows.items())
        if bit in rows and rows[bit].offset != row.offset
    )


class Agreed(NamedTuple):
    """The common result of all layouts that fit an area: ``result``, from the first of ``layouts``."""

    result: Any
    layouts: tuple[Layout, ...]


def meaning(area: XsaveArea) -> tuple[object, ...]:
    """Return an area's state, including what Hyper-V leaves undeclared."""
    state = area.with_hyperv_quirk().architectural_state()
    return tuple(sorted((str(key), value) for key, value in state.items()))


def agreed(
    area: bytes,
    layout: Layout | str,
    act: Callable[[Layout], T],
    same: Callable[[T], Hashable],
    option: str = "--layout",
) -> Agreed:
    """Do ``act`` with ``layout``, or, for ``auto``, with each one that fits; ``same`` gives what must be equal.

    Raises :class:`~qmigtool.errors.UnsupportedError` if none fits, or if the results differ: it lists the layouts.
    """
    if isinstance(layout, Layout):
        return Agreed(act(layout), (layout,))
    groups: dict[Hashable, tuple[T | QmigError, list[Layout]]] = {}
    # Those with XSAVEC first: their CPUs accept the compacted area.
    for one in sorted(fitting_layouts(area), key=lambda one: not one.has_xsavec):
        try:
            result: T | QmigError = act(one)
            key: Hashable = same(result)  # type: ignore[arg-type]
        except XsaveError as error:
            result, key = error, (type(error), getattr(error, "components", ()))
        groups.setdefault(key, (result, []))[1].append(one)
    if not groups:
        raise UnsupportedError("layout", "no built-in layout fits this area", expected="--layout with a CPUID dump")
    if len(groups) > 1:
        listed = "; ".join(_listed(found) for _, found in groups.values())
        how = "read it alike, but arrange the result differently" if _read_alike(area) else "read it differently"
        each = " or ".join(f"{option} {found[0].name}" for _, found in groups.values())
        raise UnsupportedError("layout", f"several layouts fit this area and {how}: {listed}", expected=each)
    ((result, found),) = groups.values()
    if isinstance(result, QmigError):
        raise result
    return Agreed(result, tuple(found))


def _read_alike(area: bytes) -> bool:
    """Whether all layouts that fit an area read the same state from it, so that only the results' format differs."""
    try:
        return len({meaning(XsaveArea(area, one)) for one in fitting_layouts(area)}) == 1
    except XsaveError:
        return False


def auto_note(layout: Layout | str, layouts: Sequence[Layout]) -> list[str]:
    """Return the note on the layouts that ``auto`` found."""
    if isinstance(layout, Layout):
        return []
    several = f", which agree on this area; {layouts[0].name} is used" if len(layouts) > 1 else ""
    return [f"layout found: {_listed(layouts)}{several}"]


def _listed(layouts: Sequence[Layout]) -> str:
    return " ".join(one.name for one in layouts)


def convert_found(
    area: FoundArea,
    form: Format,
    layout: Layout | str,
    source_layout: Layout | str | None = None,
    mask: int | None = None,
    drop: int = 0,
    size: int | None = None,
    *,
    quirk: bool = False,
    force: bool = False,
) -> tuple[Result, Layout]:
    """Convert an area by the architecture's rules; refuse one that is not of its layout, or that XRSTOR faults on.

    Returns the result with its notes, and its layout. Raises as :func:`agreed` and
    :func:`~qmigtool.xsave.convert.convert` do.
    """
    data = area.data
    if area.layout is not None and source_layout is None and isinstance(layout, Layout):
        source_layout = AUTO  # its own; --layout is the target's
    source = own_layout(area, source_layout if source_layout is not None else layout)
    if source_layout is not None and not isinstance(layout, Layout):
        raise UsageError("--layout auto finds the layout of IN", expected="--source-layout auto, and --layout by name")
    if mask is None and layout == AUTO:
        # The masks of the layouts that fit differ; the area's own components are the same for all.
        xstate_bv, xcomp_bv = header(data)
        mask = (xstate_bv | xcomp_bv) & ~XCOMP_BV_COMPACTED
        for group in (AVX512_MASK | AVX_MASK, AMX_MASK, MPX_MASK):
            mask |= group if mask & group & ~AVX_MASK else 0
        if form is Format.STANDARD:
            mask &= ~SUPERVISOR_MASK  # it is kept outside a standard area

    def act(one: Layout) -> tuple[Result, Layout]:
        target = layout if isinstance(layout, Layout) else one
        misfits = (*contradictions(area, one), *misfits_of(data, one))
        try:
            result = convert(data, one, form, target=target, mask=mask, drop=drop, max_size=size, hyperv_quirk=quirk)
        except LiveStateError:
            raise
        except XsaveError:
            if misfits:  # the cause
                raise LiveStateError(_misfit(one, misfits, None)) from None
            raise
        if misfits and not force:
            raise LiveStateError(_misfit(one, misfits, "--force converts it"))
        check_mxcsr(data, XsaveArea(data, one).mxcsr, one)
        notes = [*misfits, *area_notes(data, one, hyperv_quirk=quirk)]
        if form is Format.STANDARD and (amx := kvm_amx_note(header(result.data)[0], len(result.data))):
            notes.append(amx)
        return replace(result, notes=tuple(dict.fromkeys((*notes, *result.notes)))), target

    option = "--layout" if source_layout is None else "--source-layout"
    found = agreed(data, source, act, lambda done: (done[0].data, tuple(sorted(done[0].supervisor.items()))), option)
    result, target = found.result
    notes = (*filter(None, [area.note]), *auto_note(source, found.layouts), *result.notes)
    return replace(result, notes=notes), target


def placed(data: bytes, layout: Layout) -> XsaveArea:
    """Return the area with a layout that has a place for each declared component.

    Raises :class:`~qmigtool.errors.LiveStateError` if one has no place because the area is of another layout.
    """
    try:
        return XsaveArea(data, layout)
    except LiveStateError:
        raise
    except XsaveError:
        if misfits := misfits_of(data, layout):  # the cause
            raise LiveStateError(_misfit(layout, misfits, None)) from None
        raise


def _misfit(layout: Layout, misfits: Sequence[str], way: str | None) -> str:
    return f"the area does not fit {layout.name}: {'; '.join(misfits)}{f' ({way})' if way else ''}"
