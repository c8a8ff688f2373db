"""The result of a comparison."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from qmigtool.diff.values import value_cells
from qmigtool.findings import ValueDifference
from qmigtool.util.jsontext import lazy_value, materialised

__all__ = ["Comparison", "Difference", "DifferenceKind"]


class DifferenceKind(StrEnum):
    """How two streams differ at one place."""

    CHANGED = "changed"
    ONLY_A = "only in A"
    ONLY_B = "only in B"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference(ValueDifference):
    """One place where two streams differ.

    ``device`` is a label (``cpu@0``), or None for properties of the whole stream (the machine type); ``path`` a field
    path inside it, or a register's name in brackets where no single field holds it (``[ST0]``). ``type`` is the
    field's type as in the vmdesc (``register`` for a register inside the XSAVE state), ``words`` the meaning of the
    values (``CR4: +OSXSAVE``), and ``lacks`` the path of the struct or subsection that the side without the field does
    not have, either. ``rule`` and ``topic`` (``clock``) are those of the matching noise rule, or empty; ``excused``: by
    this rule the difference does not count.
    """

    kind: DifferenceKind
    topic: str | None = None
    type: str = ""
    excused: bool = False
    lacks: str = ""

    def _repr_html_(self) -> str:
        return _html("difference", (self,))

    @property
    def meaning(self) -> str:
        """Description of the difference."""
        return self.described()

    def described(self, a: str = "A", b: str = "B") -> str:
        """Return a description of the difference, with names for the two sides."""
        if not self.path and self.kind is not DifferenceKind.CHANGED:
            return f"the section is only in {a if self.kind is DifferenceKind.ONLY_A else b}"
        lacking = f"{b if self.kind is DifferenceKind.ONLY_A else a} has no {self.lacks}" if self.lacks else ""
        return ", ".join(filter(None, (self.words, lacking)))

    def as_dict(self) -> dict[str, Any]:
        """Return the parts, as ``--json`` has them."""
        found: dict[str, Any] = materialised(self.lazy_dict())
        return found

    def lazy_dict(self) -> dict[str, Any]:
        """Return what :meth:`as_dict` does, long buffers made while it is written (:mod:`qmigtool.util.jsontext`)."""
        return {
            "where": self.where,
            "device": self.device,
            "path": self.path,
            "kind": self.kind.value,
            "a": lazy_value(self.type, self.a),
            "b": lazy_value(self.type, self.b),
            "offset_a": self.offset,
            "offset_b": self.offset_b,
            "meaning": self.meaning,
            "topic": self.topic,
            "rule": self.rule or None,
        }

    def named(self, rule: str, topic: str, *, excused: bool) -> Difference:
        """Return the difference with its noise rule."""
        return replace(self, rule=rule, topic=topic, excused=excused)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences: those that count, and those that a noise rule excuses."""

    differences: tuple[Difference, ...]
    excused: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = field(default=())
    undecided: tuple[str, ...] = ()
    """What could not be compared, and what would decide it."""

    def _repr_html_(self) -> str:
        count = len(self.differences)
        title = f"{count} difference{'' if count == 1 else 's'}, {len(self.excused)} excused as noise"
        undecided = [f"undecided: {one}" for one in self.undecided]
        return _html(title, self.differences, [*undecided, *(f"note: {one}" for one in self.notes)])

    @property
    def same(self) -> bool:
        """Whether only noise differs, and everything could be compared."""
        return not self.differences and not self.undecided


def _html(title: str, found: Iterable[Difference], notes: Iterable[str] = ()) -> str:
    from qmigtool.util.html import html_table

    lines = [(one.where, *value_cells(one.type, one.a, one.b), one.meaning, one.topic) for one in found]
    return html_table(title, ("where", "A", "B", "about", "topic"), lines, notes)
