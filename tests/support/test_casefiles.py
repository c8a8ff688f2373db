"""The cases and their manifest."""

import re

from tests.support import casefiles


def test_the_manifest_is_the_folder() -> None:
    text = (casefiles.CASES / "MANIFEST.md").read_text(encoding="utf-8")
    told = []
    for heading, rows in re.findall(r"^## (\w+): [^\n]*\n(.*?)(?=^## |\Z)", text, re.M | re.S):
        cells = re.findall(r"^\| (`[^|]*) \|", rows, re.M)
        told += [f"{heading}/{name}" for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    found = [path.relative_to(casefiles.CASES).as_posix() for path in casefiles.CASES.glob("*/*")]
    assert sorted(told) == sorted(found)
