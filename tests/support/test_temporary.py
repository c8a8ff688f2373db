"""A test run leaves nothing in the temporary folder: not when it ends, not when it is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CONFTEST = "from tests.conftest import pytest_configure, pytest_unconfigure\n"
TESTS = """
import os, pathlib, tempfile, time
import pytest

@pytest.mark.parametrize("number", range(2))
def test_something(number, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    sealed = pathlib.Path(tempfile.mkdtemp())
    (sealed / "file").write_bytes(b"x")
    sealed.chmod(0o500)
    pathlib.Path(os.environ["READY"], str(number)).write_text(str(os.getpid()))
    time.sleep(float(os.environ["SLEEP"]))
"""
WORKERS = {"one process": [], "workers": ["-n", "2"]}


@pytest.fixture
def begin(tmp_path):
    """Start pytest on two tests that sleep."""
    for name in ("temporary", "ready"):
        (tmp_path / name).mkdir()
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)

    def start(arguments: list[str], sleep: float) -> subprocess.Popen[bytes]:
        more = {"TMPDIR": str(tmp_path / "temporary"), "READY": str(tmp_path / "ready"), "SLEEP": str(sleep)}
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), *arguments],
            cwd=tmp_path,
            env={**os.environ, **more, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
        )

    return start


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_run_that_ends_leaves_nothing(begin, tmp_path):
    with begin([], 0) as run:
        assert run.wait(60) == 0
    assert len(list((tmp_path / "ready").iterdir())) == 2
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("workers", WORKERS)
def test_a_run_that_is_killed_leaves_nothing(begin, tmp_path, workers):
    with begin(WORKERS[workers], 600) as run:
        wait_for(lambda: len(list((tmp_path / "ready").iterdir())) == max(1, 2 * bool(WORKERS[workers])))
        wait_for(lambda: all(file.read_text() for file in (tmp_path / "ready").iterdir()))
        assert any((tmp_path / "temporary").rglob("file"))
        run.send_signal(signal.SIGKILL)
        run.wait()
    wait_for(lambda: not any(alive(int(file.read_text())) for file in (tmp_path / "ready").iterdir()))
    wait_for(lambda: not list((tmp_path / "temporary").iterdir()))
