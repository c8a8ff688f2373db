"""Findings: what a judgement says about one place of a stream, and the formats that other programs read them in.

Knows nothing of streams or of who judges.

===========  =================================================================================
model        :class:`Finding`
report       :class:`Rule` and :class:`Report`: what was asked of a file, and what was found
text         lines for people
formats/     what other programs read: JUnit, SARIF, annotations of GitHub, GitLab's Code Quality
===========  =================================================================================
"""

from __future__ import annotations

from qmigtool.findings.model import Finding, Severity
from qmigtool.findings.report import Report, Rule

__all__ = ["Finding", "Report", "Rule", "Severity"]
