"""``--layout auto``: an area read in every built-in layout that fits it, and one answer only if all of them agree."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import click

from qmigtool import xsave as core
from qmigtool.cli.parameters import F, layout_value
from qmigtool.errors import QmigError, UnsupportedError, XsaveError
from qmigtool.xsave import Layout, XsaveArea
from qmigtool.xsave.holders import FoundArea

T = TypeVar("T")

AUTO = "auto"

quirk_option = click.option(
    "--hyperv-quirk/--no-hyperv-quirk",
    "quirk",
    default=None,
    help="Take CET_U, CET_S and PASID of a compacted area as live although XSTATE_BV does not declare them, as Hyper-V "
    "saves them.",
)
force_option = click.option("--force", is_flag=True, help="Go on although the area cannot be of this layout.")


def _value(value: str | Layout) -> Layout | str:
    """Return a layout, or the word for finding one."""
    return AUTO if isinstance(value, str) and value.lower() == AUTO else layout_value(value)


def area_layout_option(*names: str, **more: Any) -> Callable[[F], F]:
    """Make an option that takes the layout of an area, or ``auto``."""
    return click.option(*names, type=_value, metavar="LAYOUT", **more)


the_area_layout_option = area_layout_option(
    "--layout",
    default=AUTO,
    help="A built-in layout (see `xsave layouts`), a file with CPUID in it (FILE#N is CPU N), or auto, the default: "
    "what the area's file says, else the built-in ones that fit.",
)


def own_layout(area: FoundArea, layout: Layout | str) -> Layout | str:
    """Return the layout that ``auto`` means for an area whose file has one, else what was asked for."""
    return area.layout if area.layout is not None and not isinstance(layout, Layout) else layout


def contradictions(area: FoundArea, layout: Layout) -> tuple[str, ...]:
    """Say where ``layout`` contradicts what the area's file says of its own layout, a sentence for each component."""
    if area.layout is None or area.layout is layout:
        return ()
    rows = layout.rows
    return tuple(
        f"the file says that {core.mask_names(1 << bit)[0]} lies at {row.offset}, not at {rows[bit].offset}"
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
    for one in sorted(core.fitting_layouts(area), key=lambda one: not one.has_xsavec):
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
        return len({meaning(XsaveArea(area, one)) for one in core.fitting_layouts(area)}) == 1
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
