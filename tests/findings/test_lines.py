"""GitHub's workflow commands, GitLab's Code Quality, and lines for people."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from urllib.parse import unquote

from qmigtool.findings import Finding, Report, Severity, text
from qmigtool.findings.formats import codequality, github
from tests.findings.reports import ALL, BROKEN, EVIL, FINE, PLAIN, RULES

COMMAND = re.compile(r"::(error|warning|notice) file=([^:,]*),title=([^:,]*)::(.*)")


def commands(*reports: Report) -> list[tuple[str, ...]]:
    """What the runner reads: commands at the start of a line, percent escapes undone."""
    lines = github.render(reports).splitlines()
    found = [COMMAND.fullmatch(line) for line in lines]
    assert all(found)
    return [tuple(map(unquote, match.groups())) for match in found if match]


def test_github() -> None:
    first, *rest = commands(PLAIN)
    assert first == (
        "error",
        "streams/a.mig",
        "XCR0 is legal [xcr0-legal]",
        "cpu@0/env.xcr0 at 0x81f9: XCR0 is 0x2\nA CPU refuses it (SDM <volume 1>, 13.3 & others).",
    )
    assert [command[0] for command in rest] == ["error", "warning", "notice"]
    assert rest[1][3] == "hpet@0 at 0x99: is odd: 100%, really\nIt may be lost."
    assert github.render((FINE,)) == ""


def test_github_has_the_heaviest_first() -> None:
    assert [command[0] for command in commands(EVIL, PLAIN, BROKEN)] == ["error"] * 3 + ["warning"] * 3 + ["notice"]


def test_github_escapes() -> None:
    line = github.render((EVIL,)).splitlines()[0]
    assert line.startswith("::warning file=streams/e v#i?l%25.mig,title=Nothing is odd [odd-thing]::")
    assert not re.search("[\x00-\x1f]", line)
    assert len(github.render((EVIL,)).splitlines()) == 2
    commas = Report("a,b:c.mig", RULES, (Finding("odd-thing", Severity.NOTE, "x"),))
    assert github.render((commas,)).startswith("::notice file=a%2Cb%3Ac.mig,title=")


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
