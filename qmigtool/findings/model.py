"""One finding, one difference of two values, and the place that both have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Finding", "Located", "Severity", "ValueDifference", "Wide", "findings_html"]


class Severity(StrEnum):
    """How much a finding matters; the values are SARIF's levels."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Wide(int):
    """A register, a mask or an address among the values of a finding: JSON has it as a ``"0x..."`` string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """What has a place in a stream.

    ``device`` is a label (``cpu@0``), None for what belongs to no device; ``path`` leads to a field inside it, or is
    empty; ``offset`` counts bytes of the stream, None if the place is not at one offset.
    """

    device: str | None = None
    path: str = ""
    offset: int | None = None

    @property
    def where(self) -> str:
        """The place as a path: ``cpu@0/env.xcr0``, or empty."""
        return "/".join(part for part in (self.device, self.path) if part)


@dataclass(frozen=True, slots=True)
class Finding(Located):
    """The finding of a rule at one place: of a check, a preflight, a consumer of an XSAVE area, a rewrite.

    ``rule`` is the rule's stable name (``xstate-bv-within-xcr0``), or empty for a remark that no code looks for.
    ``message`` describes the state, ``reason`` why it matters. ``length`` counts bytes of the stream. ``values`` are
    the numbers and names that the message contains, for code that needs them: ``value`` is what was found there,
    ``expected`` what should be there; a register, mask or address is a :class:`Wide`. A sentence with the place is
    made by :func:`qmigtool.findings.text.sentence`, when it is printed.
    """

    rule: str
    severity: Severity
    message: str
    reason: str = ""
    length: int | None = field(default=None, kw_only=True)
    values: Mapping[str, Any] = field(default_factory=dict, kw_only=True, hash=False)

    def _repr_html_(self) -> str:
        return findings_html("finding", (self,))

    def as_dict(self) -> dict[str, Any]:
        """Return the parts, as ``--json`` has them."""
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "message": self.message,
            "reason": self.reason,
            "device": self.device,
            "field": self.path or None,
            "offset": self.offset,
            "length": self.length,
            "values": {name: _json(value) for name, value in self.values.items()},
        }


def _json(value: Any) -> Any:
    if isinstance(value, Wide):
        return f"{value:#x}"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple | set | frozenset):
        return [_json(one) for one in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueDifference(Located):
    """A place with two values: of streams A and B, of two descriptions, before and after an edit.

    ``a`` and ``b`` are the values, None where a side has none. :attr:`offset` is the place in A, ``offset_b`` that in
    B. ``rule`` is the stable name of the rule or edit that the difference belongs to; ``words`` is the meaning of the
    values, ``reason`` why they differ or why it matters.
    """

    a: Any = None
    b: Any = None
    offset_b: int | None = None
    rule: str = ""
    words: str = ""
    reason: str = ""


def findings_html(title: str, findings: Iterable[Finding], notes: Iterable[str] = ()) -> str:
    """Return findings as a table in HTML."""
    from qmigtool.util.html import html_table

    head = ("severity", "rule", "where", "offset", "message")
    lines = [
        (one.severity.value, one.rule, one.where, None if one.offset is None else f"{one.offset:#x}", one.message)
        for one in findings
    ]
    return html_table(title, head, lines, notes)
