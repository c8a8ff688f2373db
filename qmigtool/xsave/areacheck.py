"""Who would take an area from a file: the consumers of its format, or those that are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from qmigtool.errors import UsageError
from qmigtool.xsave.check import CONSUMERS, TAKES, ConsumerVerdict, check_area
from qmigtool.xsave.components import EXTENDED_OFFSET, SUPERVISOR_MASK, Format, mask_names
from qmigtool.xsave.fit import misfits
from qmigtool.xsave.found import agreed, auto_note, contradictions, own_layout
from qmigtool.xsave.header import area_format, header
from qmigtool.xsave.holders import FoundArea
from qmigtool.xsave.hyperv import declare_hyperv
from qmigtool.xsave.layout import Layout
from qmigtool.xsave.notes import area_notes

__all__ = ["AreaCheck", "check_found"]

OTHER_FORMAT = "it takes the other format"


@dataclass(frozen=True, slots=True)
class AreaCheck:
    """The verdicts on an area, read with the first of ``layouts``, all of which agree on it.

    ``misfits`` are why it cannot be of that layout. ``verdicts`` also has consumers that were not asked, by name in
    ``unasked`` with the reason; they do not count.
    """

    layouts: tuple[Layout, ...]
    misfits: tuple[str, ...]
    verdicts: tuple[ConsumerVerdict, ...]
    unasked: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the area is of its layout, and every consumer that was asked accepts it."""
        return not self.misfits and all(one.ok for one in self.verdicts if one.consumer not in self.unasked)

    @property
    def status(self) -> int:
        """The exit status of ``xsave check``: 0, or 1 if a consumer refuses or the area is not of the layout."""
        return int(not self.accepted)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``xsave check --json`` prints, without its ``schema``."""
        return {
            "layout": self.layouts[0].name,
            "layouts": [one.name for one in self.layouts],
            "fits": not self.misfits,
            "misfits": list(self.misfits),
            "verdicts": [
                {
                    "asked": one.consumer not in self.unasked,
                    "consumer": one.consumer,
                    "ok": one.ok,
                    "reasons": list(one.reasons),
                    "notes": list(one.notes),
                }
                for one in self.verdicts
            ],
            "notes": list(self.notes),
        }


def check_found(
    holder: FoundArea,
    layout: Layout | str,
    xcr0: int | None = None,
    xss: int | None = None,
    *,
    mxcsr_mask: int | None = None,
    consumers: Sequence[str] = (),
    quirk: bool = False,
) -> AreaCheck:
    """Check an area from a file as ``xsave check`` does; the masks are as for :func:`~qmigtool.xsave.check.check_area`.

    ``consumers`` are names of :data:`~qmigtool.xsave.check.CONSUMERS`, in any case (default: those that take the area's
    format). ``quirk`` treats CET_U, CET_S and PASID as declared, as MSHV and WHPX leave them.

    Raises :class:`~qmigtool.errors.UsageError` for an unknown consumer, and as
    :func:`~qmigtool.xsave.found.agreed` does.
    """
    data, layout = holder.data, own_layout(holder, layout)
    asked = [name.upper() for name in consumers]
    for name in asked:
        if name not in CONSUMERS:
            near = [known for known in CONSUMERS if known.startswith(name)]
            raise UsageError(f"no consumer {name!r}", expected="one of " + ", ".join(near or CONSUMERS))
    unasked = {name: "" for name in CONSUMERS if name not in asked} if asked else _not_for(data)

    def act(one: Layout) -> AreaCheck:
        declared = declare_hyperv(data, one) if quirk and len(data) >= EXTENDED_OFFSET else data
        verdicts = check_area(declared, one, xcr0, xss, mxcsr_mask=mxcsr_mask)
        return AreaCheck(
            (one,),
            (*contradictions(holder, one), *misfits(data, one)),
            tuple(verdict for verdict in verdicts if not asked or verdict.consumer in asked),
            unasked,
            tuple(area_notes(data, one, hyperv_quirk=quirk)),
        )

    found = agreed(data, layout, act, lambda one: tuple(v.ok for v in one.verdicts if v.consumer not in unasked))
    result: AreaCheck = found.result
    notes = (*filter(None, [holder.note]), *auto_note(layout, found.layouts), *result.notes)
    return replace(result, layouts=found.layouts, notes=notes)


def _not_for(data: bytes) -> dict[str, str]:
    """Return the consumers that an area is not for, by its format and its XCOMP_BV, and why."""
    form = Format.STANDARD if len(data) < EXTENDED_OFFSET else area_format(data)
    others = {name: OTHER_FORMAT for name, forms in TAKES.items() if form not in forms}
    if form is Format.STANDARD:
        return others
    _, xcomp_bv = header(data)
    if supervisor := xcomp_bv & SUPERVISOR_MASK:
        names = " ".join(mask_names(supervisor))
        others["XRSTOR"] = f"XCOMP_BV has supervisor components ({names}), which only XRSTORS takes"
    return others
