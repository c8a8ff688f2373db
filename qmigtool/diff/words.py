"""Descriptions of differences: the register that a field holds, the bits and the number of bytes that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.diff.values import differing_bytes
from qmigtool.parsers.vmstate import Kind
from qmigtool.x86.registers import Register, register_for, register_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qmigtool.diff.fields import Pair

__all__ = ["bits_changed", "change", "decides"]

# The option that names the accelerator of each side; a common base has none.
ACCELERATOR_OPTIONS = {"A": "--accelerator-a", "B": "--accelerator-b"}


def decides(sides: Iterable[str]) -> str:
    """Return which options decide what depends on the accelerators of these sides; empty if there is none."""
    options = [f"{ACCELERATOR_OPTIONS[side]} NAME" for side in sides if side in ACCELERATOR_OPTIONS]
    return f"{' and '.join(options)} decide{'s' if len(options) == 1 else ''}" if options else ""


def change(pair: Pair, *, x86: bool) -> str:
    """Return the meaning of a pair of fields, empty if the values suffice; ``x86``: fields of an x86 vCPU."""
    a, b = pair.value_a, pair.value_b
    words = [register_name("cpu", pair.path) or ""] if x86 else []
    view = register_for("cpu", pair.path) if x86 else None
    if view is not None and all(isinstance(value, int | None) for value in (a, b)):
        words = [f"{view.name}: {bits_changed(view, a or 0, b or 0)}"]
    elif isinstance(a, bytes | None) and isinstance(b, bytes | None) and pair.elements == 1:
        words.append(_bytes_changed(a or b"", b or b""))
    elif pair.elements > 1 and pair.a is not None and pair.a.kind is Kind.ARRAY:
        words.append(f"{pair.elements} {'more ' if a is None else ''}elements differ")
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
    count, first = differing_bytes(a, b)
    return f"{count} of {max(len(a), len(b))} bytes differ, first at +{first:#x}" if count else ""
