"""Numbers and sizes in user input, in one grammar: on the command line, in TOML and JSON, in Python.

``743``, ``0x2e7``, ``0b101``, ``0o17``, ``1_000``, ``-1``; and with a unit of bytes, in either case:
``512K``, ``16m``, ``1 GiB``, ``0x10K``. A unit is a power of 1024. No decimal number starts with a zero: ``010``
might be octal.

Two narrower forms are for documents that programs write, where any other form is an error: :func:`word`, as
qmigtool's JSON has addresses, masks and registers, and :func:`decimal`, for labels and keys that are numbers.
"""

from __future__ import annotations

import re
from typing import Any

from qmigtool.errors import UsageError

__all__ = ["decimal", "number", "parse_number", "size", "word"]

_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_NUMBER = re.compile(
    r"\s*([+-]?)(?:(0x_?[0-9a-f][0-9a-f_]*|0b_?[01][01_]*|0o_?[0-7][0-7_]*)|(0|[1-9][0-9_]*))"
    r"(?:\s*([kmgt])(?:i?b)?|\s*b(?:ytes?)?)?\s*",
    re.IGNORECASE | re.ASCII,
)
_WORD = re.compile("0x[0-9a-fA-F]{1,16}")
_DECIMAL = re.compile("[0-9]{1,64}")
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


def word(text: Any, width: int = 64) -> int | None:
    """Return a number of up to ``width`` bits in the form that qmigtool's JSON has (``"0x2e7"``); None if it is not."""
    if isinstance(text, str) and _WORD.fullmatch(text) and not int(text, 16) >> width:
        return int(text, 16)
    return None


def decimal(text: Any, digits: int) -> int | None:
    """Return the number that is up to ``digits`` decimal digits, and nothing else; None for any other text."""
    return int(text) if isinstance(text, str) and len(text) <= digits and _DECIMAL.fullmatch(text) else None
