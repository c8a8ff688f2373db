"""Findings: what a judgement says about one place of a stream, and the formats that other programs read them in.

Knows nothing of streams or of who judges.

===========  =================================================================================
model        :class:`Finding`
report       :class:`Rule` and :class:`Report`: what was asked of a file, and what was found
text         lines for people
junit        JUnit XML, as Jenkins and GitLab read it
sarif        SARIF 2.1.0, as GitHub code scanning reads it
github       workflow commands: annotations of a GitHub Actions job
codequality  Code Quality JSON, as GitLab's merge requests show it
===========  =================================================================================
"""

from __future__ import annotations

from qmigtool.findings.model import Finding, Severity
from qmigtool.findings.report import Report, Rule

__all__ = ["Finding", "Report", "Rule", "Severity"]
