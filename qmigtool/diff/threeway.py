"""Compare two streams with their common base: what each side changed, and where the changes conflict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from qmigtool.diff.compare import compare, compare_sides
from qmigtool.findings import ValueDifference
from qmigtool.util.text import json_value

if TYPE_CHECKING:
    from qmigtool.diff.model import Difference
    from qmigtool.diff.noise import Noise
    from qmigtool.stream.model import Stream

__all__ = ["ThreeWay", "ThreeWayChange", "Who", "compare_three"]


class Who(StrEnum):
    """Which side differs from the base."""

    A = "A"
    B = "B"
    BOTH_ALIKE = "A and B alike"
    CONFLICT = "A and B, each its own way"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeWayChange(ValueDifference):
    """One place where a side differs from the base; the values are None where a side has none.

    ``offset`` and ``offset_b`` are not set: the place is one of the base.
    """

    who: Who
    base: Any
    topic: str | None = None
    type: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the parts, as ``--json`` has them."""
        return {
            "where": self.where,
            "who": self.who.value,
            **{name: json_value(self.type, getattr(self, name)) for name in ("base", "a", "b")},
            "meaning": self.words,
            "topic": self.topic,
        }


@dataclass(frozen=True, slots=True)
class ThreeWay:
    """Every change from the base, in the order of the base, without noise."""

    changes: tuple[ThreeWayChange, ...]
    notes: tuple[str, ...]
    undecided: tuple[str, ...] = ()
    """What could not be compared, and what would decide it."""

    @property
    def same(self) -> bool:
        """Whether neither side differs from the base by more than noise, and everything could be compared."""
        return not self.changes and not self.undecided

    @property
    def conflicts(self) -> tuple[ThreeWayChange, ...]:
        """The places where both sides differ from the base and from each other."""
        return tuple(change for change in self.changes if change.who is Who.CONFLICT)


def compare_three(base: Stream, a: Stream, b: Stream, *, noise: Noise | None = None) -> ThreeWay:
    """Compare two streams with their common base; see :func:`~qmigtool.diff.compare.compare`."""
    to_a, to_b = (compare_sides(base, one, ("base", side), noise) for side, one in (("A", a), ("B", b)))
    ours = {difference.where: difference for difference in to_a.differences}
    theirs = {difference.where: difference for difference in to_b.differences}
    apart = {difference.where for difference in compare(a, b, noise=noise).differences}
    changes = []
    for where in dict.fromkeys([*ours, *theirs]):
        x, y = ours.get(where), theirs.get(where)
        changes.append(_change(x, y, apart=where in apart))
    undecided = tuple(f"base and {name}: {why}" for name, to in (("A", to_a), ("B", to_b)) for why in to.undecided)
    return ThreeWay(tuple(changes), tuple(dict.fromkeys((*to_a.notes, *to_b.notes))), undecided)


def _change(x: Difference | None, y: Difference | None, *, apart: bool) -> ThreeWayChange:
    one = x if x is not None else y
    assert one is not None  # noqa: S101 - a change is of one side at least
    base = one.a
    a = base if x is None else x.b
    b = base if y is None else y.b
    if x is not None and y is not None:
        who = Who.CONFLICT if apart else Who.BOTH_ALIKE
    else:
        who = Who.B if x is None else Who.A
    return ThreeWayChange(
        device=one.device,
        path=one.path,
        who=who,
        base=base,
        a=a,
        b=b,
        words=one.meaning,
        topic=one.topic,
        type=one.type,
    )
