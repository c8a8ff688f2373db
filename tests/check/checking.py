"""What the tests of rules share: real streams with bytes changed, and what the rules say of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import qmigtool
from qmigtool import Rewriter
from qmigtool.check import Policy, findings_of
from qmigtool.check.policy import read_policy
from qmigtool.findings import Finding
from tests.rewrite.editing import rewritten
from tests.support import packedsamples, samplefiles

Source = Path | bytes


@functools.cache
def sample(name: str) -> bytes:
    return samplefiles.read(name) if name in samplefiles.NAMES else packedsamples.read(name)


def poked(name: str, values: dict[str, int | bytes]) -> bytes:
    """A sample with other bytes in its fields: numbers are written big-endian, in as many bytes as the field has."""
    data = bytearray(sample(name))
    with qmigtool.open(sample(name)) as stream:
        for path, value in values.items():
            field = stream.field(path)
            raw = value if isinstance(value, bytes) else (value % (1 << 8 * field.length)).to_bytes(field.length, "big")
            assert len(raw) == field.length
            data[field.offset : field.offset + field.length] = raw
    return bytes(data)


def edited(name: str, *edits: Callable[[Rewriter], None]) -> bytes:
    return rewritten(sample(name), *edits).data


def found(
    source: Source,
    policy: str | Policy | None = None,
    *,
    accelerator: str | None = None,
    channels: Iterable[Path] = (),
    baseline: Source | None = None,
) -> tuple[Finding, ...]:
    asked = read_policy(policy) if isinstance(policy, str) else policy
    with qmigtool.open(source, accelerator=accelerator, channels=list(channels)) as stream:
        if baseline is None:
            return findings_of(stream, asked)
        with qmigtool.open(baseline) as old:
            return findings_of(stream, asked, baseline=old)


def places(findings: Iterable[Finding], rule: str) -> list[tuple[str, str]]:
    """(severity, place) of a rule's findings."""
    return [(finding.severity.value, finding.where) for finding in findings if finding.rule == rule]
