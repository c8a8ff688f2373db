"""Encode values from command lines and files as the bytes of a field."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qmigtool.errors import UsageError
from qmigtool.parsers.record import encode_name
from qmigtool.parsers.vmstate import INTEGERS, Kind, encode_value
from qmigtool.util.values import parse_number

if TYPE_CHECKING:
    from qmigtool.parsers.vmstate import Field

__all__ = ["brief", "encode", "name_bytes", "parse", "text_of"]

RAW = "hex:"
TEXT = "text:"
TEXTS = frozenset({"runstate"})  # buffers that QEMU reads as C strings, whatever they contain
SHOWN = 60


def brief(value: Any) -> str:
    """Format a value from the user, of any type, in few characters."""
    if isinstance(value, int) and not isinstance(value, bool):
        text = f"{value:#x}"  # Python refuses to format long numbers in decimal
    else:
        try:
            text = repr(value)
        except (RecursionError, ValueError):
            text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def name_bytes(name: str) -> bytes:
    """Return the bytes of a name; raises :class:`~qmigtool.errors.UsageError` if it cannot be encoded."""
    try:
        return encode_name(name)
    except UnicodeEncodeError:
        raise UsageError(f"the name {brief(name)} is not text") from None


def parse(text: str) -> Any:
    """Read a value from a command line: a number (``0x1f80``, ``-1``), ``true``, text, ``hex:00ff``,
    ``text:paused``, or JSON.

    Text that starts with a bracket is JSON: a list for an array, an object for a struct; its numbers may be strings, as
    in ``["0x10", 3]``.
    """
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"{text[:40]!r} is not JSON: {error}", expected='numbers as 16 or "0x10", names in double quotes'
            ) from None
    return text


def encode(field: Field, value: Any) -> bytes:
    """Return the bytes of ``field`` with another value.

    A leaf accepts a result of :func:`parse` or a decoded value; an array a sequence of the same length; a struct or a
    subsection a mapping of some of its fields, and the others stay. Every field accepts ``hex:`` and two digits per
    byte, a buffer ``text:`` and text, which is padded with NULs; a buffer that contains text now accepts text without
    the prefix. Raises :class:`~qmigtool.errors.UsageError` for a value that does not fit.
    """
    raw = _raw(value)
    if raw is not None:
        if field.kind is Kind.SUBSECTION:
            raise UsageError(f"{field.name} is a subsection: its header cannot be overwritten", expected="an object")
        if len(raw) != field.length:
            raise UsageError(f"{field.name} has {field.length} bytes, not {len(raw)}")
        return raw
    if field.kind is Kind.LEAF:
        return _leaf(field, value)
    if isinstance(value, Mapping):
        return _named(field, value)
    if field.kind is Kind.ARRAY and isinstance(value, Sequence) and not isinstance(value, str):
        children = field.children
        if len(value) != len(children) or sum(child.length for child in children) != field.length:
            raise UsageError(f"{field.name} has {len(children)} elements, not {len(value)}")
        return b"".join(encode(child, one) for child, one in zip(children, value, strict=True))
    wanted = "a list" if field.kind is Kind.ARRAY else "an object"
    raise UsageError(f"{field.name} is a {field.kind}", expected=f"{wanted}, or {RAW} and {2 * field.length} digits")


def _raw(value: Any) -> bytes | None:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value.startswith(RAW):
        try:
            return bytes.fromhex(value.removeprefix(RAW))
        except ValueError as error:
            raise UsageError(f"{value[:40]!r}: {error}") from None
    return None


def _named(field: Field, value: Mapping[str, Any]) -> bytes:
    out = bytearray(field.raw)
    children = {child.name: child for child in field.children}
    for name, one in value.items():
        child = children.get(name)
        if child is None:
            raise UsageError(f"{field.name} has no field {name!r}", expected="one of " + ", ".join(children))
        at = child.offset - field.offset
        out[at : at + child.length] = encode(child, one)
    return bytes(out)


def _leaf(field: Field, value: Any) -> bytes:
    integer = INTEGERS.get(field.type)
    if field.type == "bool":
        words = {"true": True, "1": True, "false": False, "0": False}
        word = str(value).lower() if isinstance(value, (str, int)) else ""
        if word not in words:
            raise UsageError(f"{field.name} is a bool", expected="true or false")
        value = words[word]
    elif integer is not None:
        value = _number(field, value)
    elif isinstance(value, str) and field.type == "buffer":
        value = _text(field, value)
    elif isinstance(value, str) and field.type != "capability":
        raise UsageError(
            f"{field.name} is a {field.type} of {field.length} bytes", expected=f"{RAW} and {2 * field.length} digits"
        )
    try:
        raw = encode_value(field.type, field.length, value)
    except (ValueError, OverflowError, TypeError) as error:
        raise UsageError(f"{field.name} is a {field.type}: {error}") from None
    if len(raw) != field.length:
        raise UsageError(f"{field.name} has {field.length} bytes, not {len(raw)}")
    return raw


def text_of(raw: bytes) -> str | None:
    """Return the text of a buffer: printable ASCII and then NULs to its end; None if it contains anything else."""
    text = raw.rstrip(b"\0")
    if not text or len(text) == len(raw) or not text.isascii() or not text.decode("ascii").isprintable():
        return None
    return text.decode("ascii")


def _text(field: Field, value: str) -> bytes:
    """Return text as the bytes of a buffer."""
    forced = value.startswith(TEXT)
    if not forced and ((text_of(field.raw) is None and field.name not in TEXTS) or _is_number(value)):
        raise UsageError(
            f"{field.name} is a buffer of {field.length} bytes",
            expected=f"{RAW} and {2 * field.length} digits, or {TEXT} and text",
        )
    raw = name_bytes(value.removeprefix(TEXT))
    if len(raw) >= field.length:
        raise UsageError(
            f"{brief(value)} is too long for {field.name}", expected=f"at most {field.length - 1} bytes: a NUL ends it"
        )
    return raw + bytes(field.length - len(raw))


def _is_number(text: str) -> bool:
    return parse_number(text) is not None


def _number(field: Field, value: Any) -> int:
    try:
        number = parse_number(value) if isinstance(value, str) else operator.index(value)  # refuses 1.5
    except TypeError:
        number = None
    if number is None:
        raise UsageError(f"{field.name} is a {field.type}, not {brief(value)}", expected="a number")
    integer = INTEGERS[field.type]
    low, high = (
        (-(1 << 8 * integer.size - 1), 1 << 8 * integer.size - 1) if integer.signed else (0, 1 << 8 * integer.size)
    )
    if not low <= number < high:
        raise UsageError(
            f"{field.name} is a {field.type}, which cannot hold {brief(number)}", expected=f"{low} to {high - 1}"
        )
    return number
