"""The rules of a policy, applied to a stream."""

from __future__ import annotations

import pytest

import qmigtool
from qmigtool.check import findings_of
from tests.check.checking import found, sample
from tests.check.rules.cases import PC
from tests.support import samplefiles


def test_findings_of_one_rule_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmigtool.check.engine.MAX_FINDINGS", 100)
    policy = '[[field]]\npath = "cpu@*/*"\nequals = "nothing is this"\nid = "all"'
    findings = [finding for finding in found(sample(PC), policy) if finding.rule == "all"]
    assert len(findings) == 101
    assert "not listed" in findings[-1].message


def test_a_pipe_that_kept_no_records_is_not_blamed() -> None:
    with samplefiles.path(PC).open("rb") as pipe, qmigtool.open(pipe) as stream:
        assert [finding.rule for finding in findings_of(stream)] == ["xcr0-equal"]
