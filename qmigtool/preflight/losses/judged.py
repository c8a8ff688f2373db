"""The result of one check for losses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qmigtool.preflight.remark import remark

if TYPE_CHECKING:
    from qmigtool.findings import Finding

__all__ = ["Judged"]


@dataclass(slots=True)
class Judged:
    """Findings, and what could not be checked: ``doubts`` where this stream may lose something, else ``unknown``."""

    findings: list[Finding] = field(default_factory=list)
    unknown: list[Finding] = field(default_factory=list)
    doubts: list[Finding] = field(default_factory=list)

    def doubt(self, text: str, **values: Any) -> None:
        """Add what could not be checked and may cost this stream some state."""
        self.doubts.append(remark(text, **values))

    def miss(self, text: str) -> None:
        """Add what else could not be checked."""
        self.unknown.append(remark(text))
