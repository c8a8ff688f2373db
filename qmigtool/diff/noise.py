"""Noise rules: they excuse differences that do not concern the guest, and give topics to others.

A rule excuses a difference, or only gives it a topic. ``noise.toml`` next to this module has the default rules; another
file adds rules, and replaces those with the same name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from qmigtool.errors import UsageError
from qmigtool.util.globs import matches
from qmigtool.util.toml import load_toml, parse_toml
from qmigtool.util.values import parse_number

if TYPE_CHECKING:
    import os

__all__ = ["Noise", "NoiseRule", "default_noise", "load_noise"]

IGNORED = "ignored"
"""The topic of differences that the caller ignores by a pattern."""
ACCELERATORS_DIFFER = "accelerators differ"
NO_X87_EXCEPTION = "no x87 exception is pending"
ANOTHER_INSTRUCTION = "the vCPU is at another instruction"
CONDITIONS = (ACCELERATORS_DIFFER, NO_X87_EXCEPTION, ANOTHER_INSTRUCTION)


@dataclass(frozen=True)
class NoiseRule:
    """One rule.

    ``fields`` are patterns over ``device@instance/path`` (:mod:`qmigtool.util.globs`); ``types`` are field types as
    the vmdesc names them. A rule matches a difference if one of either matches, and if

    - every condition in ``when`` holds (:data:`CONDITIONS`),
    - ``mask`` is None, or the values are numbers that differ in no bit outside it,
    - ``bytes`` is empty, or the values are buffers that differ nowhere but in these bits of these bytes,
    - ``tolerance`` is None, or the values are numbers no further apart,
    - neither value is in ``keep`` (-1, a timer that is not armed, is not a matter of time).

    ``excuse`` is False for a rule that only names the topic.
    """

    id: str
    topic: str
    why: str
    fields: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    when: tuple[str, ...] = ()
    bytes: Mapping[int, int] = field(default_factory=dict)
    mask: int | None = None
    tolerance: int | None = None
    keep: tuple[int, ...] = ()
    excuse: bool = True

    def fits(self, where: str, types: Iterable[str], a: Any, b: Any, conditions: Collection[str]) -> bool:
        """Return whether the rule matches a difference at ``where``; ``types``: field types on both sides."""
        if any(condition not in conditions for condition in self.when):
            return False
        if not (any(word in self.types for word in types) or any(matches(one, where) for one in self.fields)):
            return False
        if any(value in self.keep for value in (a, b) if isinstance(value, int)):
            return False
        return self._alike(a, b)

    def _alike(self, a: Any, b: Any) -> bool:
        """Return whether two values differ only as far as ``bytes``, ``mask`` and ``tolerance`` allow."""
        if self.bytes:
            if not (isinstance(a, bytes) and isinstance(b, bytes) and len(a) == len(b)):
                return False
            return not any((x ^ y) & ~self.bytes.get(i, 0) for i, (x, y) in enumerate(zip(a, b, strict=True)))
        if self.mask is None and self.tolerance is None:
            return True
        # A value missing on one side is at its default, zero; only numbers have bits and a distance.
        x, y = (0 if value is None else value for value in (a, b))
        if not isinstance(x, int) or not isinstance(y, int):
            return False
        apart = self.tolerance is None or abs(x - y) <= self.tolerance
        return apart and (self.mask is None or not (x ^ y) & ~self.mask)


@dataclass(frozen=True)
class Noise:
    """A set of rules; the first match decides."""

    rules: tuple[NoiseRule, ...] = ()

    def find(self, where: str, types: Iterable[str], a: Any, b: Any, conditions: Collection[str]) -> NoiseRule | None:
        """Return the rule that matches a difference, or None."""
        words = tuple(types)
        return next((rule for rule in self.rules if rule.fits(where, words, a, b, conditions)), None)

    def without(self, *names: str) -> Noise:
        """Return the rules, of which those with the given ids or topics only name the topic and excuse nothing.

        Raises :class:`~qmigtool.errors.UsageError` for a name that no rule has.
        """
        lost = {name for name in names if not any(name in (rule.id, rule.topic) for rule in self.rules)}
        if lost:
            known = ", ".join(dict.fromkeys((*(r.topic for r in self.rules), *(r.id for r in self.rules))))
            raise UsageError(f"no noise rule {min(lost)!r}", expected=f"a topic or a rule: {known}")
        return Noise(tuple(replace(r, excuse=False) if r.id in names or r.topic in names else r for r in self.rules))

    def strict(self) -> Noise:
        """Return the same rules, changed so that they excuse nothing."""
        return Noise(tuple(replace(rule, excuse=False) for rule in self.rules))

    def ignoring(self, *patterns: str) -> Noise:
        """Return the rules with one more for each pattern before them, which excuses what the pattern matches.

        A pattern for a device or a field includes everything inside: ``hpet`` is every instance and field of it.
        """
        more = (
            NoiseRule(f"the pattern {one!r}", IGNORED, "the caller ignores it", fields=tuple(_inside(one)))
            for one in patterns
        )
        return Noise((*more, *self.rules))

    def extended(self, more: Noise) -> Noise:
        """Return these rules with others before them; one of the same name is replaced."""
        names = {rule.id for rule in more.rules}
        return Noise((*more.rules, *(rule for rule in self.rules if rule.id not in names)))


def _inside(pattern: str) -> Iterator[str]:
    yield from (pattern, f"{pattern}/*")
    if "@" not in pattern:
        yield from (f"{pattern}@*",)


@cache
def default_noise() -> Noise:
    """Return the rules that ship with the package."""
    return parse_noise(resources.files("qmigtool.diff").joinpath("noise.toml").read_text(encoding="utf-8"))


def load_noise(path: str | os.PathLike[str]) -> Noise:
    """Read rules from a TOML file; raises as :func:`~qmigtool.util.toml.load_toml` and :func:`parse_noise` do."""
    try:
        return _noise(load_toml(path))
    except UsageError as error:
        error.file = str(path)
        raise


def parse_noise(text: str) -> Noise:
    """Read rules from TOML text: an array ``rule`` of tables, whose keys are the fields of :class:`NoiseRule`.

    Raises :class:`~qmigtool.errors.UsageError` if the text is invalid.
    """
    return _noise(parse_toml(text, "a file of noise rules"))


def _noise(document: dict[str, Any]) -> Noise:
    rules = document.pop("rule", [])
    if document or not isinstance(rules, list):
        raise UsageError(f"unknown keys: {', '.join(document)}", expected="[[rule]] tables only")
    return Noise(tuple(_rule(entry, number) for number, entry in enumerate(rules, 1)))


_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("id", "topic", "why"), str),
    **dict.fromkeys(("fields", "types", "when", "keep"), list),
    **dict.fromkeys(("mask", "tolerance"), int),
    "bytes": dict,
    "excuse": bool,
}


def _rule(entry: Any, number: int) -> NoiseRule:
    if not isinstance(entry, dict):
        raise UsageError(f"rule {number} is not a table", expected="[[rule]]")
    where = f"rule {entry.get('id', number)!r}"
    values = {key: _value(where, key, value) for key, value in entry.items()}
    missing = [key for key in ("id", "topic", "why") if not values.get(key)]
    if missing or not (values.get("fields") or values.get("types")):
        raise UsageError(f"{where} has no {', '.join(missing) or 'fields or types'}")
    return NoiseRule(**values)


def _value(where: str, key: str, value: Any) -> Any:
    kind = _KINDS.get(key)
    if kind is None:
        raise UsageError(f"{where} has an unknown key {key!r}", expected="one of " + ", ".join(_KINDS))
    if type(value) is not kind:  # a bool is not a number
        raise UsageError(f"{where}: {key} is {value!r:.60}", expected=f"a {kind.__name__}")
    if isinstance(value, dict):
        return {_offset(where, place): _bits(where, mask) for place, mask in value.items()}
    if not isinstance(value, list):
        return value
    element = int if key == "keep" else str
    if any(type(one) is not element for one in value):
        raise UsageError(f"{where}: {key} is {value!r:.60}", expected=f"a list of {element.__name__}")
    unknown = [one for one in value if key == "when" and one not in CONDITIONS]
    if unknown:
        raise UsageError(f"{where}: when has {unknown[0]!r}", expected="some of " + ", ".join(CONDITIONS))
    return tuple(value)


def _offset(where: str, text: str) -> int:
    found = parse_number(text)
    if found is None:
        raise UsageError(f"{where}: bytes has the key {text!r:.60}", expected="a byte's offset, such as 0x0a")
    return found


def _bits(where: str, mask: Any) -> int:
    if type(mask) is not int or not 0 < mask <= 0xFF:
        raise UsageError(f"{where}: bytes has the mask {mask!r:.60}", expected="the bits that may differ, 1 to 0xff")
    return mask
