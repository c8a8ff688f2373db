"""JUnit XML, read by junitparser and as plain XML."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from junitparser import Error, Failure, JUnitXml

from qmigtool.findings import Report, Severity
from qmigtool.findings.formats import junit
from tests.findings.reports import ALL, BROKEN, EVIL, FINE, PLAIN, RULES


def read(*reports: Report, threshold: Severity = Severity.WARNING) -> JUnitXml:
    return JUnitXml.fromstring(junit.render(reports, threshold).encode())


def test_a_suite_for_each_file_and_a_test_for_each_rule() -> None:
    suites = list(read(*ALL))
    assert [suite.name for suite in suites] == [report.file for report in ALL]
    assert [case.name for case in suites[1]] == [rule.id for rule in RULES]
    assert all(case.is_passed for case in suites[1])
    assert [case.name for case in suites[2]] == ["stream-readable"]


@pytest.mark.parametrize(
    ("threshold", "failed"),
    [
        (Severity.ERROR, ["xcr0-legal"]),
        (Severity.WARNING, ["xcr0-legal", "odd-thing"]),
        (Severity.NOTE, ["xcr0-legal", "odd-thing", "noted"]),
    ],
)
def test_what_fails_is_what_weighs_enough(threshold: Severity, failed: list[str]) -> None:
    (suite,) = read(PLAIN, threshold=threshold)
    assert [case.name for case in suite if not case.is_passed] == failed
    assert (suite.tests, suite.failures, suite.errors) == (4, len(failed), 0)
    passed = {case.name: case.system_out for case in suite if case.is_passed}
    assert all((text is not None) == (name in ("odd-thing", "noted")) for name, text in passed.items())


def test_a_failure_tells_everything() -> None:
    (suite,) = read(PLAIN)
    case = next(case for case in suite if case.name == "xcr0-legal")
    (failure,) = case.result
    assert isinstance(failure, Failure)
    assert failure.type == "error"
    assert failure.message == "cpu@0/env.xcr0 at 0x81f9: XCR0 is 0x2 (and 1 more)"
    assert failure.text == (
        "XCR0 is legal\n\n"
        "error: cpu@0/env.xcr0 at 0x81f9: XCR0 is 0x2\nerror: cpu@1/env.xcr0 at 0x91f9: XCR0 is 0x4\n\n"
        "A CPU refuses it (SDM <volume 1>, 13.3 & others).\n"
    )


def test_a_file_that_cannot_be_read_is_an_error() -> None:
    (suite,) = read(BROKEN)
    assert (suite.tests, suite.failures, suite.errors) == (1, 0, 1)
    (case,) = suite
    assert isinstance(case.result[0], Error)


def test_sums() -> None:
    xml = read(*ALL)
    assert (xml.tests, xml.failures, xml.errors) == (13, 3, 1)
    assert read(FINE).failures == 0
    assert read().tests == 0


def test_hostile_names() -> None:
    text = junit.render((EVIL,))
    assert ElementTree.fromstring(text.encode("utf-8", "strict")).tag == "testsuites"  # noqa: S314 - our own
    (suite,) = read(EVIL)
    (failure,) = next(case for case in suite if case.name == "odd-thing").result
    assert 'x"<&>\\x00\\x1b[1m\\n::error::\\ud800\\ufffe is odd' in failure.message
    assert len(failure.text.splitlines()) == 6
