"""The output is whole or not there, and never the input."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qmigtool.util.files import replacing
from tests.rewrite.outputs import SMALL, names_in, path


def test_the_input_is_never_the_output(call, tmp_path):
    source = tmp_path / "in.mig"
    source.write_bytes(SMALL)
    link, hard = tmp_path / "link.mig", tmp_path / "hard.mig"
    link.symlink_to(source)
    hard.hardlink_to(source)
    for target in (source, link, hard, tmp_path / "." / "in.mig"):
        code, _, err = call("rewrite", str(source), "-o", str(target))
        assert code == 2
        assert "is the input" in err
        assert source.read_bytes() == SMALL
    assert names_in(tmp_path) == ["hard.mig", "in.mig", "link.mig"]


def test_a_link_to_another_file_stays_a_link(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with replacing(link) as file:
        file.write(b"new")
        assert real.read_bytes() == b"old"
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_an_error_leaves_what_was_there(tmp_path):
    target = tmp_path / "out"
    target.write_bytes(b"precious")

    def half():
        with replacing(target) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert target.read_bytes() == b"precious"
    assert names_in(tmp_path) == ["out"]


def test_a_broken_input_leaves_no_output(call, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"no stream at all")
    assert call("rewrite", str(source), "-o", str(target))[0] == 3
    assert not target.exists()
    assert call("rewrite", str(tmp_path / "none"), "-o", str(target))[0] not in (0, 70)
    assert call("rewrite", str(path("arm-7.2")), "-o", str(tmp_path / "no" / "such"))[0] not in (0, 70)


def test_a_device_is_written_to_not_replaced():
    with replacing("/dev/null") as file:
        file.write(b"x")
    assert Path("/dev/null").is_char_device()


def test_killed_in_the_middle_no_half_file_has_the_name(tmp_path):
    """SIGKILL while the output is being written: under its name there is nothing, or what was there before."""
    program = (
        "import sys, time\n"
        "from qmigtool.util.files import replacing\n"
        "with replacing(sys.argv[1]) as file:\n"
        "    file.write(b'half' * 100000)\n"
        "    file.flush()\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
    )
    target = tmp_path / "out"
    for before in (None, b"old"):
        if before is not None:
            target.write_bytes(before)
        child = subprocess.Popen([sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == b"written\n"
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert (target.read_bytes() if target.exists() else None) == before
        halves = [one for one in tmp_path.iterdir() if one != target]
        assert [one.stat().st_size for one in halves] == [400_000]  # it was in the middle, and elsewhere
        halves[0].unlink()
