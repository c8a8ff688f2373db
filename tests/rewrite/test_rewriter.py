"""Rewriting: no edits, no change; what an edit does not touch is copied; the output is whole or not there."""

import gzip
import hashlib
import io
import os
import subprocess
import sys

import pytest

import qmigtool
from qmigtool.errors import UnsupportedError
from qmigtool.rewrite import Splice, write_stream
from tests.rewrite.outputs import SMALL, names_in, path, spliced
from tests.support import samplefiles
from tests.support.packedsamples import NAMES
from tests.support.streamwriter import PAGE

ALL = [*samplefiles.NAMES, *NAMES]


def digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


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


def test_a_changed_page_is_read_back():
    at = SMALL.index((2).to_bytes(8, "big") * 4)
    with qmigtool.open(spliced(SMALL, [Splice(at, 4, b"\xca\xfe\xba\xbe")])) as stream:
        assert stream.complete
        assert stream.ram.read("r", 3 * PAGE, 8) == b"\xca\xfe\xba\xbe" + (2).to_bytes(4, "big")


@pytest.mark.parametrize("cut", [1, 20, 300, len(SMALL) // 2])
def test_a_cut_stream_is_copied_whole(cut):
    assert spliced(SMALL[:-cut], []) == SMALL[:-cut]


def test_what_comes_through_a_pipe_is_rewritten(tmp_path):
    target = tmp_path / "out"
    for data in (SMALL, gzip.compress(SMALL)):
        command = [sys.executable, "-m", "qmigtool", "rewrite", "-", "-o", str(target)]
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        assert (done.returncode, target.read_bytes()) == (0, SMALL), done.stderr
    with qmigtool.open(io.BytesIO(SMALL)) as stream, pytest.raises(UnsupportedError, match="spool=True"):
        write_stream(stream, io.BytesIO())
