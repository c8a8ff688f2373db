"""Standard offsets by CPU family, for a text that names components without their offsets.

There are two families, see FAMILIES in :mod:`qmigtool.xsave.catalog`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from qmigtool.errors import UnsupportedError
from qmigtool.xsave.catalog import FAMILIES, layout
from qmigtool.xsave.components import bits, mask_names


@cache
def _offsets(family: str) -> Mapping[int, int]:
    rows = layout(FAMILIES[family]).rows
    return {bit: row.offset for bit, row in rows.items() if not row.supervisor}


def standard_offsets(mask: int, vendor: str | None, name: str) -> dict[int, int]:
    """Return bit -> byte in standard format for the user components of ``mask`` above bit 1.

    ``vendor`` is a family's name, if the text gives it. Raises UnsupportedError if the families with these components
    have them at different offsets, or if no family has them all.
    """
    fitting = {
        family: {bit: _offsets(family)[bit] for bit in bits(mask & ~3)}
        for family in FAMILIES
        if vendor in (None, family) and all(bit in _offsets(family) for bit in bits(mask & ~3))
    }
    places = list(fitting.values())
    if places and all(place == places[0] for place in places):
        return places[0]
    if not places:
        raise UnsupportedError(
            "standard offsets of an unknown CPU family",
            f"no known CPU family has {' '.join(mask_names(mask))}",
            section=name,
            expected="a CPUID dump (cpuid -r)",
        )
    differ = next(bit for bit in places[0] if len({place[bit] for place in places}) > 1)
    where = ", ".join(f"{place[differ]} on {family}" for family, place in fitting.items())
    raise UnsupportedError(
        "standard offsets that the text does not have",
        f"the text has neither the standard offsets nor the vendor: {mask_names(1 << differ)[0]} is at {where}",
        section=name,
        expected='the line "smpboot: CPU0: ..." of the same log, a CPUID dump (cpuid -r), or the name of a layout',
    )
