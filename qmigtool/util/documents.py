"""JSON and TOML that others wrote, read within the memory of the budget.

A text of some MB may become an object 20 or 50 times as large.

The objects are bounded by the signs in the text, which are counted before any is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qmigtool.util.budget import current

__all__ = ["TOML", "load_json", "make_room"]

JSON = {"{": 250, "[": 72, ",": 72, ":": 72}
"""Bytes for the object, the list, the value or the pair that each may stand for; strings are in the text's own length.

An object is a dict, or a list of pairs of its own type, each of which takes a tuple.
"""
TOML = {"{": 250, "[": 500, ",": 72, "=": 250, ".": 500}
"""The same for TOML: a table takes more, and for what a dot is there may be one, too."""
SMALL = 1 << 20
"""Characters of a text that becomes at most some 100 MB, and usually 10."""


def make_room(
    text: str, signs: Mapping[str, int] = JSON, *, offset: int | None = None, section: str | None = None
) -> None:
    """Check that a text's document fits in memory; raises :class:`~qmigtool.errors.BudgetError` if it does not.

    Nothing stays charged: who keeps it charges what is kept.
    """
    if len(text) <= SMALL:
        return
    needed = len(text) + sum(size * text.count(sign) for sign, size in signs.items())
    budget = current()
    try:
        budget.charge("memory", needed, offset, section)
    finally:
        budget.release("memory", needed)


def load_json(text: str, *, offset: int | None = None, section: str | None = None, **options: Any) -> Any:
    """Return what :func:`json.loads` does with these ``options``, if there is room for it."""
    make_room(text, offset=offset, section=section)
    return json.loads(text, **options)
