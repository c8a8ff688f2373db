"""GitHub's workflow commands."""

from __future__ import annotations

import re
from urllib.parse import unquote

from qmigtool.findings import Finding, Report, Severity
from qmigtool.findings.formats import github
from tests.findings.reports import BROKEN, EVIL, FINE, PLAIN, RULES

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
