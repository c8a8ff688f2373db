"""TOML files of users: policies, noise rules, edits, targets; read within limits, whatever they contain."""

from __future__ import annotations

import os
import tomllib
from typing import Any

from qmigtool.errors import UsageError
from qmigtool.util.documents import TOML, make_room
from qmigtool.util.files import open_input

__all__ = ["load_toml", "parse_toml"]

MAX_TEXT = 1 << 20  # bytes
# A dot may be a level, and every level is a table that tomllib creates.
MAX_DOTS = 64  # in a line
MAX_ALL_DOTS = 20_000
MAX_NUMBER = 1 << 64
MAX_DEPTH = 64


def load_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file; raises as :func:`parse_toml` does, OSError, and UsageError for anything but a regular file."""
    with os.fdopen(open_input(path), "rb") as file:
        raw = file.read(MAX_TEXT + 1)
    try:
        return parse_toml(raw, str(path))
    except UsageError as error:
        error.file = str(path)
        raise


def parse_toml(raw: bytes | str, name: str, *, limit: int = MAX_TEXT) -> dict[str, Any]:
    """Read TOML text of at most ``limit`` bytes; ``name`` is its name in messages.

    Raises :class:`~qmigtool.errors.UsageError` if it is not TOML, too long, or nested too deeply,
    and :class:`~qmigtool.errors.BudgetError` if it needs too much memory.
    """
    if len(raw) > limit:
        raise UsageError(f"{name} is too long", expected=f"at most {limit} bytes")
    try:
        text = raw if isinstance(raw, str) else raw.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not text: {error}") from None
    if text.count(".") > MAX_ALL_DOTS or any(line.count(".") > MAX_DOTS for line in text.splitlines()):
        raise UsageError(f"{name} has a line with more than {MAX_DOTS} dots, or more than {MAX_ALL_DOTS} in all")
    make_room(text, TOML, section=name)
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise UsageError(f"{name} is not TOML: nested too deeply") from None
    except ValueError as error:  # also raised for numbers with thousands of digits
        raise UsageError(f"{name} is not TOML: {error}") from None
    _bounded(document, name, 0)
    return document


def _bounded(value: Any, name: str, depth: int) -> None:
    """Refuse values that only make output costly: numbers wider than any register, tables nested without end."""
    if depth > MAX_DEPTH:
        raise UsageError(f"{name} is nested too deeply")
    if isinstance(value, dict):
        for inner in value.values():
            _bounded(inner, name, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _bounded(inner, name, depth + 1)
    elif type(value) is int and not -MAX_NUMBER < value < MAX_NUMBER:
        raise UsageError(f"{name} has a number of {value.bit_length()} bits", expected="at most 64")
