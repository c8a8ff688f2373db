"""Progress: who says how far it is, and what a terminal shows of it."""

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.cli.shared.messages import say_error
from qmigtool.cli.shared.progressbar import CLEAR, Bar
from qmigtool.util.progress import advance, reach, reporting, task
from tests.cli.test_terminal import on_a_terminal
from tests.support import samplefiles
from tests.support.paths import ROOT

PC, KVM = (str(samplefiles.path(name)) for name in ("pc-7.2", "kvm-avx512-7.2"))

SAVEVM = str(ROOT / "samples" / "containers" / "savevm-7.2.qcow2.xz")


class Listener:
    """A reporter that keeps what it is told."""

    def __init__(self):
        self.tasks = []
        self.heard = []

    def update(self):
        self.heard += [(one.name, one.done, one.total) for one in self.tasks[-1:]]

    def clear(self):
        pass

    def stop(self):
        pass

    def last(self, name):
        return [(done, total) for one, done, total in self.heard if one == name][-1]


def hear(*arguments):
    listener = Listener()
    with reporting(listener):
        assert run([*arguments]) in (0, 1)
    assert listener.tasks == []
    for _, done, total in listener.heard:
        assert total is None or done <= total
    return listener


def test_reading(capsys):
    done, total = hear("sections", PC).last("reading")
    assert done <= total == 660109
    assert done > total // 2


def test_containers(capsys):
    done, total = hear("info", SAVEVM).last("unwrapping")
    assert total is None
    assert done >= 698078


def test_writing(tmp_path, capsys):
    listener = hear("rewrite", PC, "--drop-section", "hpet", "-o", str(tmp_path / "out.mig"))
    size = (tmp_path / "out.mig").stat().st_size
    assert listener.last("writing") == (size, size)
    whole = hear("rewrite", PC, "--ram", "mapped-ram", "-o", str(tmp_path / "mapped.mig"))
    done, total = whole.last("writing")
    assert done == total


def test_comparing_memory(capsys):
    assert hear("diff", PC, PC, "--ram").last("comparing pc.ram") == (16 << 20, 16 << 20)


def test_many_files(capsys):
    assert hear("check", PC, KVM).last("checking") == (2, 2)
    assert "checking" not in {name for name, _, _ in hear("check", PC).heard}


def test_without_a_reporter_nothing_is_kept():
    with task("reading", 5):
        advance(1)
        reach(2)
    with qmigtool.open(PC) as stream:
        assert stream.prove()


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
