"""What the formats need in addition to the findings: the rules that ran, and the file they ran on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from qmigtool.findings.model import Finding, Severity, findings_html

__all__ = ["RANK", "Report", "Rule", "count", "file_uri", "fingerprints", "relative_path"]

RANK = {Severity.NOTE: 0, Severity.WARNING: 1, Severity.ERROR: 2}
"""Severities in ascending order."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A requirement on a stream.

    ``id`` is its stable name (``xcr0-legal``), ``title`` the requirement in one line, ``reason`` why it matters and
    where the fact comes from, ``severity`` that of its findings.
    """

    id: str
    severity: Severity
    title: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The findings in one file.

    ``broken``: the file could not be read to its end, or not at all. ``in_place``: the findings' offsets, which count
    bytes of the stream, are also offsets of the file: not in a container, or if it is compressed. ``opened`` is false
    for a file that was not read, for example one that does not exist.
    """

    file: str
    rules: tuple[Rule, ...]
    findings: tuple[Finding, ...]
    broken: bool = False
    in_place: bool = True
    opened: bool = True

    def _repr_html_(self) -> str:
        nothing = [] if self.findings else [f"nothing found by {len(self.rules)} rules"]
        return findings_html(self.file, self.findings, nothing)

    def of(self, rule: Rule) -> tuple[Finding, ...]:
        """Return the findings of one rule."""
        return tuple(finding for finding in self.findings if finding.rule == rule.id)


def count(reports: Iterable[Report]) -> dict[Severity, int]:
    """Return how many findings of each severity there are, most severe first."""
    found = Counter(finding.severity for report in reports for finding in report.findings)
    return {severity: found[severity] for severity in Severity}


def relative_path(file: str) -> str | None:
    """Return the path from the working directory, with ``/``; None for a path outside it."""
    try:
        return Path(file).absolute().relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):  # OSError: the working directory does not exist any more
        return None


def file_uri(file: str) -> str:
    """Return the URI of a file: relative to the working directory, or absolute (``file:``) outside it."""
    inside = relative_path(file)
    # quote() accepts bytes, and therefore also a name that is not UTF-8.
    if inside is not None:
        return quote(inside.encode("utf-8", "surrogateescape"), safe="/~!$&'()*+,;=@")
    return "file://" + quote(Path(file).absolute().as_posix().encode("utf-8", "surrogateescape"))


def fingerprints(report: Report) -> Iterator[tuple[Finding, str]]:
    """Yield each finding with a stable fingerprint.

    It consists of the file's path, the rule and the place, not of offsets or values, which change with every save. The
    second of several at one place is ``...:2``.
    """
    import hashlib  # only the formats for CI need it

    seen: Counter[str] = Counter()
    for finding in report.findings:
        parts = (file_uri(report.file), finding.rule, finding.device or "", finding.path)
        digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        seen[digest] += 1
        yield finding, f"{digest}:{seen[digest]}"
