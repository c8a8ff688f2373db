"""One folder for everything that a test run writes, and a process that removes it however the run ends.

pytest keeps its `tmp_path` folders of the last three runs, and a run that is killed cleans up nothing. `begin` makes
one folder, the temporary folder of the run and of all processes that it starts, and starts a guard that removes it when
the run and its xdist workers are gone: each of them holds a shared lock, and the kernel gives it back even after
SIGKILL. Whoever wants to look at the files afterwards gives `--basetemp FOLDER`, which pytest keeps.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT_VARIABLE = "QMIGTOOL_TEST_TEMPORARY"
_LOCK = ".alive"
_PR_SET_PDEATHSIG = 1

# argv: the folder. A child that is being killed at that moment may still write: the folder is removed until it is gone.
_GUARD = """
import fcntl, os, shutil, sys, time
root = sys.argv[1]
lock = os.open(os.path.join(root, ".alive"), os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
for _ in range(50):
    for folder, _, _ in os.walk(root):
        try:
            os.chmod(folder, 0o700)
        except OSError:
            pass
    shutil.rmtree(root, ignore_errors=True)
    if not os.path.exists(root):
        break
    time.sleep(0.1)
"""


@dataclass(frozen=True, slots=True)
class Temporary:
    """What `begin` gives and `end` takes: the lock's descriptor; the guard (None in a worker); TMPDIR before."""

    root: Path
    lock: int
    guard: subprocess.Popen[bytes] | None
    before: str | None


def _hold(root: Path) -> int:
    lock = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def begin() -> Temporary:
    """Make the folder and point `tempfile` and the environment of all children to it; start the guard."""
    root = Path(tempfile.mkdtemp(prefix="qmigtool-tests-"))
    lock = _hold(root)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, lock)
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, str(root)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # a signal to the run's process group is not for the guard
        )
        undo.pop_all()
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = os.environ[ROOT_VARIABLE] = tempfile.tempdir = str(root)
    return Temporary(root, lock, guard, before)


def join() -> Temporary:
    """In an xdist worker: hold the folder of its controller, and end when the controller is killed."""
    root = Path(os.environ[ROOT_VARIABLE])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    tempfile.tempdir = str(root)
    return Temporary(root, _hold(root), None, None)


def end(temporary: Temporary) -> None:
    """Let the folder go, and wait until it is removed."""
    os.close(temporary.lock)
    if temporary.guard is not None:
        tempfile.tempdir = None
        del os.environ["TMPDIR"], os.environ[ROOT_VARIABLE]
        if temporary.before is not None:
            os.environ["TMPDIR"] = temporary.before
        temporary.guard.wait(60)
