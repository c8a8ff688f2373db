"""Writing the JSON text of a vmdesc, and the position of its parts in it.

QEMU's JSON writer has two styles: ``{"k": v, "k2": [..]}`` since 6.0, ``{ "k" : v, "k2" : [ .. ] }`` before, which
also escapes nothing. A text that is changed in one place keeps its style and all other bytes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from qmigtool.errors import StreamError, UsageError
from qmigtool.parsers.vmdesc import JsonObject, load_pairs

if TYPE_CHECKING:
    from qmigtool.parsers.vmdesc import Description, DeviceDescription, FieldDescription

__all__ = ["Parts", "describe", "describe_device", "find_parts", "format_pairs", "format_vmdesc", "is_spaced"]


def is_spaced(text: bytes) -> bool:
    """Return whether a text is in the style of QEMU before 6.0."""
    return text[:2] == b"{ "


def format_vmdesc(text: bytes) -> bytes:
    """Write a vmdesc text from its parsed contents: keys in order, with duplicates, in its own style."""
    return format_pairs(load_pairs(text, JsonObject), spaced=is_spaced(text))


def format_pairs(value: Any, *, spaced: bool) -> bytes:
    """Write a JSON value (objects as :class:`JsonObject`) in one of the two styles."""
    return _format(value, spaced=spaced).encode("utf-8", "surrogateescape")


def _format(value: Any, *, spaced: bool) -> str:
    pad = " " if spaced else ""
    if isinstance(value, JsonObject):
        colon = " : " if spaced else ": "
        inner = ", ".join(f"{_string(k, spaced)}{colon}{_format(v, spaced=spaced)}" for k, v in value)
        return f"{{{pad}{inner}{pad}}}"
    if isinstance(value, list):
        return f"[{pad}{', '.join(_format(item, spaced=spaced) for item in value)}{pad}]"
    return _string(value, spaced) if isinstance(value, str) else json.dumps(value)


def _string(text: str, raw: bool) -> str:
    if not raw:
        return json.dumps(text)
    if '"' in text or "\\" in text or any(c < " " for c in text):
        raise UsageError(f"the name {text[:40]!r} cannot be in a vmdesc of QEMU before 6.0, which escapes nothing")
    return f'"{text}"'


# -- descriptions to pairs --------------------------------------------------------------------------------------------


def describe(description: Description) -> JsonObject:
    """Return the pairs of a description, as they follow a device's name or are in a ``struct``.

    Undoes :func:`~qmigtool.parsers.vmdesc.parse_vmdesc`; except unknown keys, which are dropped.
    """
    if not description.name and not description.fields:
        return JsonObject()  # the empty struct that QEMU writes for a NULL pointer
    pairs = JsonObject(
        [
            ("vmsd_name", description.name),
            ("version", description.version),
            ("fields", [_field(field) for field in description.fields]),
        ]
    )
    if description.subsections:  # QEMU never writes an empty list of them
        pairs.append(("subsections", [describe(sub) for sub in description.subsections]))
    return pairs


def _field(field: FieldDescription) -> JsonObject:
    pairs = JsonObject([("name", field.name)])
    if field.array_len is not None:
        pairs.append(("array_len", field.array_len))
    if field.index is not None:
        pairs.append(("index", field.index))
    pairs.append(("type", field.type))
    if field.struct is not None:
        pairs.append(("struct", describe(field.struct)))
    for group in field.inline:
        pairs.extend(describe(group))
    pairs.append(("size", field.size))
    return pairs


def describe_device(device: DeviceDescription) -> JsonObject:
    """Return the pairs of one entry of ``devices``."""
    head = JsonObject([("name", device.idstr), ("instance_id", device.instance_id)])
    if not device.old_style:
        return JsonObject(head + describe(device.description))
    fields = [JsonObject([("name", f.name), ("size", f.size), ("type", f.type)]) for f in device.description.fields]
    return JsonObject([*head, ("size", device.description.size), ("fields", fields)])


# -- places in the text -----------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """Spans (start, end) in a vmdesc's text.

    Of the value of ``configuration``, of each entry of ``devices``, and of the text between the brackets around those.
    """

    configuration: tuple[int, int] | None
    devices: tuple[tuple[int, int], ...]
    array: tuple[int, int]


def find_parts(text: bytes) -> Parts:
    """Return the positions of its parts; raises :class:`~qmigtool.errors.StreamError` if it is not a vmdesc."""
    # One character per byte: JSON's syntax is ASCII, and the positions are then those of the bytes.
    scanner = _Scanner(text.decode("latin-1"))
    configuration, devices, array = None, None, (0, 0)
    for key in scanner.items("{", "}"):
        if key == "configuration" and configuration is None:
            configuration = scanner.value()
        elif key == "devices" and devices is None:
            devices = tuple(scanner.value() for _ in scanner.items("[", "]"))
            array = scanner.inside
        else:
            scanner.value()
    if devices is None:
        raise StreamError("no 'devices'", section="vmdesc")
    return Parts(configuration, devices, array)


class _Scanner:
    """Walks the outer two levels of a JSON text; :mod:`json` reads the deeper ones."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pos = 0
        self.inside = (0, 0)  # of the brackets of the last value
        self._decoder = json.JSONDecoder(strict=False)
        self._last: Any = None  # the last value

    def items(self, opening: str, closing: str) -> Any:
        """Yield the keys of an object (the caller reads each value), or None for each element of an array."""
        self._take(opening)
        start = self._pos
        if self._next() == closing:
            self._close(start, closing)
            return
        while True:
            key = None
            if opening == "{":
                self.value()
                key = self._last
                self._take(":")
            yield key
            if self._next() == closing:
                self._close(start, closing)
                return
            self._take(",")

    def _close(self, start: int, closing: str) -> None:
        self.inside = start, self._pos
        self._take(closing)

    def value(self) -> tuple[int, int]:
        """Skip a value; return its span."""
        self._next()
        start = self._pos
        try:
            self._last, self._pos = self._decoder.raw_decode(self._text, start)
        except (ValueError, RecursionError) as error:
            raise StreamError(f"not JSON: {error}", section="vmdesc") from None
        return start, self._pos

    def _next(self) -> str:
        while self._pos < len(self._text) and self._text[self._pos].isspace():
            self._pos += 1
        return self._text[self._pos : self._pos + 1]

    def _take(self, wanted: str) -> None:
        if self._next() != wanted:
            raise StreamError(f"no {wanted!r} at byte {self._pos}", section="vmdesc")
        self._pos += 1
