"""A remark of a preflight: a doubt, an unknown, or a note. It is a finding that no severity is given to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qmigtool.findings import Finding, Severity
from qmigtool.findings.text import sentence

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MEASURED", "condensed", "remark"]

MEASURED = "measured with QEMU 7.2, 10.0 and 11.1"
"""How a rule of the loader is known, where real QEMU of each of these versions showed it."""

SHOWN = 3  # sections that are named in one line


def remark(text: str, device: str = "", rule: str = "", **values: Any) -> Finding:
    """Make a remark on a section, or on the whole stream; ``device`` is the label of the section (``timer@0``).

    ``rule`` is the stable name of a remark that other code looks for, ``values`` the values of the finding.
    """
    return Finding(rule, Severity.NOTE, text, device=device or None, values=values)


def condensed(remarks: Iterable[Finding]) -> list[str]:
    """Join equal remarks on several sections into one line: ``timer@0, cpu@0, cpu@1 and 39 more: ...``."""
    devices: dict[str, list[str]] = {}
    for one in remarks:
        where = devices.setdefault(one.message, [])
        where += [one.device] if one.device else []
    return [sentence(remark(text, _several(where))) for text, where in devices.items()]


def _several(where: list[str]) -> str:
    more = f" and {len(where) - SHOWN} more" if len(where) > SHOWN else ""
    return f"{', '.join(where[:SHOWN])}{more}"
