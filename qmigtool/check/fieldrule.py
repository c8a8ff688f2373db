"""Rules that a policy defines: requirements on the value of a field.

::

    [[field]]
    path = "cpu@*/env.xcr0"      # * and ? match anything, in the device and in the field
    within = "x87,sse,avx"       # no other bit is set
    same = true                  # in all instances
    why = "the fleet has hosts without AVX-512"

Values are compared as numbers if the field is a number (names of state components are numbers, too), else as text:
bytes are the hexadecimal digits that ``show`` prints, or their text up to the first NUL if they are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from qmigtool.check.patterns import Expression
from qmigtool.check.rule import Context, finding
from qmigtool.errors import QmigError, UsageError
from qmigtool.findings import Finding
from qmigtool.findings.model import Wide
from qmigtool.parsers.vmstate import Kind, leaves
from qmigtool.util.globs import matches
from qmigtool.util.text import is_wide
from qmigtool.util.values import number
from qmigtool.xsave.components import parse_mask

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.parsers.vmstate import Field

__all__ = ["FieldRule", "read_field_rule"]

MAX_TEXT = 4096  # characters of a value that a regular expression is applied to
MAX_SHOWN = 80


@dataclass(frozen=True, slots=True)
class FieldRule:
    """One ``[[field]]`` of a policy; None is not checked."""

    id: str
    path: str
    severity: str = "error"
    why: str = ""
    required: bool = True
    equals: Any = None
    one_of: tuple[Any, ...] | None = None
    minimum: int | None = None
    maximum: int | None = None
    mask: int | None = None
    within: int | None = None
    has: int | None = None
    same: bool = False
    matches: str | None = None
    absent: bool = False

    @property
    def title(self) -> str:
        """The requirement in one line."""
        return f"{self.path} {' and '.join(self._wanted())}"

    def _wanted(self) -> Iterator[str]:
        masked = "" if self.mask is None else f" (of the bits {self.mask:#x})"
        for words, value in (
            (f"is {{}}{masked}", self.equals),
            (f"is one of {{}}{masked}", self.one_of),
            (f"is at least {{}}{masked}", self.minimum),
            (f"is at most {{}}{masked}", self.maximum),
            ("is within {}", self.within),
            ("has {}", self.has),
            ("matches {}", self.matches),
        ):
            if value is not None:
                yield words.format(_show(value))
        if self.same:
            yield "is the same everywhere"
        if self.absent:
            yield "is absent"
        elif not self.tests and self.required:
            yield "is present"

    @property
    def tests(self) -> bool:
        """Whether the value is checked."""
        asked = (self.equals, self.one_of, self.minimum, self.maximum, self.within, self.has, self.matches)
        return self.same or any(value is not None for value in asked)

    def findings(self, context: Context) -> Iterator[Finding]:
        """Check every field that the path matches."""
        first: tuple[str, Any] | None = None
        found = False
        expression = None if self.matches is None else Expression(self.matches)
        for device, path, field in self._fields(context):
            found = True
            where = (device.label, path, field.offset, field.length)
            if self.absent:
                yield finding("is present, but the policy requires it to be absent", *where)
                continue
            value = _value(field)
            for message in self._wrong(value, expression):
                yield finding(message, *where, value=_given(field, value), **self._limits())
            if self.same:
                first = first or (f"{device.label}/{path}", value)
                if value != first[1]:
                    words = f"is {_show(value)}, but {first[0]} is {_show(first[1])}"
                    yield finding(words, *where, value=_given(field, value), expected=_given(field, first[1]))
        if not found and self.required and not self.absent:
            yield finding(f"no field of the stream matches {self.path}")

    def _limits(self) -> dict[str, Any]:
        """Return what the policy requires of the value, by the policy's names."""
        names = ("equals", "one_of", "minimum", "maximum", "mask", "within", "has", "matches")
        found = {name: limit for name in names if (limit := getattr(self, name)) is not None}
        return {name: Wide(limit) if name in ("mask", "within", "has") else limit for name, limit in found.items()}

    def _fields(self, context: Context) -> Iterator[tuple[Device, str, Field]]:
        for device in context.devices:
            try:
                for path in _inside(self.path, device):
                    if "*" in path or "?" in path:
                        yield from ((device, name, leaf) for name, leaf in _like(path, device))
                    elif (exact := device.get(path)) is not None:
                        yield device, path, exact
            except QmigError as error:
                context.stream.report(error)

    def _wrong(self, value: Any, expression: Expression | None) -> Iterator[str]:
        """Yield what is wrong with a value."""
        if expression is not None and not expression.found_in(_text(value)[:MAX_TEXT]):
            yield f"is {_show(value)}, which does not match {self.matches}"
        numeric = isinstance(value, int)
        tested = value & self.mask if numeric and self.mask is not None else value
        shown = _show(value) if tested is value else f"{_show(value)} ({_show(tested)} of the bits {self.mask:#x})"
        if self.equals is not None and not _equal(tested, self.equals):
            yield f"is {shown}, but the policy requires {_shown_for(value, self.equals)}"
        if self.one_of is not None and not any(_equal(tested, wanted) for wanted in self.one_of):
            wanted = tuple(_shown_for(value, one) for one in self.one_of)
            yield f"is {shown}, but the policy requires one of {_show(wanted)}"
        asked = [(name, getattr(self, name)) for name in ("minimum", "maximum", "within", "has")]
        if not numeric and any(limit is not None for _, limit in asked):
            yield f"is {_show(value)}, not a number, but the policy requires one"
            return
        if self.minimum is not None and tested < self.minimum:
            yield f"is {shown}, but the policy requires at least {_show(self.minimum)}"
        if self.maximum is not None and tested > self.maximum:
            yield f"is {shown}, but the policy requires at most {_show(self.maximum)}"
        if self.within is not None and value & ~self.within:
            yield f"is {_show(value)}, whose bits {value & ~self.within:#x} are not within {self.within:#x}"
        if self.has is not None and self.has & ~value:
            yield f"is {_show(value)}, which lacks the bits {self.has & ~value:#x}"


