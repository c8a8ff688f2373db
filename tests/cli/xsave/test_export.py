"""`xsave export`: its document, and where the area is written."""

import os

from tests.cli.calling import document, program
from tests.support import samplefiles

KVM = str(samplefiles.path("kvm-avx512-7.2"))


def test_xsave_export_check_and_layouts(call, tmp_path):
    out = tmp_path / "area"
    export = ("xsave", "export", KVM, "--vcpu", "0", "--format", "compacted", "--layout", "amd-zen4", "-o", str(out))
    found = document(call(*export, "--json"))
    assert found["size"] == len(out.read_bytes())
    assert (found["format"], found["layout"], found["xstate_bv"]) == ("compacted", "amd-zen4", "0xe7")
    assert int(found["xcomp_bv"], 16) >> 63 == 1
    verdicts = call("xsave", "check", str(out), "--layout", "amd-zen4", "--json")
    assert {"consumer", "ok", "reasons"} <= set(document(verdicts, verdicts[0])["verdicts"][0])
    assert "amd-zen4" in {one["name"] for one in document(call("xsave", "layouts", "--json"))["layouts"]}


EXPORT = ["xsave", "export", "--vcpu", "0", "--format", "standard", "--layout", "amd-zen4"]


def test_an_output_never_replaces_an_input(call, tmp_path):
    path = tmp_path / "vm.mig"
    path.write_bytes(samplefiles.read("kvm-avx512-7.2"))
    for name in (path, tmp_path / "." / "vm.mig"):
        assert call(*EXPORT, str(path), "-o", str(name))[0] == 2
    link = tmp_path / "link"
    link.symlink_to(path)
    assert call(*EXPORT, str(path), "-o", str(link))[0] == 2
    assert path.read_bytes() == samplefiles.read("kvm-avx512-7.2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "vm.mig"]


def test_outputs_are_atomic(call, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    assert call(*EXPORT, KVM, "-o", str(out))[0] in (2, 3)
    monkeypatch.undo()
    assert out.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_outputs_have_ordinary_rights(call, tmp_path):
    before = os.umask(0o027)
    try:
        assert call(*EXPORT, KVM, "-o", str(tmp_path / "out"))[0] == 0
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


def test_an_output_that_is_no_regular_file_is_written_in_place(call, tmp_path):
    """A rename would put a file where /dev/null was."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert call(*EXPORT, KVM, "-o", str(fifo))[0] == 0
        assert fifo.is_fifo()
        assert len(os.read(reader, 1 << 16)) == 2440
    finally:
        os.close(reader)


def test_stdout_takes_an_area():
    done = program(*EXPORT, KVM, "-o", "-")
    assert done.returncode == 0
    assert len(done.stdout) == 2440
    assert b"2440 bytes" in done.stderr
