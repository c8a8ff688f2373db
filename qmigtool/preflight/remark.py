"""A remark of a preflight: a doubt, something unknown, a note."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Remark", "condensed"]

SHOWN = 3  # sections that are named in one line


@dataclass(frozen=True, slots=True)
class Remark:
    """A remark on one section.

    ``place`` is the label of a section (``timer@0``), or empty. ``rule`` is the stable name of a remark that other
    code looks for, or empty.
    """

    text: str
    place: str = ""
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


def condensed(remarks: Iterable[Remark]) -> list[str]:
    """Join equal remarks on several sections into one line: ``timer@0, cpu@0, cpu@1 and 39 more: ...``."""
    places: dict[str, list[str]] = {}
    for one in remarks:
        where = places.setdefault(one.text, [])
        where += [one.place] if one.place else []
    return [str(Remark(text, _several(where))) for text, where in places.items()]


def _several(where: list[str]) -> str:
    more = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
    return f"{', '.join(where[:SHOWN])}{more}"
