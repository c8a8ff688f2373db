"""Findings as JUnit XML: a testsuite per file, a testcase per rule, also for rules without findings.

The format is the one that Jenkins' ``junit-10.xsd`` describes and GitLab reads. It has no warnings: findings below the
threshold are in the ``system-out`` of a testcase that passed. A rule's findings are one failure, because readers show
only the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from xml.etree import ElementTree

from qmigtool.findings.model import Finding, Severity
from qmigtool.findings.report import RANK, Report, Rule
from qmigtool.findings.text import REASON, sentence
from qmigtool.util.text import printable

__all__ = ["UNREADABLE", "render"]

UNREADABLE = "stream-readable"
"""The rule whose findings are errors in JUnit's sense, not failures."""


def render(reports: Sequence[Report], threshold: Severity = Severity.WARNING, _version: str = "") -> str:
    """Return the XML; findings from ``threshold`` up are failures."""
    root = ElementTree.Element("testsuites", name="qmigtool check")
    for report in reports:
        suite = ElementTree.SubElement(root, "testsuite", name=printable(report.file))
        for rule in report.rules:
            _testcase(suite, report, rule, threshold)
        _count(suite, suite.findall("testcase"))
    _count(root, root.findall("testsuite/testcase"))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _count(element: ElementTree.Element, cases: list[ElementTree.Element]) -> None:
    """Write the number of tests, failures and errors, in the usual order."""
    element.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    element.set("time", "0")


def _testcase(suite: ElementTree.Element, report: Report, rule: Rule, threshold: Severity) -> None:
    name = printable(report.file)
    case = ElementTree.SubElement(suite, "testcase", classname=name, name=printable(rule.id), file=name, time="0")
    found = report.of(rule)
    grave = [finding for finding in found if RANK[finding.severity] >= RANK[threshold]]
    slight = [finding for finding in found if RANK[finding.severity] < RANK[threshold]]
    if grave:
        worst = max(grave, key=lambda finding: RANK[finding.severity]).severity
        tag = "error" if rule.id == UNREADABLE else "failure"
        more = f" (and {len(grave) - 1} more)" if len(grave) > 1 else ""
        message = printable(sentence(grave[0]) + more)
        failure = ElementTree.SubElement(case, tag, message=message, type=worst.value)
        failure.text = _body(rule, grave)
    if slight:
        ElementTree.SubElement(case, "system-out").text = _body(rule, slight)


def _body(rule: Rule, found: Sequence[Finding]) -> str:
    listed = [f"{finding.severity.value}: {sentence(finding)}" for finding in found]
    # Readers show it unchanged: prose is folded, findings are not, so that they can be searched.
    reason = wrap(found[0].reason, REASON, break_long_words=False)
    return "\n".join(map(printable, [rule.title, "", *listed, "", *reason])).rstrip() + "\n"
