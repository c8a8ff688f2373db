"""Run the rules of a policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from qmigtool.check.policy import OFF, default_policy
from qmigtool.check.rule import Context, finding
from qmigtool.check.rules import RULES
from qmigtool.check.rules.container import READABLE, SUPPORTED, problem
from qmigtool.errors import QmigError, UnsupportedError, UsageError
from qmigtool.findings import Finding, Report, Rule, Severity

if TYPE_CHECKING:
    from qmigtool.check.policy import Policy
    from qmigtool.stream.model import Stream

__all__ = ["findings_of", "report", "unreadable"]

MAX_FINDINGS = 5000  # of one rule; a broken stream may have more of the same kind, and GitHub shows no more


def findings_of(stream: Stream, policy: Policy | None = None, *, baseline: Stream | None = None) -> tuple[Finding, ...]:
    """Return what the rules of ``policy`` (default: the default policy) find in a stream, in the order of the rules.

    ``baseline``: the stream that the rule of that name compares with. A broken stream does not raise; it is a finding.
    """
    asked = default_policy() if policy is None else policy
    stream.prove()
    context = Context(stream, baseline)
    found: dict[str, list[Finding]] = {}
    # Run last: the other rules may meet the errors that it reports.
    late = (READABLE.id, SUPPORTED.id)
    asked_for = _rules(asked, baseline)
    fields = {field.id: field for field in asked.fields}
    for rule in sorted(asked_for, key=lambda rule: rule.id in late):
        if rule.id in RULES:
            made = RULES[rule.id].check(context, asked.settings[rule.id].options)
        else:
            made = fields[rule.id].findings(context)
        found[rule.id] = _findings(rule, made, stream)
    return tuple(finding for rule in asked_for for finding in found[rule.id])


def _rules(policy: Policy, baseline: Stream | None) -> tuple[Rule, ...]:
    """Return the rules of a policy that have something to check."""
    return tuple(rule for rule in policy.rules if rule.id != "baseline" or baseline is not None)


def _findings(rule: Rule, made: Iterator[Finding], stream: Stream) -> list[Finding]:
    findings = []
    try:
        for one in islice(made, MAX_FINDINGS + 1):
            findings.append(_of(rule, one))
    except UsageError:
        raise
    except QmigError as error:
        stream.report(error)
    if len(findings) > MAX_FINDINGS:
        findings[MAX_FINDINGS:] = [_of(rule, finding(f"more than {MAX_FINDINGS} of these; the others are not listed"))]
    return findings


def _of(rule: Rule, found: Finding) -> Finding:
    """Return a finding with the name, severity and reason of its rule."""
    return replace(found, rule=rule.id, severity=rule.severity, reason=rule.reason)


def report(file: str, stream: Stream, policy: Policy | None = None, *, baseline: Stream | None = None) -> Report:
    """Return :func:`findings_of` a stream with the other data that the formats of :mod:`qmigtool.findings` need."""
    asked = default_policy() if policy is None else policy
    findings = findings_of(stream, asked, baseline=baseline)
    broken = any(not isinstance(error, UnsupportedError) for error in stream.problems)
    return Report(file, _rules(asked, baseline), findings, broken, stream.container.in_place)


def unreadable(file: str, error: QmigError, policy: Policy | None = None) -> Report:
    """Return the report of a file that could not be opened: ``error`` is its only finding, no other rule ran.

    A :class:`~qmigtool.errors.UsageError` means that its bytes were not read, for example because it does not exist.
    """
    asked = default_policy() if policy is None else policy
    spec = SUPPORTED if isinstance(error, UnsupportedError) else READABLE
    severity = asked.settings[spec.id].severity
    opened = not isinstance(error, UsageError)
    reason = spec.reason if opened else "It could not be opened, so no rule was applied to it."
    rule = Rule(spec.id, Severity.NOTE if severity == OFF else Severity(severity), spec.title, reason)
    return Report(file, (rule,), (_of(rule, problem(error)),), spec is READABLE, opened=opened)