def _given(field: Field, value: Any) -> Any:
    return Wide(value) if type(value) is int and value >= 0 and is_wide(field.type) else value


def _inside(pattern: str, device: Device) -> Iterator[str]:
    """Yield the field part of a pattern: device names contain slashes, so every slash may separate device and field."""
    parts = set()
    for found in re.finditer("/", pattern):
        head, rest = pattern[: found.start()], pattern[found.end() :]
        if rest and (matches(head, device.label) or matches(head, device.name)):
            parts.add(rest)
    yield from sorted(parts)


def _like(pattern: str, device: Device) -> Iterator[tuple[str, Field]]:
    """Yield the leaves whose paths match a pattern: whole arrays of leaves, or elements if the pattern names them."""
    array = pattern.rpartition("[")[0]
    for path, field in leaves(device.fields, whole_arrays=True):
        if matches(pattern, path):
            yield path, field
        elif array and field.kind is Kind.ARRAY and matches(array, path):
            parent = path.removesuffix(field.name)
            for element in field.children:
                if matches(pattern, parent + element.name):
                    yield parent + element.name, element


def _value(field: Field) -> Any:
    value = field.value
    return field.raw if value is None else value


def _text(value: Any) -> str:
    """Format a value as ``show`` does; bytes that are text as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        text, *padding = value.split(b"\0")
        if text and text.isascii() and text.decode().isprintable() and not any(padding):
            return text.decode()
        return value.hex()
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    return f"{value:#x}" if isinstance(value, int) else str(value)


def _show(value: Any) -> str:
    text = ", ".join(map(_text, value)) if isinstance(value, tuple) else _text(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, int):
        return value == _number(wanted)
    if isinstance(value, bytes) and isinstance(wanted, str) and value.hex() == wanted.lower():
        return True
    return isinstance(wanted, str) and _text(value) == wanted


def _number(wanted: Any) -> int | None:
    """Return the number that a policy's value means, also by names of state components; None for other text."""
    try:
        return _bits(wanted, "")
    except UsageError:
        return None


def _shown_for(value: Any, wanted: Any) -> str:
    """Format the value that a policy requires; with the number that names stand for."""
    if isinstance(value, int) and isinstance(wanted, str) and wanted[:1].isalpha():
        mask = _number(wanted)
        return f"the text {_show(wanted)}" if mask is None else f"{_show(wanted)} ({mask:#x})"
    return _show(wanted)


# -- reading a policy's table ----------------------------------------------------------------------------------------

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def read_field_rule(table: Mapping[str, Any], severity: Callable[[Any, str], str]) -> FieldRule:
    """Make a rule of a ``[[field]]`` table whose keys are known; raises :class:`~qmigtool.errors.UsageError`."""
    path = table.get("path")
    if not isinstance(path, str) or "/" not in path:
        raise UsageError(f"the path of a [[field]] is {path!r:.60}", expected='a device and a field: "cpu@*/env.xcr0"')
    given: dict[str, Any] = {"path": path, "id": _slug(path)}
    for key, value in table.items():
        if key != "path":
            what = f"{key} of the field {path}"
            given[key] = severity(value, what) if key == "severity" else _READ[key](value, what)
    rule = FieldRule(**given)
    if rule.absent and rule.tests:
        raise UsageError(f"the field {path} is required to be absent, but also has a value")
    if not (rule.absent or rule.tests or rule.required):
        raise UsageError(f"no requirement on the field {path}", expected="equals, one_of, within, same, ...")
    if rule.mask is not None and all(x is None for x in (rule.equals, rule.one_of, rule.minimum, rule.maximum)):
        raise UsageError(
            f"mask of the field {path} is not a requirement alone", expected="equals, one_of, minimum or maximum"
        )
    return rule


def _slug(path: str) -> str:
    return "field-" + "-".join(re.findall("[a-z0-9]+", path.lower()))[:80]


def _id(value: Any, what: str) -> str:
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise UsageError(f"{what} is {value!r:.60}", expected="small letters, digits and hyphens")
    return value


def _words(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{what} is {value!r:.60}", expected="text")
    return value


def _yes(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{what} is {value!r:.60}", expected="true or false")
    return value


def _scalar(value: Any, what: str) -> Any:
    if not isinstance(value, str | int):
        raise UsageError(f"{what} is {value!r:.60}", expected="a number, text, true or false")
    return value


def _scalars(value: Any, what: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"{what} is {value!r:.60}", expected="a list of values")
    return tuple(_scalar(one, what) for one in value)


def _bits(value: Any, what: str) -> int:
    """Read a mask: a number, or names of state components."""
    return parse_mask(value) if isinstance(value, str) and value[:1].isalpha() else number(value, what)


def _regex(value: Any, what: str) -> str:
    words = _words(value, what)
    try:
        Expression(words)
    except UsageError as error:
        raise UsageError(f"{what}: {error.message}", expected=error.expected) from None
    return words


_READ: dict[str, Callable[[Any, str], Any]] = {
    "id": _id,
    "why": _words,
    "required": _yes,
    "equals": _scalar,
    "one_of": _scalars,
    "minimum": number,
    "maximum": number,
    "mask": _bits,
    "within": _bits,
    "has": _bits,
    "same": _yes,
    "matches": _regex,
    "absent": _yes,
}
KEYS = tuple(field.name for field in fields(FieldRule))
"""The keys that a ``[[field]]`` may have."""
