"""An area out of a file: in which layout it is to be read, and what it becomes.

``auto`` is the layout that the file itself gives, or else every built-in one that fits: then there is one answer only
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
    """Return the layout that ``auto`` means for an area whose file has one, else what was asked for."""
    return area.layout if area.layout is not None and not isinstance(layout, Layout) else layout


def contradictions(area: FoundArea, layout: Layout) -> tuple[str, ...]:
    """Say where ``layout`` contradicts what the area's file says of its own layout, a sentence for each component."""
    if area.layout is None or area.layout is layout:
        return ()
    rows = layout.rows
    return tuple(
        f"the file says that {mask_names(1 << bit)[0]} lies at {row.offset}, not at {rows[bit].offset}"
        for bit, row in sorted(area.layout.rows.items())
        if bit in rows and rows[bit].offset != row.offset
    )


class Agreed(NamedTuple):
    """What all the layouts say that fit an area: ``result``, by the first of ``layouts``."""

    result: Any
    layouts: tuple[Layout, ...]


def meaning(area: XsaveArea) -> tuple[object, ...]:
    """Return what an area means, with what Hyper-V leaves undeclared."""
    state = area.with_hyperv_quirk().architectural_state()
    return tuple(sorted((str(key), value) for key, value in state.items()))


def agreed(
    area: bytes,
    layout: Layout | str,
    act: Callable[[Layout], T],
    same: Callable[[T], Hashable],
    option: str = "--layout",
) -> Agreed:
    """Do ``act`` with ``layout``, or, if that is ``auto``, with each one that fits; ``same`` is what must be equal.

    Raises :class:`~qmigtool.errors.UnsupportedError` if none fits, or if those that fit do not agree: it lists them.
    """
    if isinstance(layout, Layout):
        return Agreed(act(layout), (layout,))
    groups: dict[Hashable, tuple[T | QmigError, list[Layout]]] = {}
    # Those with XSAVEC first: what is made compacted in their name, their CPUs take.
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
        how = "read it alike, but lay out the result differently" if _read_alike(area) else "read it differently"
        each = " or ".join(f"{option} {found[0].name}" for _, found in groups.values())
        raise UnsupportedError("layout", f"several layouts fit this area and {how}: {listed}", expected=each)
    ((result, found),) = groups.values()
    if isinstance(result, QmigError):
        raise result
    return Agreed(result, tuple(found))


def _read_alike(area: bytes) -> bool:
    """Whether all layouts that fit an area read the same state in it, so that only another format differs."""
    try:
        return len({meaning(XsaveArea(area, one)) for one in fitting_layouts(area)}) == 1
    except XsaveError:
        return False


def auto_note(layout: Layout | str, layouts: Sequence[Layout]) -> list[str]:
    """Say which layouts ``auto`` found."""
    if isinstance(layout, Layout):
        return []
    several = f", which agree on this area; {layouts[0].name} taken" if len(layouts) > 1 else ""
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
    """Convert an area as the architecture says; refuse one that is not of its layout, or that XRSTOR faults on.

    Returns the result, with all that is to be said of it, and the layout that it has. Raises as :func:`agreed` and
    :func:`~qmigtool.xsave.convert.convert` do.
    """
    data = area.data
    if area.layout is not None and source_layout is None and isinstance(layout, Layout):
        source_layout = AUTO  # its own; --layout is the target's
    source = own_layout(area, source_layout if source_layout is not None else layout)
    if source_layout is not None and not isinstance(layout, Layout):
        raise UsageError("--layout auto finds the layout of IN", expected="--source-layout auto, and --layout by name")
    if mask is None and layout == AUTO:
        # The masks of the layouts that fit differ; what the area itself has is one answer.
        xstate_bv, xcomp_bv = header(data)
        mask = (xstate_bv | xcomp_bv) & ~XCOMP_BV_COMPACTED
        for group in (AVX512_MASK | AVX_MASK, AMX_MASK, MPX_MASK):
            mask |= group if mask & group & ~AVX_MASK else 0
        if form is Format.STANDARD:
            mask &= ~SUPERVISOR_MASK  # it travels beside a standard area

    def act(one: Layout) -> tuple[Result, Layout]:
        target = layout if isinstance(layout, Layout) else one
        misfits = (*contradictions(area, one), *misfits_of(data, one))
        try:
            result = convert(data, one, form, target=target, mask=mask, drop=drop, max_size=size, hyperv_quirk=quirk)
        except LiveStateError:
            raise
        except XsaveError:
            if misfits:  # that is why
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
    """Return the area of a layout, in which each declared component has its place.

    Raises :class:`~qmigtool.errors.LiveStateError` where it has none because the area is of another layout.
    """
    try:
        return XsaveArea(data, layout)
    except LiveStateError:
        raise
    except XsaveError:
        if misfits := misfits_of(data, layout):  # that is why
            raise LiveStateError(_misfit(layout, misfits, None)) from None
        raise


def _misfit(layout: Layout, misfits: Sequence[str], way: str | None) -> str:
    return f"the area is not one of {layout.name}: {'; '.join(misfits)}{f' ({way})' if way else ''}"
