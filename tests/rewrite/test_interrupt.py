"""SIGKILL at any moment of a rewrite over an output that is there: the input and the earlier output are whole."""

import contextlib
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

import qmigtool
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, eos, mem_size, num, word

PAGES = 16 << 8  # 16 MiB
KILLS = 7
TRIES = 50  # on a busy machine a signal may come too late; then once more


def names_in(folder):
    return {one.name for one in folder.iterdir()}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A stream with so much memory that writing it takes a while; every other page is zeros, sent as a page."""
    path = tmp_path_factory.mktemp("big") / "big.mig"
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGES * PAGE)]) + eos())
    body = bytearray(word(0, 0x08) + b"\1r" + bytes(PAGE))
    for number in range(1, PAGES):
        body += word(number * PAGE, 0x28) + (
            bytes(PAGE) if number % 2 == 0 else number.to_bytes(4, "big") * (PAGE // 4)
        )
    w.part(1, bytes(body) + eos())
    w.end(1, eos())
    w.device(2, "dev", 0, Vmsd("dev", 1, [num("n", "uint64", 5)]))
    path.write_bytes(w.finish())
    return path


def command(source, target, *more):
    edits = ["--set", "dev@0/n=6", "--machine-type", "a-longer-name-that-moves-everything-9.2", *more]
    return [sys.executable, "-m", "qmigtool", "rewrite", str(source), *edits, "-o", str(target)]


def start(arguments):
    """Start it as a terminal does: a run in a script's background ignores SIGINT, and its children inherit that."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)


# Copied by the kernel; every page through Python; every page moved to another place.
WAYS = {"copied": (), "squeezed": ("--squeeze-zero-pages",), "mapped": ("--ram", "mapped-ram")}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_any_moment_nothing_is_lost(way, big, tmp_path):
    source, target, before = big, tmp_path / "out.mig", digest(big)
    old = b"an earlier output, precious " * 1000
    target.write_bytes(old)
    whole = tmp_path / "whole.mig"
    begun = time.monotonic()
    with start(command(source, whole, *WAYS[way])) as child:
        assert child.wait() == 0, child.stderr.read()
    took = time.monotonic() - begun
    wanted, size = digest(whole), whole.stat().st_size
    with qmigtool.open(whole) as stream:
        assert stream.complete
        assert stream.field("dev@0/n").value == 6
    whole.unlink()
    chance = random.Random(7)  # noqa: S311 - moments, no secrets
    middle = 0
    for number in range(TRIES):
        if number >= KILLS and middle >= 2:
            break
        child = start(command(source, target, *WAYS[way]))
        with child:
            if number % 2:
                time.sleep(chance.random() * took)
            else:
                wait_for_a_half(child, tmp_path, chance.random() * 0.9 * size)
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert digest(source) == before
        halves = names_in(tmp_path) - {"out.mig"}
        assert child.returncode in (0, -signal.SIGKILL)
        done = child.returncode == 0 or target.read_bytes() != old  # the signal came too late
        assert target.read_bytes() == old or (digest(target) == wanted and done and not halves)
        assert not done or digest(target) == wanted
        target.write_bytes(old)
        for name in halves:
            middle += (tmp_path / name).stat().st_size > 0
            (tmp_path / name).unlink()
    assert middle >= 2, "no kill came while it was writing"
    # And what was interrupted can be done again. The output takes the name in one step: whoever has the earlier one
    # open, or by another name, has it whole.
    (tmp_path / "kept").hardlink_to(target)
    with start(command(source, target, *WAYS[way])) as child:
        assert child.wait() == 0
    assert digest(target) == wanted
    assert (tmp_path / "kept").read_bytes() == old
    assert names_in(tmp_path) == {"out.mig", "kept"}


def wait_for_a_half(child, folder, size):
    """Return when the file that becomes the output has ``size`` bytes, or the process has ended."""
    while child.poll() is None:
        for name in os.listdir(folder):  # noqa: PTH208 - fast, and nothing to close
            with contextlib.suppress(FileNotFoundError):
                if name.startswith(".out.mig.") and (folder / name).stat().st_size >= size:
                    return


@pytest.mark.parametrize("word_of_it", [signal.SIGINT, signal.SIGTERM])
def test_ended_by_a_word_nothing_is_left(big, tmp_path, word_of_it):
    """SIGINT by which a person ends it, SIGTERM by which a machine does: no half file stays."""
    target = tmp_path / "out.mig"
    target.write_bytes(b"old")
    for _ in range(TRIES):
        child = start(command(big, target, "--squeeze-zero-pages"))
        with child:
            wait_for_a_half(child, tmp_path, 1)
            child.send_signal(word_of_it)
            status = child.wait()
        if status:
            break
        target.write_bytes(b"old")
    assert status == 130
    assert target.read_bytes() == b"old"
    assert names_in(tmp_path) == {"out.mig"}


def test_a_full_disk_leaves_the_earlier_output(big, tmp_path):
    target = tmp_path / "out.mig"
    target.write_bytes(b"old")
    limit = 5 << 20

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run(command(big, target), capture_output=True, check=False, preexec_fn=small_files)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"File too large" in done.stderr
    assert target.read_bytes() == b"old"
    assert names_in(tmp_path) == {"out.mig"}
