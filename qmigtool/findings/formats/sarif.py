"""Findings as SARIF 2.1.0 (OASIS), with what GitHub code scanning needs to show them.

A place in a stream is a binary region (``byteOffset``, ``byteLength``). GitHub refuses a result whose region has no
line, so every region is also line 1, column 1: text and binary properties of a region are independent of each other
(SARIF 2.1.0, 3.30.4). The place by name is a logical location. GitHub identifies a known alert
by ``primaryLocationLineHash``, which it would compute from the text of the line; a stream has none, so it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qmigtool.findings.model import Finding, Severity
from qmigtool.findings.report import Report, Rule, file_uri, fingerprints, relative_path
from qmigtool.util.jsontext import json_document
from qmigtool.util.text import printable

__all__ = ["SCHEMA", "render"]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT = "%SRCROOT%"
# GitHub sorts alerts by this, for rules that are not about security.
_PROBLEM = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "recommendation"}
MAX_BYTES = (1 << 63) - 1  # readers keep offsets in a signed word


def render(reports: Sequence[Report], _threshold: Severity = Severity.WARNING, version: str = "") -> str:
    """Return the JSON: one run of qmigtool ``version`` over all files."""
    rules = _rules(reports)
    index = {rule.id: number for number, rule in enumerate(rules)}
    run = {
        "tool": {
            "driver": {
                "name": "qmigtool",
                "fullName": f"qmigtool {version}",
                "version": version,
                "semanticVersion": version,
                "shortDescription": {"text": "Checks QEMU migration streams."},
                "rules": [_rule(rule) for rule in rules],
            }
        },
        "automationDetails": {"id": "qmigtool/check/"},
        "invocations": [{"executionSuccessful": True}],
        "originalUriBaseIds": {ROOT: {"description": {"text": "The directory in which qmigtool was run."}}},
        "artifacts": [
            {"location": _artifact(report, number), "roles": ["analysisTarget"], "mimeType": "application/octet-stream"}
            for number, report in enumerate(reports)
        ],
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(report, number, index, finding, fingerprint)
            for number, report in enumerate(reports)
            for finding, fingerprint in fingerprints(report)
        ],
    }
    return json_document({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _rules(reports: Iterable[Report]) -> list[Rule]:
    """Return every rule once, in the order in which they ran."""
    return list({rule.id: rule for report in reports for rule in report.rules}.values())


def _rule(rule: Rule) -> dict[str, Any]:
    text = rule.reason or rule.title
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.id.replace(":", "-").split("-")),
        "shortDescription": {"text": _stop(rule.title)},
        "fullDescription": {"text": _stop(text)},
        "help": {"text": f"{_stop(rule.title)}\n\n{_stop(text)}", "markdown": f"**{_stop(rule.title)}**\n\n{text}"},
        "defaultConfiguration": {"level": rule.severity.value},
        "properties": {"tags": ["qemu", "migration"], "problem.severity": _PROBLEM[rule.severity]},
    }


def _stop(text: str) -> str:
    """End a text as a sentence."""
    return text if text.endswith((".", "!", "?", ")")) else f"{text}."


def _artifact(report: Report, number: int) -> dict[str, Any]:
    location: dict[str, Any] = {"uri": file_uri(report.file), "index": number}
    if relative_path(report.file) is not None:
        location["uriBaseId"] = ROOT
    return location


def _result(report: Report, number: int, index: dict[str, int], finding: Finding, fingerprint: str) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": _artifact(report, number),
            "region": _region(finding, in_place=report.in_place),
        }
    }
    if finding.where:
        location["logicalLocations"] = [
            {
                "name": printable(finding.path or finding.device or ""),
                "fullyQualifiedName": printable(finding.where),
                "kind": "member" if finding.path else "module",
            }
        ]
    message = f"{finding.where}: {finding.message}" if finding.where else finding.message
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": finding.severity.value,
        "message": {"text": _stop(printable(message))},
        "locations": [location],
        "partialFingerprints": {"primaryLocationLineHash": fingerprint, "qmigtoolPlace/v1": fingerprint},
    }
    if finding.rule in index:
        result["ruleIndex"] = index[finding.rule]
    if finding.offset is not None:
        result["properties"] = {"streamOffset": f"{finding.offset:#x}"}
    return result


def _region(finding: Finding, *, in_place: bool) -> dict[str, int]:
    region = {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 1}
    if in_place and finding.offset is not None and finding.offset <= MAX_BYTES:
        region["byteOffset"] = finding.offset
        region["byteLength"] = finding.length or 0
    return region
