"""A comparison as text: a line of cells for each difference, and a verdict."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from qmigtool.diff.values import value_cell, value_cells
from qmigtool.util.text import printable
from qmigtool.x86.accelerator import UNKNOWN

if TYPE_CHECKING:
    from qmigtool.diff.model import Comparison, Difference
    from qmigtool.diff.threeway import ThreeWayChange
    from qmigtool.stream.model import Stream

__all__ = ["HEAD", "HEAD_THREE", "cells", "cells_three", "saver", "verdict"]

HEAD = ["where", "A", "B", "about"]
HEAD_THREE = ["where", "base", "A", "B", "changed by"]


def cells(d: Difference) -> list[str]:
    """Return a difference as a line of cells, as :data:`HEAD` names them."""
    return [printable(d.where), *value_cells(d.type, d.a, d.b), printable(_about(d))]


def cells_three(c: ThreeWayChange) -> list[str]:
    """Return a change as a line of cells, as :data:`HEAD_THREE` names them."""
    return [printable(c.where), value_cell(c.type, c.base), *value_cells(c.type, c.a, c.b), c.who.value]


def _about(d: Difference) -> str:
    topic = f"{d.topic}, excused" if d.excused else d.topic
    return " ".join(filter(None, (d.meaning, f"({topic})" if topic else "")))


def verdict(found: Comparison, what: str | None = None) -> str:
    """Return the outcome in one sentence; ``what`` names what was compared, if that is only a part."""
    count = len(found.differences)
    words = f"{count} difference{'' if count == 1 else 's'}" if count else "no difference"
    if what is not None:
        words = f"{words} in {what}" if count else f"{what} is the same"
    if found.undecided:
        words += f" in what can be compared; {len(found.undecided)} undecided"
    if found.excused:
        topics = Counter(d.topic for d in found.excused)
        words += f"; excused as noise: {', '.join(f'{n} {topic}' for topic, n in topics.most_common())}"
    return words


def saver(stream: Stream) -> str:
    """Return the accelerator that saved a stream, as text."""
    who = stream.accelerator
    if who.name == UNKNOWN:
        return "saved by: unknown"
    return f"saved by {who.name}{'' if who.given else ' (inferred)'}"
