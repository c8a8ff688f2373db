"""Findings in lines for people."""

from __future__ import annotations

from dataclasses import replace

from qmigtool.findings import Severity, text
from tests.findings.reports import FINE, PLAIN


def test_text() -> None:
    lines = [(line.severity, line.shown()) for line in text.lines((PLAIN, FINE))]
    assert lines[:6] == [
        (None, "streams/a.mig:"),
        (Severity.ERROR, "  error    cpu@0/env.xcr0 at 0x81f9: XCR0 is 0x2"),
        (Severity.ERROR, "  error    cpu@1/env.xcr0 at 0x91f9: XCR0 is 0x4"),
        (None, "           A CPU refuses it (SDM <volume 1>, 13.3 & others). [xcr0-legal]"),
        (Severity.WARNING, "  warning  hpet@0 at 0x99: is odd: 100%, really"),
        (None, "           It may be lost. [odd-thing]"),
    ]
    assert lines[6:] == [
        (Severity.NOTE, "  note     there is no vmdesc"),
        (None, "           [noted]"),
        (None, ""),
        (None, "streams/fine.mig: nothing found by 4 rules"),
        (None, ""),
        (None, "2 files, 4 rules: 2 errors, 1 warning, 1 note"),
    ]


def test_the_severity_is_coloured_where_it_is_and_nowhere_else() -> None:
    report = replace(PLAIN, findings=(replace(PLAIN.findings[0], message="an error is an error"),))
    shown = [line.shown(lambda word, severity: f"<{word}:{severity}>") for line in text.lines((report,))]
    assert shown[1] == "  <error:error>    cpu@0/env.xcr0 at 0x81f9: an error is an error"


def test_text_of_one_fine_file_is_one_line() -> None:
    assert list(text.lines((FINE,))) == [(None, "streams/fine.mig: nothing found by 4 rules")]


def test_text_of_many_fine_files_sums_up() -> None:
    assert [line.shown() for line in text.lines((FINE, FINE))] == [
        *["streams/fine.mig: nothing found by 4 rules"] * 2,
        "",
        "2 files, 4 rules: nothing found",
    ]
