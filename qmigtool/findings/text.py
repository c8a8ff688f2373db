"""Findings as lines for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from textwrap import wrap
from typing import NamedTuple

from qmigtool.findings.model import Finding, Severity
from qmigtool.findings.report import Report, count
from qmigtool.util.text import printable

__all__ = ["REASON", "ReportLine", "lines", "place", "sentence", "summary"]

WIDTH = max(map(len, Severity))
REASON = 96  # columns of a reason, which is prose
LEAST = 20


class ReportLine(NamedTuple):
    """One line: the severity that it starts with, or None, and the text after it."""

    severity: Severity | None
    text: str

    def shown(self, style: Callable[[str, Severity], str] = lambda word, _: word) -> str:
        """Return the line; ``style`` colours the word of the severity."""
        if self.severity is None:
            return self.text
        room = " " * (WIDTH - len(self.severity.value))
        return f"  {style(self.severity.value, self.severity)}{room}  {self.text}"


def lines(reports: Sequence[Report], width: int | None = None) -> Iterator[ReportLine]:
    """Yield the findings by file and rule, then one line with a summary.

    ``width`` is that of a terminal: lines are folded at words. Without it findings are not folded, so that they can be
    searched. Names from the files are not escaped: the caller that prints a line must escape it.
    """
    for number, report in enumerate(reports):
        if number and (report.findings or reports[number - 1].findings):
            yield ReportLine(None, "")
        yield from _file(report, width)
    if len(reports) != 1 or reports[0].findings:
        yield ReportLine(None, "")
        yield ReportLine(None, summary(reports))


def _file(report: Report, width: int | None) -> Iterator[ReportLine]:
    if not report.findings:
        yield ReportLine(None, f"{report.file}: nothing found by {len(report.rules)} rules")
        return
    yield ReportLine(None, f"{report.file}:")
    indent = " " * (WIDTH + 4)
    room = REASON if width is None else max(width - len(indent), LEAST)
    for rule in report.rules:
        found = report.of(rule)
        for finding in found:
            first, *more = [sentence(finding)] if width is None else _folded(printable(sentence(finding)), room)
            yield ReportLine(finding.severity, first)
            for line in more:
                yield ReportLine(None, indent + line)
        if found:
            for line in _folded(f"{found[0].reason} [{rule.id}]".strip(), room):
                yield ReportLine(None, indent + line)


def _folded(text: str, room: int) -> list[str]:
    return wrap(text, room, break_long_words=False, break_on_hyphens=False) or [text]


def sentence(finding: Finding) -> str:
    """Return the place and the message of a finding."""
    where = place(finding)
    return f"{where}: {finding.message}" if where else finding.message


def place(finding: Finding) -> str:
    """Return where a finding is: ``cpu@0/env.xcr0 at 0x81f9``, or an empty string."""
    at = "" if finding.offset is None else f"at {finding.offset:#x}"
    return " ".join(part for part in (finding.where, at) if part)


def summary(reports: Sequence[Report]) -> str:
    """Return a summary in one line."""
    found = [_several(number, severity.value) for severity, number in count(reports).items() if number]
    rules = max((len(report.rules) for report in reports), default=0)
    return f"{_several(len(reports), 'file')}, {_several(rules, 'rule')}: {', '.join(found) or 'nothing found'}"


def _several(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
