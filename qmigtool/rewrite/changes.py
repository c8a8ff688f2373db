"""Record of what a rewrite changes: one :class:`Change` for each thing, in the order made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qmigtool.findings import Finding, ValueDifference
from qmigtool.findings.text import sentence

__all__ = ["Change", "as_text", "told"]

SHOWN = 32  # bytes of a long value
SHOWN_IN_JSON = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(ValueDifference):
    """One thing that differs between the source and the output.

    ``rule`` is the name of the edit, or of the rule of a conversion (``x87-to-stack``). ``device`` is the label of the
    section that changed (``cpu@0``) and ``path`` a field inside it, or empty; without a device ``path`` names another
    part of the stream: ``configuration/machine``, a RAM block. ``offset`` is its place in the source, None for what is
    added. ``a`` is the value before the edit, ``b`` the value after it, decoded; None where there is none.
    """

    @property
    def edit(self) -> str:
        """The name of the edit."""
        return self.rule

    @property
    def old(self) -> Any:
        """The value before the edit."""
        return self.a

    @property
    def new(self) -> Any:
        """The value after the edit."""
        return self.b

    def as_dict(self) -> dict[str, Any]:
        """Return the parts as ``--json`` prints them."""
        return {
            "edit": self.edit,
            "where": self.where,
            "offset": self.offset,
            "old": None if self.old is None else as_text(self.old, shown=SHOWN_IN_JSON),
            "new": None if self.new is None else as_text(self.new, shown=SHOWN_IN_JSON),
            "why": self.reason or None,
        }


def told(one: Finding) -> str:
    """Return a loss or a note of a rewrite as a sentence; the rule of a conversion follows in parentheses."""
    return f"{sentence(one)} ({one.rule})" if one.rule else sentence(one)


def as_text(value: Any, *, shown: int | None = SHOWN) -> str:
    """Write a value: numbers in hexadecimal, bytes as hex digits (the first ``shown`` of them), lists of both."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:#x}"
    if isinstance(value, bytes):
        return value.hex() if shown is None or len(value) <= shown else f"{value[:shown].hex()}... {len(value)} bytes"
    if isinstance(value, (list, tuple)):
        most = len(value) if shown is None else max(1, shown // 4)  # about as wide as ``shown`` bytes
        some = value if len(value) <= most + 1 else value[:most]
        more = "" if len(some) == len(value) else f" ... {len(value)} elements"
        return "[" + " ".join(as_text(one, shown=shown) for one in some) + more + "]"
    return str(value)
