"""Values that differ, as cells of a table."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from qmigtool.util.text import text_value

__all__ = ["BYTES", "differing_bytes", "value_cell", "value_cells"]

BYTES = "bytes"
"""The type of a difference whose values are numbers of bytes: of a section's body, of a RAMBlock."""
SHOWN = 8  # bytes of a buffer, from the first that differs
CHUNK = 4096


def value_cells(type_: str, a: Any, b: Any) -> tuple[str, str]:
    """Return both values for people; for buffers the bytes that differ."""
    if isinstance(a, bytes) and isinstance(b, bytes) and max(len(a), len(b)) > SHOWN:
        _, first = differing_bytes(a, b)
        return _part(a, first), _part(b, first)
    return value_cell(type_, a), value_cell(type_, b)


def _part(raw: bytes, first: int) -> str:
    part = raw[first : first + SHOWN].hex(" ") or "(ends)"
    return f"{part}{' ...' if first + SHOWN < len(raw) else ''}"


def value_cell(type_: str, value: Any) -> str:
    """Return a value for people; None is a dash."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(text_value(type_, one) for one in value[:4]) + (" ..." if len(value) > 4 else "")
    if isinstance(value, bytes) and len(value) > SHOWN:
        return _part(value, 0)
    return f"{value} bytes" if type_ == BYTES else text_value(type_, value)


def differing_bytes(a: bytes, b: bytes) -> tuple[int, int]:
    """Return the number of bytes that differ in two buffers, and where the first is; extra bytes count."""
    count, first = 0, -1
    for at in range(0, max(len(a), len(b)), CHUNK):
        x, y = a[at : at + CHUNK], b[at : at + CHUNK]
        if x == y:
            continue
        for i, (one, other) in enumerate(zip_longest(x, y)):
            if one != other:
                count += 1
                first = at + i if first < 0 else first
    return count, max(first, 0)
