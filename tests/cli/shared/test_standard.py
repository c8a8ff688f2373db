"""Standard output: all that is written arrives, or the exit status says that it did not."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import samplefiles

PC = str(samplefiles.path("pc-7.2"))
BIG = [["rewrite", PC, "-o", "-"], ["check", PC, "--format", "sarif"]]


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def environment(request):
    return {**os.environ, "PYTHONUNBUFFERED": request.param}


def start(arguments, environment, **where):
    command = [sys.executable, "-m", "qmigtool", *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, **where)


def whole(arguments, tmp_path, environment):
    """What the command writes to a file."""
    with (tmp_path / "whole").open("wb") as file, start(arguments, environment, stdout=file) as process:
        process.stderr.read()
    return (tmp_path / "whole").read_bytes(), process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("arguments", BIG, ids=lambda arguments: arguments[0])
def test_a_slow_reader_gets_all(arguments, blocking, environment, tmp_path):
    expected, status = whole(arguments, tmp_path, environment)
    assert len(expected) > 40_000
    read, write = os.pipe()
    os.set_blocking(write, blocking)
    with start(arguments, environment, stdout=write) as process:
        os.close(write)
        time.sleep(0.3)  # the pipe is full by now
        found = b""
        with os.fdopen(read, "rb", buffering=0) as pipe:
            while piece := pipe.read(30_000):
                found += piece
        err = process.stderr.read()
    assert found == expected
    assert process.returncode == status
    assert b"Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [*BIG, ["info", PC], ["--help"]], ids=lambda arguments: arguments[0])
def test_a_full_disk(arguments, environment):
    with Path("/dev/full").open("wb") as full, start(arguments, environment, stdout=full) as process:
        err = process.stderr.read()
    assert process.returncode == 2
    assert err.endswith(b"qmigtool: standard output: No space left on device\n")
    assert err.count(b"\n") <= 2


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [BIG[1], ["info", PC]], ids=lambda arguments: arguments[0])
def test_a_reader_that_is_gone(arguments, environment):
    read, write = os.pipe()
    os.close(read)
    with start(arguments, environment, stdout=write) as process:
        os.close(write)
        err = process.stderr.read()
    assert (process.returncode, err) == (2, b"")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [BIG[1], ["info", PC]], ids=lambda arguments: arguments[0])
def test_no_standard_output(arguments, environment):
    command = ["bash", "-c", 'exec "$@" >&-', "bash", sys.executable, "-m", "qmigtool", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"standard output: Bad file descriptor" in done.stderr


def test_words_that_cannot_be_said_change_nothing(environment, tmp_path):
    cut = tmp_path / "cut.mig"
    cut.write_bytes(samplefiles.read("pc-7.2")[:-200_000])
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "qmigtool", "info", str(cut)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=full, check=False)
    assert done.returncode in (2, 3)
