"""A remark of a preflight: a doubt, what is not known, a note."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Remark", "condensed"]

SHOWN = 3  # places that are named in one line


@dataclass(frozen=True, slots=True)
class Remark:
    """What is said of one place.

    ``text`` are the words. ``place`` is the label of a section (``timer@0``), or nothing. ``rule`` is the stable name
    of a remark that others look for, or nothing.
    """

    text: str
    place: str = ""
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


def condensed(remarks: Iterable[Remark]) -> list[str]:
    """Say in one line what is said of several sections: ``timer@0, cpu@0, cpu@1 and 39 more: ...``."""
    places: dict[str, list[str]] = {}
    for one in remarks:
        where = places.setdefault(one.text, [])
        where += [one.place] if one.place else []
    return [str(Remark(text, _several(where))) for text, where in places.items()]


def _several(where: list[str]) -> str:
    more = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
    return f"{', '.join(where[:SHOWN])}{more}"
