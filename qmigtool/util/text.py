"""Text for people and for programs: names and values from a file, escaped and readable.

A name may be anything. Printed, it may be an escape sequence to a terminal, a command to the CI runner that reads a
job's output, a formula to a spreadsheet. This module alone defines what is escaped:

- unprintable text (control characters, bidirectional controls, spaces except the ASCII one): ``\\x1b``, ``\\u202e``;
- ``::`` after only blanks: GitHub's runner treats such a line as a command (``\\x3a:``);
- ``##[``, ``##vso[``, ``##teamcity[`` and similar ones anywhere: Azure's agent, TeamCity (``#\\x23vso[``);
- in CSV, the start of a formula: ``=``, ``+``, ``-``, ``@`` before text that is not a number (``\\x3d``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

__all__ = [
    "csv_text",
    "hexadecimal",
    "json_text",
    "json_tokens",
    "json_value",
    "line_start",
    "printable",
    "text_value",
    "text_values",
]

_COMMAND = re.compile(r"##(?=[\w.]*\[)")
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # spreadsheets accept the wide ones, too
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?", re.ASCII)


def printable(text: str) -> str:
    """Escape commands to a terminal or to a CI runner that reads the output: names come from the file."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    if "##" in text:
        text = _COMMAND.sub(r"#\\x23", text)
    return line_start(text)


def line_start(line: str) -> str:
    """Escape the start of a line that has no other command in it, where a CI runner would take it for one."""
    start = len(line) - len(line.lstrip())
    return f"{line[:start]}\\x3a{line[start + 1 :]}" if line.startswith("::", start) else line


def csv_text(text: str) -> str:
    """Escape a cell of CSV: like :func:`printable`, and formulas too."""
    text = printable(text)
    start = len(text) - len(text.lstrip())
    if text.startswith(_FORMULA, start) and _PLAIN_NUMBER.fullmatch(text) is None:
        return text[:start] + "".join(f"\\x{ord(c):02x}" if c < "\x80" else f"\\u{ord(c):04x}" for c in text[start])\
            + text[start + 1 :]  # fmt: skip
    return text


def json_text(value: Any) -> str:
    """Write a value as JSON in ASCII; a string with ``##vso[`` in it reads the same, and is not a command."""
    text = json.dumps(value)
    return _COMMAND.sub(r"#\\u0023", text) if "##" in text else text


def hexadecimal(value: int | None) -> str | None:
    """Format an address, mask or register for JSON."""
    return None if value is None else f"{value:#x}"


# Numbers of these types are addresses, masks or registers of 64 bits or more.
_WIDE = ("uint64", "int64 equal", "CPU_Double", "register")


def is_wide(type_: str) -> bool:
    """Whether numbers of this vmdesc type are addresses, masks or registers, which JSON has in hexadecimal."""
    return type_.startswith(_WIDE)


def json_value(type_: str, value: Any) -> Any:
    """Return the value of a leaf of this vmdesc type for JSON: wide numbers and bytes as text."""
    if isinstance(value, list):
        return [json_value(type_, one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int) and type_.startswith(_WIDE):
        return hexadecimal(value)
    return value


def json_tokens(type_: str, values: Sequence[Any]) -> list[str]:
    """Write many values of one type as JSON, each like :func:`json_value`."""
    if values and type(values[0]) is int:
        return [f'"{value:#x}"' for value in values] if type_.startswith(_WIDE) else list(map(str, values))
    return [json_text(json_value(type_, value)) for value in values]


def text_value(type_: str, value: Any) -> str:
    """Return the value of a leaf for people: unsigned numbers in hexadecimal, signed ones in decimal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return value.hex() if value.strip(b"\0") else f"{len(value)} zero bytes"
    if isinstance(value, int) and type_.startswith(("uint", *_WIDE)):
        return f"{value:#x}"
    return printable(str(value))


def text_values(type_: str, values: Sequence[Any]) -> list[str]:
    """Return many values of one type for people."""
    if values and type(values[0]) is int:
        return list(map(hex if type_.startswith(("uint", *_WIDE)) else str, values))
    return [text_value(type_, value) for value in values]
