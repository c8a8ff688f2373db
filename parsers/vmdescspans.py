"""The position of each device in the JSON text of a vmdesc, and the length of its body, without parsing it all.

The walk from the end needs the length of every device, but a command reads the fields of one or two. What QEMU writes
has few shapes of objects; each is checked and measured here while the JSON is read, with one call for each object.
Only a device that passes every check of :mod:`qmigtool.parsers.vmdesc` is measured; for any other
:attr:`DeviceSpan.size` is None, and for a text that is not a vmdesc as QEMU writes it there are no spans: then
all of it is parsed, which reports its errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from qmigtool.util.budget import current
from qmigtool.util.documents import make_room

if TYPE_CHECKING:
    from collections.abc import Callable

    Measure = tuple[int, int, int]  # bytes, leaves, levels

__all__ = ["MAX_ARRAY", "MAX_DEPTH", "MAX_NUMBER", "MAX_WORD", "DeviceSpan", "Spans", "find_spans"]

MAX_NUMBER = 1 << 48  # far above any field of a real machine; no sum can overflow
MAX_ARRAY = 1 << 24
MAX_WORD = 1 << 32  # instance_id and version are be32
MAX_DEPTH = 64  # the deepest seen is 5

WINDOW = 1 << 16  # characters that are looked at for a value; a vCPU has 50,000, and what has more is looked at again
DEVICE_BYTES = 1536
"""What each device holds in memory, with its name, its places, and where it is looked up."""

_BLANK = re.compile(r"[ \t\n\r]*")


class DeviceSpan(NamedTuple):
    """One entry of ``devices``: its characters ``start`` to ``end``; the rest is None if it is not measured."""

    start: int
    end: int
    idstr: str = ""
    instance_id: int = 0
    version: int = 0
    size: int | None = None
    leaves: int = 0
    old_style: bool = False


class Spans(NamedTuple):
    """The top-level values of a vmdesc, and the spans of its parts in ``text``."""

    text: str
    page_size: int
    configuration: tuple[int, int] | None
    devices: tuple[DeviceSpan, ...]


class _OtherError(Exception):
    """The text is not what QEMU writes, or is in another format."""


def find_spans(text: str) -> Spans | None:
    """Return the spans of a vmdesc's parts, or None for a text that must be read as a whole.

    Raises :class:`~qmigtool.errors.BudgetError` for more devices, or larger ones, than the budget has memory for.
    """
    try:
        return _Scanner(text).vmdesc()
    except (_OtherError, ValueError, RecursionError):
        return None


# -- objects, measured ------------------------------------------------------------------------------------------------


def _refuse(token: str) -> Any:
    raise _OtherError(token)


def _number(value: Any, below: int) -> int:
    if type(value) is int and 0 <= value < below:
        return value
    raise _OtherError(value)


def _text(value: Any) -> str:
    if type(value) is str and value.isascii():
        return value
    raise _OtherError(value)


def _field(found: dict[str, Any]) -> tuple[str, Measure]:
    _text(found["name"])
    _text(found["type"])
    size, count = _number(found["size"], MAX_NUMBER), 1
    if "array_len" in found:
        count = _number(found["array_len"], MAX_ARRAY + 1)
    if "index" in found:
        _number(found["index"], MAX_NUMBER)
    if "struct" not in found:
        return "field", (size * count, count, 0)
    _, leaves, levels = _measured(found["struct"], "body")
    return "field", (size * count, max(1, leaves) * count, levels)


def _body(found: dict[str, Any]) -> tuple[str, Measure, str]:
    name = _text(found["vmsd_name"]) if "vmsd_name" in found else ""
    if "version" in found:
        _number(found["version"], MAX_WORD)
    size = leaves = levels = 0
    for part in _list(found, "fields"):
        more, inner, below = _measured(part, "field")
        size, leaves, levels = size + more, leaves + inner, max(levels, below)
    for part in _list(found, "subsections"):
        more, inner, below = _measured(part, "body")
        length = len(part[2])
        if not 1 <= length <= 255:
            raise _OtherError(length)
        # marker, counted name, version: the header of a subsection
        size, leaves, levels = size + 1 + 1 + length + 4 + more, leaves + inner, max(levels, below)
    if size >= MAX_NUMBER or levels >= MAX_DEPTH:
        raise _OtherError(size)
    return "body", (size, leaves, levels + 1), name


def _device(found: dict[str, Any]) -> tuple[str, DeviceSpan]:
    _, (size, leaves, _), _ = _body(found)
    return "device", DeviceSpan(
        0,
        0,
        _text(found["name"]),
        _number(found["instance_id"], MAX_WORD),
        found.get("version", 0),
        size,
        leaves,
        "vmsd_name" not in found,
    )


def _list(found: dict[str, Any], key: str) -> list[Any]:
    value = found.get(key, [])
    if type(value) is list:
        return value
    raise _OtherError(value)


def _measured(part: Any, kind: str) -> Measure:
    if type(part) is tuple and part[0] == kind:
        measure: Measure = part[1]
        return measure
    raise _OtherError(part)


def _shapes() -> Iterator[tuple[frozenset[str], Callable[[dict[str, Any]], Any]]]:
    """Yield the keys of every object that QEMU writes (old-style sections have no ``vmsd_name``), with its reader."""
    for extra in ((), ("array_len",), ("index",), ("struct",), ("array_len", "struct"), ("index", "struct")):
        yield frozenset(("name", "type", "size", *extra)), _field
        yield frozenset(("name", "type", "size", "array_len", *extra)), _field
    yield frozenset(), _body  # the empty struct that QEMU writes for a NULL pointer
    for sub in ((), ("subsections",)):
        yield frozenset(("vmsd_name", "version", "fields", *sub)), _body
        yield frozenset(("name", "instance_id", "vmsd_name", "version", "fields", *sub)), _device
    yield frozenset(("name", "instance_id", "size", "fields")), _device


_SHAPES = dict(_shapes())
_OF_A_BODY = ("vmsd_name", "version", "fields", "subsections")


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """Measure an object of the text."""
    if len(pairs) == 3:
        (one, name), (two, kind), (three, size) = pairs
        # Most of a vmdesc is this, in this order: it is checked without another call.
        if (
            (one, two, three) == ("name", "type", "size")
            and (type(name), type(kind), type(size)) == (str, str, int)
            and 0 <= size < MAX_NUMBER
            and (name + kind).isascii()
        ):
            return "field", (size, 1, 0)
    found = dict(pairs)
    read = _SHAPES.get(frozenset(found))
    return _inline(pairs) if read is None or len(found) != len(pairs) else read(found)


def _inline(pairs: list[tuple[str, Any]]) -> tuple[str, Measure]:
    """Measure a field with descriptions among its own keys: one, or one for each element of a list."""
    groups: list[dict[str, Any]] = []
    own: dict[str, Any] = {}
    for key, value in pairs:
        if key == "vmsd_name":
            groups.append({})
        into = groups[-1] if groups and key in _OF_A_BODY else own
        if key in into:
            raise _OtherError(key)
        into[key] = value
    if "struct" in own or _SHAPES.get(frozenset(own)) is not _field:
        raise _OtherError(pairs)
    bodies = [_body(group)[1] for group in groups]
    inner = sum(leaves for _, leaves, _ in bodies)
    _, (total, count, _) = _field(own)
    return "field", (total, max(1, inner) * count, max((levels for _, _, levels in bodies), default=0))


_MEASURING = json.JSONDecoder(object_pairs_hook=_object, parse_float=_refuse, parse_constant=_refuse, strict=False)
_PASSING = json.JSONDecoder(strict=False)


# -- the outer two levels ----------------------------------------------------------------------------------------------


class _Scanner:
    """Walks the text down to its devices."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pos = 0
        self._budget = current()

    def vmdesc(self) -> Spans:
        page_size: int | None = None
        configuration: tuple[int, int] | None = None
        devices: tuple[DeviceSpan, ...] | None = None
        for _ in self._items("{", "}"):
            key = self._passed(_PASSING)
            self._take(":")
            if key == "page_size" and page_size is None:
                page_size = _number(self._passed(_MEASURING), MAX_NUMBER)
            elif key == "configuration" and configuration is None:
                start = self._next()
                _measured(self._passed(_MEASURING), "body")
                configuration = start, self._pos
            elif key == "devices" and devices is None:
                devices = tuple(self._one() for _ in self._items("[", "]"))
            else:
                raise _OtherError(key)
        if page_size is None or devices is None or self._next() != len(self._text):
            raise _OtherError(page_size)
        return Spans(self._text, page_size, configuration, devices)

    def _one(self) -> DeviceSpan:
        self._budget.charge("memory", DEVICE_BYTES)
        start = self._next()
        try:
            found = self._passed(_MEASURING)
        except _OtherError:
            self._passed(_PASSING)
            return DeviceSpan(start, self._pos)
        if type(found) is not tuple or found[0] != "device":
            raise _OtherError(found)
        return DeviceSpan(start, self._pos, *found[1][2:])

    def _items(self, opening: str, closing: str) -> Iterator[None]:
        """Iterate over the items of an object or an array; the caller reads each."""
        self._take(opening)
        if self._peek() == closing:
            self._take(closing)
            return
        while True:
            yield
            if self._peek() == closing:
                self._take(closing)
                return
            self._take(",")

    def _passed(self, decoder: json.JSONDecoder) -> Any:
        """Skip a value, and return it; for one that may be large, check the budget first."""
        start, size = self._next(), WINDOW
        while True:
            text = self._text[start : start + size]
            make_room(text)
            try:
                value, length = decoder.raw_decode(text)
            except ValueError:
                if start + size >= len(self._text):
                    raise
                size *= 4
                continue
            self._pos = start + length
            return value

    def _next(self) -> int:
        """Skip blanks, and return the position after them."""
        match = _BLANK.match(self._text, self._pos)
        self._pos = match.end() if match is not None else self._pos
        return self._pos

    def _peek(self) -> str:
        start = self._next()
        return self._text[start : start + 1]

    def _take(self, wanted: str) -> None:
        if self._peek() != wanted:
            raise _OtherError(wanted)
        self._pos += 1
