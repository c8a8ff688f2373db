"""JSON inside JSON: virtual machine monitors keep states as strings that are JSON documents again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from qmigtool.errors import LimitError

T = TypeVar("T")

MAX_DEPTH = 60
MAX_JSON = 4 << 20
"""Bytes or characters: what is made of a document takes twenty times as much memory.

The state of a vCPU has 15,000, its CPUID 20,000.
"""


def parse(text: str | bytes, name: str | None = None) -> Any:
    """Return what a JSON document says, None if it is none. Raises LimitError if it is too long."""
    if len(text) > MAX_JSON:
        unit = "characters" if isinstance(text, str) else "bytes"
        raise LimitError(f"the JSON document has {len(text)} {unit}", section=name, expected=f"at most {MAX_JSON}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def find_in(
    document: Any, keys: Sequence[str], look: Callable[[dict[str, Any] | list[Any]], tuple[list[T], Iterable[Any]]]
) -> Iterator[T]:
    """Give what ``look`` finds in each object and list of a document, in order.

    ``look`` returns what it found in one, and what of it is looked into next. A string is read as JSON again if it
    begins as such and one of ``keys`` is in it.
    """
    return _find(document, keys, look, MAX_DEPTH)


def _find(
    document: Any,
    keys: Sequence[str],
    look: Callable[[dict[str, Any] | list[Any]], tuple[list[T], Iterable[Any]]],
    depth: int,
) -> Iterator[T]:
    if not depth:
        return
    if isinstance(document, str) and document.startswith(("{", "[")) and any(f'"{key}"' in document for key in keys):
        try:
            document = json.loads(document)
        except (ValueError, RecursionError):
            return
    if not isinstance(document, dict | list):
        return
    found, inside = look(document)
    yield from found
    for one in inside:
        if isinstance(one, dict | list | str):
            yield from _find(one, keys, look, depth - 1)
