"""What a terminal shows of the progress."""

import pytest

from qmigtool.cli.shared.messages import say_error
from qmigtool.cli.shared.progressbar import CLEAR, Bar
from qmigtool.util.progress import advance, reach, reporting, task
from tests.cli.shared.test_terminal import on_a_terminal
from tests.support import samplefiles
from tests.support.paths import ROOT

PC = str(samplefiles.path("pc-7.2"))


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def bar():
    clock = Clock()
    return Bar(clock), clock


def test_nothing_is_shown_for_two_seconds(bar, capsys):
    bar, clock = bar
    with reporting(bar), task("reading", 1 << 30):
        clock.now += 1.9
        reach(1 << 20)
    assert capsys.readouterr().err == ""


def test_what_is_shown(bar, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    bar, clock = bar
    with reporting(bar):
        with task("reading", 4 << 30):
            clock.now += 4
            reach(1 << 30)
            assert capsys.readouterr().err == f"{CLEAR}reading 1.0 GiB of 4.0 GiB, 256.0 MiB/s, 12 s left"
            clock.now += 0.1
            reach(2 << 30)
            assert capsys.readouterr().err == ""  # not that often
            clock.now += 395.9
            reach(2 << 30)
            assert capsys.readouterr().err == f"{CLEAR}reading 2.0 GiB of 4.0 GiB, 5.1 MiB/s, 6 min left"
            say_error("a message")
            assert capsys.readouterr().err == f"{CLEAR}a message\n"
        with task("a\x1b[31mb"):
            clock.now += 3
            advance(1000)
            assert capsys.readouterr().err == f"{CLEAR}a\\x1b[31mb 1000 bytes, 333 bytes/s"
    assert capsys.readouterr().err == CLEAR


def test_tasks_in_tasks(bar, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    bar, clock = bar
    with reporting(bar), task("checking", 3, "files"):
        clock.now += 3
        advance(1)
        capsys.readouterr()
        with task("reading", 10 << 20):
            clock.now += 1
            reach(1 << 20)
    line = capsys.readouterr().err.split(CLEAR)[1]
    assert line == "checking 1 of 3 files, 8 s left  reading 1.0 MiB of 10.0 Mi"


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_quick_work_shows_nothing_on_a_terminal(quiet):
    shown, status = on_a_terminal(*quiet, "show", PC, "cpu@0/env.xcr0")
    assert (shown.splitlines(), status) == (["0x21f", "XCR0: x87 SSE AVX BNDREGS BNDCSR PKRU"], 0)
    assert CLEAR not in shown


def test_slow_work_shows_itself_on_a_terminal_unless_it_is_told_not_to(tmp_path):
    slow = tmp_path / "sitecustomize.py"
    slow.write_text("import qmigtool.cli.shared.progressbar as p\np.PATIENCE = 0.0\n")
    path = f"{tmp_path}:{ROOT}"
    assert "reading " in on_a_terminal("sections", PC, PYTHONPATH=path)[0]
    assert "reading " not in on_a_terminal("-q", "sections", PC, PYTHONPATH=path)[0]
