"""The man page: made of the commands, up to date, and without warnings of `man`."""

import importlib.metadata
import os
import subprocess
import sys

import pytest

from qmigtool.cli.manpage import _text, manpage
from tests.cli.shared.test_helptext import LEAVES, find
from tests.support.paths import ROOT

PAGE = ROOT / "qmigtool" / "cli" / "qmigtool.1"
CLICK = tuple(map(int, importlib.metadata.version("click").split(".")[:2]))


@pytest.mark.skipif(CLICK < (8, 2), reason="click before 8.2 words help otherwise")
def test_it_is_up_to_date():
    # In a process of its own: click remembers a command's help option from its first use, here perhaps without `-h`.
    made = subprocess.run(
        [sys.executable, "-m", "qmigtool.cli.manpage"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert made.stdout == PAGE.read_text(), "python -m qmigtool.cli.manpage > qmigtool/cli/qmigtool.1"


def test_every_command_is_in_it():
    page = manpage()
    for path in LEAVES:
        assert f'.SS "{_text(f"qmigtool {path}")} ' in page
        for line in find(path).examples:
            assert f"\n{_text(line)}\n" in page


@pytest.mark.parametrize(
    ("text", "escaped"),
    [(".TH", r"\&.TH"), ("'x", r"\(aqx"), ("a-b", r"a\-b"), ("a\\b", r"a\eb"), ('"', r"\(dq"), ("a\n.b", "a\n\\&.b")],
)
def test_text_is_never_a_request(text, escaped):
    assert _text(text) == escaped


@pytest.mark.needs("man")
def test_man_has_no_warnings():
    done = subprocess.run(
        ["man", "--warnings", "-l", str(PAGE)],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANROFFSEQ": "", "MAN_KEEP_FORMATTING": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "--upgrade-machine NAME" in done.stdout
