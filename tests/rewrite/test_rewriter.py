"""Rewriting: no edits, no change; what an edit does not touch is copied; the output is whole or not there."""

import errno
import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.cli import main
from qmigtool.errors import UnsupportedError, UsageError
from qmigtool.rewrite import Splice, write_stream
from qmigtool.util import files
from qmigtool.util.files import copy_range, replacing
from tests.support import samplefiles
from tests.support.packedsamples import NAMES, packed
from tests.support.ramwriter import named_page, plain
from tests.support.streamwriter import PAGE

ALL = [*samplefiles.NAMES, *NAMES]


def path(name):
    return samplefiles.path(name) if name in samplefiles.NAMES else packed(name).path


def names_in(folder):
    return sorted(one.name for one in folder.iterdir())


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def call(capsys, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["qmigtool", *arguments])
        code = main.run([str(one) for one in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


@pytest.mark.parametrize("name", ALL)
def test_without_edits_every_byte_is_the_same(name, tmp_path):
    target = tmp_path / "out"
    with qmigtool.open(path(name)) as stream, target.open("wb") as file:
        assert write_stream(stream, file) == path(name).stat().st_size
    assert digest(target) == digest(path(name))


def test_the_program_does_it_too(call, tmp_path):
    target = tmp_path / "out.mig"
    code, out, err = call("rewrite", str(path("pc-7.2")), "-o", str(target), "--json")
    assert (code, err) == (0, "")
    assert f'"bytes": {target.stat().st_size}' in out
    assert digest(target) == digest(path("pc-7.2"))
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
    assert names_in(tmp_path) == ["out.mig"]


# -- splices ---------------------------------------------------------------------------------------------------------

SMALL = plain(named_page(0, 1), named_page(3, 2)).finish(tail=b"tail")


def spliced(data, splices):
    out = io.BytesIO()
    with qmigtool.open(data) as stream:
        written = write_stream(stream, out, splices)
    assert written == len(out.getvalue())
    return out.getvalue()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL)), st.integers(0, 50), st.binary(max_size=60)), max_size=8), st.data()
)
def test_splices_do_what_they_say(raw, data):
    wanted, splices, at = bytearray(), [], 0
    for offset, length, new in sorted(raw):
        if offset < at or offset + length > len(SMALL):
            continue
        splices.append(Splice(offset, length, new))
        wanted += SMALL[at:offset] + new
        at = offset + length
    wanted += SMALL[at:]
    if len({splice.offset for splice in splices}) == len(splices):
        assert spliced(SMALL, data.draw(st.permutations(splices))) == wanted


def test_splices_over_a_file_are_like_those_over_bytes(tmp_path):
    source = path("pc-7.2")
    data = source.read_bytes()
    splices = [Splice(100, 50, b"x" * 70), Splice(len(data) - 5, 5, b""), Splice(0, 0, b"head"), Splice(5000, 1, b"")]
    target = tmp_path / "out"
    with qmigtool.open(source) as stream, target.open("wb") as file:
        write_stream(stream, file, splices)
    assert (
        target.read_bytes()
        == (b"head" + data[:100] + b"x" * 70 + data[150:5000] + data[5001 : len(data) - 5])
        == spliced(data, splices)
    )


@pytest.mark.parametrize(
    "splices",
    [
        [Splice(0, 2, b""), Splice(1, 1, b"")],
        [Splice(-1, 2, b"")],
        [Splice(len(SMALL), 1, b"")],
        [Splice(len(SMALL) + 1, 0, b"")],
        [Splice(5, 10, b""), Splice(14, 0, b"x")],
    ],
)
def test_splices_that_overlap_or_leave_the_stream(splices):
    with pytest.raises(UsageError):
        spliced(SMALL, splices)


def test_a_changed_page_is_read_back():
    at = SMALL.index((2).to_bytes(8, "big") * 4)
    with qmigtool.open(spliced(SMALL, [Splice(at, 4, b"\xca\xfe\xba\xbe")])) as stream:
        assert stream.complete
        assert stream.ram.read("r", 3 * PAGE, 8) == b"\xca\xfe\xba\xbe" + (2).to_bytes(4, "big")


@pytest.mark.parametrize("cut", [1, 20, 300, len(SMALL) // 2])
def test_a_cut_stream_is_copied_whole(cut):
    assert spliced(SMALL[:-cut], []) == SMALL[:-cut]


# -- outputs ---------------------------------------------------------------------------------------------------------


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


def test_what_comes_through_a_pipe_is_rewritten(tmp_path):
    target = tmp_path / "out"
    for data in (SMALL, gzip.compress(SMALL)):
        command = [sys.executable, "-m", "qmigtool", "rewrite", "-", "-o", str(target)]
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        assert (done.returncode, target.read_bytes()) == (0, SMALL), done.stderr
    with qmigtool.open(io.BytesIO(SMALL)) as stream, pytest.raises(UnsupportedError, match="spool=True"):
        write_stream(stream, io.BytesIO())


# -- copying ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, None])
def test_where_the_kernel_does_not_copy_we_do(code, tmp_path, monkeypatch):
    source, target = tmp_path / "in", tmp_path / "out"
    data = os.urandom(3_000_000)
    source.write_bytes(data)
    real, calls = os.copy_file_range, []

    def refuse(fd, to, count, offset):
        """Move a little the first time, so that the rest starts in the middle."""
        calls.append(count)
        if len(calls) == 1:
            return real(fd, to, min(count, 1000), offset)
        if code is None:
            return 0
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "copy_file_range", refuse)
    with source.open("rb") as file, target.open("wb") as out:
        out.write(b"head")
        copy_range(file.fileno(), 10, 2_500_000, out)
        out.write(b"tail")
    assert len(calls) == 2
    assert target.read_bytes() == b"head" + data[10:2_500_010] + b"tail"


def test_another_error_of_the_kernel_is_not_hidden(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(files.os, "copy_file_range", full)
    with path("arm-7.2").open("rb") as file, (tmp_path / "out").open("wb") as out, pytest.raises(OSError, match="full"):
        copy_range(file.fileno(), 0, 100, out)


def test_an_input_that_shrinks_is_an_error(tmp_path):
    source = tmp_path / "in"
    source.write_bytes(b"x" * 100)
    with (
        source.open("rb") as file,
        (tmp_path / "out").open("wb") as out,
        pytest.raises(OSError, match="became shorter"),
    ):
        copy_range(file.fileno(), 50, 100, out)


def test_a_hole_before_the_stream_is_copied_fast(tmp_path):
    """A sparse source: 20 GB of hole would not be read byte by byte where the file system can do better."""
    start = time.monotonic()
    target = tmp_path / "out"
    with qmigtool.open(path("mapped-11.1")) as stream, target.open("wb") as file:
        write_stream(stream, file)
    assert target.stat().st_size == 23_182_116
    assert time.monotonic() - start < 5
