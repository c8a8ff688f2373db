"""``--layout auto``: an area read in every built-in layout that fits it, and one answer only if all of them agree."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import click

from qmigtool import xsave as core
from qmigtool.cli.parameters import F, layout_value
from qmigtool.errors import QmigError, UnsupportedError, XsaveError
from qmigtool.xsave import Layout

T = TypeVar("T")

AUTO = "auto"

quirk_option = click.option(
    "--hyperv-quirk/--no-hyperv-quirk",
    "quirk",
    default=None,
    help="Take CET_U, CET_S and PASID of a compacted area as live although XSTATE_BV does not declare them, as Hyper-V "
    "saves them.",
)
force_option = click.option("--force", is_flag=True, help="Go on although AREA cannot be of this layout.")


def _value(value: str | Layout) -> Layout | str:
    """Return a layout, or the word for finding one."""
    return AUTO if isinstance(value, str) and value.lower() == AUTO else layout_value(value)


def area_layout_option(*names: str, **more: Any) -> Callable[[F], F]:
    """Make an option that takes the layout of an area, or ``auto``."""
    return click.option(*names, type=_value, metavar="LAYOUT", **more)


the_area_layout_option = area_layout_option(
    "--layout",
    required=True,
    help="A built-in layout (see `xsave layouts`), a file with a CPUID dump, or auto: the built-in ones that fit AREA.",
)


class Agreed(NamedTuple):
    """What all the layouts say that fit an area: ``result``, by the first of ``layouts``."""

    result: Any
    layouts: tuple[Layout, ...]


def agreed(area: bytes, layout: Layout | str, act: Callable[[Layout], T], same: Callable[[T], Hashable]) -> Agreed:
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
        raise UnsupportedError(
            "layout", f"several layouts fit this area and read it differently: {listed}", expected="one of them"
        )
    ((result, found),) = groups.values()
    if isinstance(result, QmigError):
        raise result
    return Agreed(result, tuple(found))


def auto_note(layout: Layout | str, layouts: Sequence[Layout]) -> list[str]:
    """Say which layouts ``auto`` found."""
    if isinstance(layout, Layout):
        return []
    several = f", which agree on this area; {layouts[0].name} taken" if len(layouts) > 1 else ""
    return [f"layout found: {_listed(layouts)}{several}"]


def _listed(layouts: Sequence[Layout]) -> str:
    return " ".join(one.name for one in layouts)
