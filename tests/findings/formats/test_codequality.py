"""GitLab's Code Quality."""

from __future__ import annotations

import json

from qmigtool.findings.formats import codequality
from tests.findings.reports import ALL, FINE


def test_codequality() -> None:
    issues = json.loads(codequality.render(ALL))
    assert len(issues) == 7
    assert issues[0]["description"] == "cpu@0/env.xcr0 at 0x81f9: XCR0 is 0x2"
    assert issues[0]["location"] == {"path": "streams/a.mig", "lines": {"begin": 1}}
    assert [issue["severity"] for issue in issues[:4]] == ["major", "major", "minor", "info"]
    assert len({issue["fingerprint"] for issue in issues}) == 7
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
    json.dumps(issues, ensure_ascii=False).encode("utf-8", "strict")
    assert json.loads(codequality.render((FINE,))) == []
