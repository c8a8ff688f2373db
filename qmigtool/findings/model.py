"""One finding: what is wrong, where, and why it matters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Finding", "Severity"]


class Severity(StrEnum):
    """How much a finding matters; the values are SARIF's levels."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding of a rule at one place.

    ``rule`` is the rule's stable name (``xstate-bv-within-xcr0``). ``message`` describes the state, ``reason`` why it
    matters. ``device`` is a label (``cpu@0``), ``field`` a path inside it; ``offset`` and ``length`` count bytes of the
    stream. They are None for a finding about the whole stream.
    """

    rule: str
    severity: Severity
    message: str
    reason: str = ""
    device: str | None = None
    field: str | None = None
    offset: int | None = None
    length: int | None = None

    @property
    def where(self) -> str:
        """The place as a path: ``cpu@0/env.xcr0``, or empty."""
        return "/".join(part for part in (self.device, self.field) if part)

    def as_dict(self) -> dict[str, Any]:
        """Return the parts, as ``--json`` has them."""
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "message": self.message,
            "reason": self.reason,
            "device": self.device,
            "field": self.field,
            "offset": None if self.offset is None else f"{self.offset:#x}",
            "length": self.length,
        }
