"""Progress: which work reports how far it is."""

import qmigtool
from qmigtool.cli.main import run
from qmigtool.util.progress import advance, reach, reporting, task
from tests.support import samplefiles
from tests.support.paths import ROOT

PC = str(samplefiles.path("pc-7.2"))
KVM = str(samplefiles.path("kvm-avx512-7.2"))

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
