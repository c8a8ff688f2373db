"""Findings: what a judgement says about one place of a stream, and the formats that other programs read them in.

Knows nothing of streams or of who judges.

=======  =====================================================================================
model    :class:`Finding`
=======  =====================================================================================
"""

from __future__ import annotations

from qmigtool.findings.model import Finding, Severity

__all__ = ["Finding", "Severity"]
