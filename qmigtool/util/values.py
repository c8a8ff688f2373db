"""Numbers and sizes in user input, in one grammar: on the command line, in TOML and JSON, in Python.

``743``, ``0x2e7``, ``0b101``, ``0o17``, ``1_000``, ``-1``; and with a unit of bytes, in either case:
``512K``, ``16m``, ``1 GiB``, ``0x10K``. A unit is a power of 1024. No decimal number starts with a zero: ``010``
might be octal.
"""

from __future__ import annotations

import re
from typing import Any

from qmigtool.errors import UsageError

__all__ = ["number", "parse_number", "size"]

_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_NUMBER = re.compile(
    r"\s*([+-]?)(?:(0x_?[0-9a-f][0-9a-f_]*|0b_?[01][01_]*|0o_?[0-7][0-7_]*)|(0|[1-9][0-9_]*))"
    r"(?:\s*([kmgt])(?:i?b)?|\s*b(?:ytes?)?)?\s*",
    re.IGNORECASE | re.ASCII,
)
MAX_DIGITS = 64  # of a number; Python's own limit is much larger


def parse_number(text: str) -> int | None:
    """Return the number in a text, or None if it is not a number."""
    found = _NUMBER.fullmatch(text) if len(text) <= 2 * MAX_DIGITS else None
    if found is None:
        return None
    sign, prefixed, decimal, unit = found.groups()
    try:
        value = int(prefixed or decimal, 0)
    except ValueError:
        return None
    return (-value if sign == "-" else value) << _UNITS[(unit or "").lower()]


def number(value: Any, what: str) -> int:
    """Read a number: 743, or ``"0x2e7"``; raises :class:`~qmigtool.errors.UsageError`, which names it ``what``."""
    found = parse_number(value) if isinstance(value, str) else value
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    raise UsageError(f"{what} is {value!r:.60}", expected='a number, such as 743 or "0x2e7"')


def size(value: Any, what: str) -> int:
    """Read a number of bytes: 65536, ``"64K"`` or ``"0x10000"``; raises :class:`~qmigtool.errors.UsageError`."""
    found = parse_number(value) if isinstance(value, str) else value
    if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
        return found
    raise UsageError(f"{what} is {value!r:.60}", expected='a size, such as 65536, "64K" or "0x10000"')
