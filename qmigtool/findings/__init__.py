"""Findings: statements about one place of a stream, and the formats in which other programs read them.

Independent of streams and of the rules that make findings.

===========  =================================================================================
model        :class:`Finding`, :class:`ValueDifference`, and the :class:`Located` that both have
report       :class:`Rule` and :class:`Report`: the rules applied to a file, and their findings
text         lines for people
formats/     formats for other programs: JUnit, SARIF, GitHub annotations, GitLab's Code Quality
===========  =================================================================================

A check, the losses and remarks of a preflight, the consumers of an XSAVE area and the losses and notes of a rewrite are
findings. These are something else:

- an error (:mod:`qmigtool.errors`) is raised where reading ends, also without a rule; a check makes a finding of it;
- the verdict of a preflight has the lines that QEMU prints, which depend on its version;
- the notes of a comparison, of an XSAVE conversion and of an area are about the whole of it, and no code looks for one.

The differences of two streams, of two descriptions and of a rewrite are a :class:`ValueDifference`.
"""

from __future__ import annotations

from qmigtool.findings.model import Finding, Located, Severity, ValueDifference
from qmigtool.findings.report import Report, Rule

__all__ = ["Finding", "Located", "Report", "Rule", "Severity", "ValueDifference"]
