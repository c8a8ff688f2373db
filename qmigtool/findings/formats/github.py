"""Findings as GitHub workflow commands: lines on a job's standard output that become annotations.

GitHub shows ten errors, ten warnings and ten notices of a step; the rest is only in its log.
Source: the runner's ``ActionCommand`` for the escapes.
"""

from __future__ import annotations

from collections.abc import Sequence

from qmigtool.findings.model import Severity
from qmigtool.findings.report import Report, relative_path
from qmigtool.findings.text import sentence
from qmigtool.util.text import printable

__all__ = ["render"]

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
# The percent sign first: the other escapes contain it.
_DATA = (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"))
_PROPERTY = (*_DATA, (":", "%3A"), (",", "%2C"))


def render(reports: Sequence[Report], _threshold: Severity = Severity.WARNING, _version: str = "") -> str:
    """Return one line for each finding, most severe first, so that GitHub drops the least severe."""
    found = []
    for report in reports:
        titles = {rule.id: rule.title for rule in report.rules}
        name = printable(relative_path(report.file) or report.file)
        for finding in report.findings:
            message = "\n".join(printable(part) for part in (sentence(finding), finding.reason) if part)
            title = printable(f"{titles.get(finding.rule, finding.rule)} [{finding.rule}]")
            properties = f"file={_escape(name, _PROPERTY)},title={_escape(title, _PROPERTY)}"
            found.append((finding.severity, f"::{_COMMANDS[finding.severity]} {properties}::{_escape(message, _DATA)}"))
    order = list(Severity)
    found.sort(key=lambda pair: order.index(pair[0]))
    return "".join(f"{line}\n" for _, line in found)


def _escape(text: str, escapes: tuple[tuple[str, str], ...]) -> str:
    for plain, escaped in escapes:
        text = text.replace(plain, escaped)
    return text
