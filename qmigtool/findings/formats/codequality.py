"""Findings as a GitLab Code Quality report, which a merge request shows next to its diff.

The format is a subset of Code Climate's: ``description``, ``check_name``, ``fingerprint``, ``severity``, ``location``.
"""

from __future__ import annotations

from collections.abc import Sequence

from qmigtool.findings.model import Severity
from qmigtool.findings.report import Report, fingerprints, relative_path
from qmigtool.findings.text import sentence
from qmigtool.util.jsontext import json_document
from qmigtool.util.text import printable

__all__ = ["render"]

_SEVERITIES = {Severity.ERROR: "major", Severity.WARNING: "minor", Severity.NOTE: "info"}


def render(reports: Sequence[Report], _threshold: Severity = Severity.WARNING, _version: str = "") -> str:
    """Return the JSON: a list of issues."""
    issues = []
    for report in reports:
        for finding, fingerprint in fingerprints(report):
            issues.append(
                {
                    "description": printable(sentence(finding)),
                    "check_name": finding.rule,
                    "fingerprint": fingerprint,
                    "severity": _SEVERITIES[finding.severity],
                    # A stream has no lines, but GitLab requires one.
                    "location": {"path": printable(relative_path(report.file) or report.file), "lines": {"begin": 1}},
                }
            )
    return json_document(issues)
