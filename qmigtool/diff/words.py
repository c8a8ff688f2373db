"""A difference in words: which register a field is, which of its bits went, how many bytes changed."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from qmigtool.parsers.vmstate import Kind
from qmigtool.registers import Register, register_for, register_name

if TYPE_CHECKING:
    from qmigtool.diff.fields import Pair

__all__ = ["bits_changed", "change"]


def change(device: str, pair: Pair) -> str:
    """Return what a pair of fields means, or nothing if the values say it all."""
    a, b = pair.value_a, pair.value_b
    words = [register_name(device, pair.path) or ""]
    view = register_for(device, pair.path)
    if view is not None and all(isinstance(value, int | None) for value in (a, b)):
        words = [f"{view.name}: {bits_changed(view, a or 0, b or 0)}"]
    elif isinstance(a, bytes | None) and isinstance(b, bytes | None):
        words.append(_bytes_changed(a or b"", b or b""))
    elif pair.elements > 1 and pair.a is not None and pair.a.kind is Kind.ARRAY:
        words.append(f"{pair.elements} of {len(a)} elements differ")
    for one, field in (("A", pair.a), ("B", pair.b)):
        if field is None and "/" in pair.path:
            words.append(f"{one} has no {pair.path.rpartition('/')[0]}")
    return ", ".join(filter(None, words))


def bits_changed(view: Register, a: int, b: int) -> str:
    """Return which fields of a register changed: ``+OSXSAVE -PGE RC=0x0->0x2``."""
    words = []
    for name, low, size in view.fields:
        x, y = (value >> low & (1 << size) - 1 for value in (a, b))
        if x != y:
            words.append(f"{'+' if y else '-'}{name}" if size == 1 else f"{name}={x:#x}->{y:#x}")
    rest = (a ^ b) & ~view.named
    words += [f"{'+' if b >> bit & 1 else '-'}bit{bit}" for bit in range(view.width) if rest >> bit & 1]
    return " ".join(words)


def _bytes_changed(a: bytes, b: bytes) -> str:
    where = [i for i, (x, y) in enumerate(zip_longest(a, b)) if x != y]
    if not where:
        return ""
    return f"{len(where)} of {max(len(a), len(b))} bytes differ, first at +{where[0]:#x}"


def shown(value: Any) -> Any:
    """Return a value as JSON has it."""
    return value.hex() if isinstance(value, bytes) else value
