"""JSON inside JSON: virtual machine monitors store states as strings that are JSON documents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qmigtool.errors import LimitError, XsaveError
from qmigtool.util.values import decimal

T = TypeVar("T")

Part = dict[str, Any] | list[Any]

DIGITS = 9  # of the number of a vCPU


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """A match in a document, and the decimal key or ``id`` above it without a list between them, if any."""

    what: T
    label: int | None


MAX_DEPTH = 60
MAX_JSON = 4 << 20
"""Bytes or characters: a parsed document needs 20 times as much memory.

The state of a vCPU has 15,000, its CPUID 20,000.
"""


def parse(text: str | bytes, name: str | None = None) -> Any:
    """Parse a JSON document; None if it is not one.

    Raises LimitError if it is too long, XsaveError if an object has a key twice.
    """
    if len(text) > MAX_JSON:
        unit = "characters" if isinstance(text, str) else "bytes"
        raise LimitError(f"the JSON document has {len(text)} {unit}", section=name, expected=f"at most {MAX_JSON}")
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in made if keys.count(key) > 1)
        raise XsaveError(f"an object of the JSON document has the key {twice[:40]!r} twice")
    return made


def find_in(document: Any, keys: Sequence[str], look: Callable[[Part], tuple[list[T], Part]]) -> list[Found[T]]:
    """Return the matches of ``look`` in the objects and lists of a document, in order.

    ``look`` returns the match in one, and the parts of it to search next. A string is parsed as JSON if it
    begins like JSON and contains one of ``keys``.
    """
    return list(_find(document, keys, look, MAX_DEPTH, None))


def by_number(found: Sequence[Found[T]]) -> dict[int, T] | None:
    """Return the matches by label; None if one has no label or two have the same: only the order distinguishes them.

    The order need not be that of the vCPUs: Cloud Hypervisor sorts its keys as strings, "10" before "2".
    """
    numbered = {one.label: one.what for one in found if one.label is not None}
    return {label: numbered[label] for label in sorted(numbered)} if len(numbered) == len(found) else None


def _find(
    document: Any, keys: Sequence[str], look: Callable[[Part], tuple[list[T], Part]], depth: int, label: int | None
) -> Iterator[Found[T]]:
    if not depth:
        return
    if isinstance(document, str) and document.startswith(("{", "[")) and any(f'"{key}"' in document for key in keys):
        document = parse(document)
    if not isinstance(document, dict | list):
        return
    if isinstance(document, dict) and (named := _decimal(document.get("id"))) is not None:
        label = named
    found, inside = look(document)
    yield from (Found(one, label) for one in found)
    for key, one in inside.items() if isinstance(inside, dict) else ((None, one) for one in inside):
        if isinstance(one, dict | list | str):
            number = _decimal(key)
            below = None if key is None else label if number is None else number
            yield from _find(one, keys, look, depth - 1, below)


def _decimal(key: Any) -> int | None:
    if isinstance(key, str):
        return decimal(key, DIGITS)
    return key if type(key) is int and 0 <= key < 10**DIGITS else None
