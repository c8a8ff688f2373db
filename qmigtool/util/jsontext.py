"""JSON written while it is generated: as :mod:`json` with an indent, but for lists and objects of millions.

Strings are escaped so that no line of the text is a command to a CI runner that reads it (see
:mod:`qmigtool.util.text`); they read the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from qmigtool.util.budget import current
from qmigtool.util.text import json_text, json_value

__all__ = ["SCHEMA", "Hex", "Items", "Pairs", "Tokens", "json_document", "lazy_value", "materialised", "write_json"]

BUFFER = 1 << 16  # characters

SCHEMA = 1
"""The ``schema`` of every document that qmigtool prints: its shape, not that of a stream."""


class Items:
    """A list whose elements are generated while it is written."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.items = items


class Pairs:
    """An object whose values are generated while it is written; its keys are unique."""

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        self.pairs = pairs


class Tokens:
    """A list that is given as JSON text: many elements, each a token, at a time."""

    def __init__(self, chunks: Iterable[list[str]]) -> None:
        self.chunks = chunks


class Hex:
    """A string of hexadecimal digits for bytes that are given in pieces; ``separator`` is put between two bytes."""

    def __init__(self, pieces: Iterable[bytes | memoryview], separator: str = "") -> None:
        self.pieces = pieces
        self.separator = separator

    def digits(self) -> Iterator[str]:
        """Yield the digits in pieces."""
        between = ""
        for piece in self.pieces:
            yield between + (piece.hex(self.separator) if self.separator else piece.hex())
            between = self.separator


PIECE = 1 << 16  # bytes of a buffer that are written at once


def lazy_value(type_: str, value: Any) -> Any:
    """Return what :func:`~qmigtool.util.text.json_value` does, or what encodes a long buffer while it is written."""
    if isinstance(value, bytes) and len(value) > PIECE:
        return Hex(value[at : at + PIECE] for at in range(0, len(value), PIECE))
    return json_value(type_, value)


def write_json(file: TextIO, value: Any, indent: int = 2) -> None:
    """Write ``value`` like ``json.dump(value, file, indent=indent)``."""
    budget = current()
    waiting: list[str] = []
    size = 0
    for piece in _pieces(value, " " * indent, "\n"):
        waiting.append(piece)
        size += len(piece)
        if size >= BUFFER:
            budget.tick()
            file.write("".join(waiting))
            waiting, size = [], 0
    file.write("".join(waiting))


def json_document(value: Any, indent: int = 2) -> str:
    """Return the text of a document, with a line break at its end."""
    return "".join(_pieces(value, " " * indent, "\n")) + "\n"


def materialised(value: Any) -> Any:
    """Return a value with everything generated: lists, dicts and scalars."""
    if isinstance(value, Pairs):
        return {key: materialised(one) for key, one in value.pairs}
    if isinstance(value, dict):
        return {key: materialised(one) for key, one in value.items()}
    if isinstance(value, Hex):
        return "".join(value.digits())
    if isinstance(value, Tokens):
        return [json.loads(token) for chunk in value.chunks for token in chunk]
    items = value.items if isinstance(value, Items) else value if isinstance(value, list | tuple) else None
    return value if items is None else [materialised(one) for one in items]


def _pieces(value: Any, step: str, line: str) -> Iterator[str]:
    """Yield the text of a value on a line that starts with ``line``."""
    if isinstance(value, dict):
        value = Pairs(value.items())
    elif isinstance(value, list | tuple):
        value = Items(value)
    inner = line + step
    if isinstance(value, Pairs):
        start = "{" + inner
        for key, one in value.pairs:
            yield f"{start}{json_text(key)}: "
            yield from _pieces(one, step, inner)
            start = "," + inner
        yield "{}" if start[0] == "{" else line + "}"
    elif isinstance(value, Items):
        start = "[" + inner
        for one in value.items:
            yield start
            yield from _pieces(one, step, inner)
            start = "," + inner
        yield "[]" if start[0] == "[" else line + "]"
    elif isinstance(value, Tokens):
        chunks = (chunk for chunk in value.chunks if chunk)
        first = next(chunks, None)
        if first is None:
            yield "[]"
            return
        between = "," + inner
        yield "[" + inner + between.join(first)
        for chunk in chunks:
            yield between + between.join(chunk)
        yield line + "]"
    elif isinstance(value, Hex):
        yield '"'
        yield from value.digits()
        yield '"'
    else:
        yield json_text(value)
