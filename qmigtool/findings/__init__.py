"""Findings: statements about one place of a stream, and the formats in which other programs read them.

Independent of streams and of the rules that make findings.

===========  =================================================================================
model        :class:`Finding`, :class:`ValueDifference`, and the :class:`Located` that both have
report       :class:`Rule` and :class:`Report`: the rules applied to a file, and their findings
text         lines for people
formats/     formats for other programs: JUnit, SARIF, GitHub annotations, GitLab's Code Quality
===========  =================================================================================
"""

from __future__ import annotations

from qmigtool.findings.model import Finding, Located, Severity, ValueDifference
from qmigtool.findings.report import Report, Rule

__all__ = ["Finding", "Located", "Report", "Rule", "Severity", "ValueDifference"]
