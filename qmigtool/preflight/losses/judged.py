"""What one judge of losses has found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmigtool.findings import Finding

__all__ = ["Judged"]


@dataclass(slots=True)
class Judged:
    """Findings, and what could not be judged: ``doubts`` where this stream may lose something, else ``unknown``."""

    findings: list[Finding] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
