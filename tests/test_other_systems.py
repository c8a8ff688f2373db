"""Reading and rewriting where calls are missing that only Linux, or only POSIX, has.

The calls are taken away before anything of qmigtool is imported. numpy and pandas are imported first: they are theirs.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import samplefiles

TAKEN = '''
import errno, io, json, mmap, os, select, signal, subprocess, sys, tempfile
import numpy, pandas

for name in ("copy_file_range", "SEEK_DATA", "SEEK_HOLE", "sendfile", "fork", "forkpty", "pread", "preadv", "pwrite",
             "O_TMPFILE", "O_NONBLOCK", "O_CLOEXEC", "O_NOFOLLOW", "O_DIRECTORY", "mkfifo", "geteuid", "getuid",
             "posix_fallocate", "posix_fadvise", "splice", "memfd_create", "pipe2", "sched_getaffinity", "sysconf"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGPIPE", "SIGHUP", "SIGALRM", "SIGWINCH", "SIGUSR1", "setitimer", "alarm", "pthread_sigmask"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in [name for name in vars(mmap) if name.startswith(("MADV_", "MAP_", "PROT_"))]:
    delattr(mmap, name)
tempfile._O_TMPFILE_WORKS = False  # what it finds out when it is imported without O_TMPFILE
del select.poll, errno.ETXTBSY
for name in ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp"):
    sys.modules[name] = None

class Mapping(mmap.mmap):
    """A mapping as Windows has it."""

    def __getattribute__(self, name):
        if name in ("madvise", "resize_anonymous"):
            raise AttributeError(name)
        return super().__getattribute__(name)

mmap.mmap = Mapping

class Status:
    """A status without a count of blocks."""

    def __init__(self, real):
        self._real = real

    def __getattr__(self, name):
        if name in ("st_blocks", "st_blksize", "st_rdev"):
            raise AttributeError(name)
        return getattr(self._real, name)

fstat, opener, rename = os.fstat, os.open, os.rename
os.fstat = lambda handle: Status(fstat(handle))

def without_dev_fd(path, *more, **named):
    if str(path).startswith(("/dev/fd", "/proc")):
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    return opener(path, *more, **named)

os.open = without_dev_fd

def never_over(source, target, **named):
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "the file exists already", str(target))
    rename(source, target, **named)

os.rename = never_over  # os.replace is the call that replaces
'''
RUN = (
    TAKEN
    + """
from qmigtool.cli.main import run
sys.exit(run(sys.argv[1:]))
"""
)
PC = str(samplefiles.path("pc-7.2"))
CONTAINERS = Path(__file__).parents[1] / "samples" / "containers"


def started(arguments, script=RUN, **more):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, check=False, timeout=300, **more
    )


def usual(arguments, **more):
    return subprocess.run(
        [sys.executable, "-m", "qmigtool", *map(str, arguments)], capture_output=True, check=False, **more
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["info", PC, "--json"],
        ["info", CONTAINERS / "savevm-7.2.qcow2.xz", "--json"],
        ["info", CONTAINERS / "multifd-10.0.pcap.xz", "--json"],
        ["info", CONTAINERS / "libvirt-gzip.save.xz", "--json"],
        ["show", PC, "cpu@0/env.xcr0"],
        ["xsave", "table", PC, "--json"],
        ["ram", PC, "--json"],
        ["sections", PC],
        ["diff", PC, samplefiles.path("q35-7.2"), "--ram", "--json"],
        ["check", PC, "--json"],
        ["preflight", PC, "--target", "11.1", "--json"],
        ["xsave", "layouts", "--json"],
    ],
    ids=lambda arguments: "-".join(str(one).rpartition("/")[2] for one in arguments[:3]),
)
def test_reading_gives_the_same(arguments):
    found, expected = started(arguments), usual(arguments)
    assert found.stderr == expected.stderr
    assert found.returncode == expected.returncode
    assert found.stdout == expected.stdout


def test_a_file_at_standard_input_is_read_as_a_file():
    for given in (started, usual):
        with Path(PC).open("rb") as file:
            done = given(["info", "-", "--json"], stdin=file)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["strategy"] == "tail-first"
        assert document["complete"]


def test_an_output_replaces_a_file_and_is_read_again(tmp_path):
    out, old, patch, back = (tmp_path / name for name in ("out.mig", "old.mig", "undo.patch", "back.mig"))
    edit = ["rewrite", PC, "--set", "cpu@0/env.mxcsr=0x1fa0"]
    assert usual([*edit, "-o", old]).returncode == 0
    out.write_bytes(b"something else")
    done = started([*edit, "-o", out, "--undo", patch])
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == old.read_bytes()
    done = started(["undo", out, patch, "-o", back])
    assert done.returncode == 0, done.stderr
    assert back.read_bytes() == Path(PC).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back.mig", "old.mig", "out.mig", "undo.patch"]


def test_an_output_folder_takes_the_place_of_an_empty_one(tmp_path):
    script = (
        TAKEN
        + """
from qmigtool.util.files import new_folder
with new_folder(sys.argv[1]) as folder:
    (folder / "a").write_bytes(b"x")
"""
    )
    target = tmp_path / "folder"
    target.mkdir()
    done = started([target], script)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in target.iterdir()] == ["a"]


def test_an_output_that_is_the_input_is_still_refused(tmp_path):
    file = tmp_path / "in.mig"
    file.write_bytes(Path(PC).read_bytes())
    done = started(["rewrite", file, "--set", "cpu@0/env.mxcsr=0x1fa0", "-o", file])
    assert done.returncode == 2
    assert b"is the input" in done.stderr
    assert file.read_bytes() == Path(PC).read_bytes()
