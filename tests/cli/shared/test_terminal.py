"""Output for a terminal: colours, the pager, messages."""

import os
import pty
import re
import subprocess
import sys

import pytest

from qmigtool.cli.main import run
from tests.cli.shared.terminals import PC, TABLES, names, printed
from tests.support import samplefiles
from tests.support.paths import ROOT

COLOURED = [TABLES[0], TABLES[2], TABLES[3], TABLES[8], TABLES[10]]


@pytest.mark.parametrize("arguments", COLOURED, ids=names)
def test_colours(arguments, capsys, monkeypatch):
    plain = printed(capsys, *arguments)
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    found = printed(capsys, *arguments)
    assert re.sub(r"\x1b\[\d+m", "", found) == plain
    if arguments[0] != "info":  # nothing is wrong with it
        assert re.search(r"\x1b\[3[1-6]m", found)
    monkeypatch.setenv("NO_COLOR", "1")
    assert printed(capsys, *arguments) == plain
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "0")
    assert printed(capsys, *arguments) == plain


def on_a_terminal(*arguments, **environment):
    """Run the program with a terminal of 24 lines and 80 columns: (what it shows, exit status)."""
    leader, follower = pty.openpty()
    shown = b""
    environment = {
        **os.environ,
        "LINES": "24",
        "PAGER": "cat",
        "TERM": "xterm",
        "NO_COLOR": "1",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-m", "qmigtool", *arguments]
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        while True:
            try:
                part = os.read(leader, 1 << 16)
            except OSError:  # the end, on Linux
                break
            if not part:
                break
            shown += part
    os.close(leader)
    return shown.decode().replace("\r\n", "\n"), process.returncode


PAGER = "sed 's/^/paged: /'"


def test_long_output_goes_through_the_pager():
    shown, status = on_a_terminal("show", PC, PAGER=PAGER)
    assert status == 0
    assert len(shown.splitlines()) > 24
    assert all(line.startswith("paged: ") for line in shown.splitlines())


@pytest.mark.parametrize(
    ("arguments", "pager"),
    [(["xsave", "table", PC], PAGER), (["--no-pager", "show", PC], PAGER), (["show", PC], "cat"), (["show", PC], ""),
     (["show", PC], "/no/such/program")],
)  # fmt: skip
def test_output_that_is_not_paged(arguments, pager):
    shown, status = on_a_terminal(*arguments, PAGER=pager)
    assert status == 0
    assert "paged" not in shown
    assert shown


def test_messages_go_through_the_pager_too_and_the_status_stays(tmp_path):
    cut = tmp_path / "cut.mig"
    cut.write_bytes(samplefiles.read("pc-7.2")[:-100])
    shown, status = on_a_terminal("show", str(cut), PAGER=PAGER)
    assert status == 3
    assert "paged: qmigtool: " in shown


@pytest.mark.parametrize("pager", [PAGER, "cat"])
def test_messages_keep_their_place(pager):
    shown, status = on_a_terminal("show", PC, "cpu@0/env.xcr0", PAGER=pager)
    assert (shown.splitlines(), status) == (["0x21f", "XCR0: x87 SSE AVX BNDREGS BNDCSR PKRU"], 0)


def test_a_message_is_folded_on_a_terminal_alone(capfd):
    shown, status = on_a_terminal("show", PC, "no-such-device-as-this-one/env.xcr0")
    assert status == 2
    assert len(shown.splitlines()) > 1
    assert all(len(line) <= 80 for line in shown.splitlines())
    run(["show", PC, "no-such-device-as-this-one/env.xcr0"])
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_pager_that_is_left_is_no_error():
    shown, status = on_a_terminal("show", PC, "--json", PAGER="head -n 2")
    assert status in (0, 2)
    assert "Traceback" not in shown
    assert "Error" not in shown
