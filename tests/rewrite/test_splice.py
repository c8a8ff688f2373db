"""Splices: what each replaces, and that everything else is copied."""

import errno
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qmigtool
from qmigtool.errors import UsageError
from qmigtool.rewrite import Splice, write_stream
from qmigtool.util import files
from qmigtool.util.files import copy_range
from tests.rewrite.outputs import SMALL, path, spliced


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
