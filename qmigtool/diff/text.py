"""A comparison as text: a line of cells for each difference, and a verdict."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from qmigtool.diff.model import BYTES
from qmigtool.diff.words import differing_bytes
from qmigtool.util.text import printable, text_value
from qmigtool.x86.accelerator import UNKNOWN

if TYPE_CHECKING:
    from qmigtool.diff.model import Comparison, Difference
    from qmigtool.diff.threeway import ThreeWayChange
    from qmigtool.stream.model import Stream

__all__ = ["HEAD", "HEAD_THREE", "cells", "cells_three", "saver", "verdict"]

SHOWN = 8  # bytes of a buffer, from the first that differs
HEAD = ["where", "A", "B", "about"]
HEAD_THREE = ["where", "base", "A", "B", "changed by"]


def cells(d: Difference) -> list[str]:
    """Return a difference as a line of cells, as :data:`HEAD` names them."""
    return [printable(d.where), *_values(d), printable(_about(d))]


def cells_three(c: ThreeWayChange) -> list[str]:
    """Return a change as a line of cells, as :data:`HEAD_THREE` names them."""
    return [printable(c.where), _value(c.type, c.base), *_values(c), c.who.value]


def _about(d: Difference) -> str:
    topic = f"{d.topic}, excused" if d.excused else d.topic
    return " ".join(filter(None, (d.meaning, f"({topic})" if topic else "")))


def _values(d: Difference | ThreeWayChange) -> tuple[str, str]:
    """Return both values for people; for buffers the bytes that differ."""
    a, b = d.a, d.b
    if isinstance(a, bytes) and isinstance(b, bytes) and max(len(a), len(b)) > SHOWN:
        _, first = differing_bytes(a, b)
        return _part(a, first), _part(b, first)
    return _value(d.type, a), _value(d.type, b)


def _part(raw: bytes, first: int) -> str:
    part = raw[first : first + SHOWN].hex(" ") or "(ends)"
    return f"{part}{' ...' if first + SHOWN < len(raw) else ''}"


def _value(type_: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(text_value(type_, one) for one in value[:4]) + (" ..." if len(value) > 4 else "")
    if isinstance(value, bytes) and len(value) > SHOWN:
        return _part(value, 0)
    return f"{value} bytes" if type_ == BYTES else text_value(type_, value)


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
