"""Every container through a real pipe, and through file objects of any kind."""

import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import qmigtool
from qmigtool.errors import LimitError, QmigError, SnapshotsError, UnsupportedError, UsageError
from qmigtool.rewrite import Rewriter
from tests.parsers.test_saveimage import save_image
from tests.support import casefiles, samplefiles
from tests.support.samplefiles import CONTAINERS

PC = samplefiles.read("pc-7.2")
SPARSE = casefiles.read("load", "libvirt11-sparse.save")
NAMES = sorted(path.name for path in CONTAINERS.iterdir())


def inputs() -> Iterator[tuple[str, bytes]]:
    for name in NAMES:
        yield name, (CONTAINERS / name).read_bytes()
        yield name.removesuffix(".xz"), samplefiles.container(name.removesuffix(".xz"))
    yield "sparse", SPARSE
    yield "sparse.gz", gzip.compress(SPARSE)
    yield "plain", PC
    yield "gz", gzip.compress(PC)
    yield "twice", bz2.compress(gzip.compress(PC))
    yield "hole", bytes(1 << 20) + PC
    yield "libvirt-bz2", save_image(bz2.compress(PC), form=2)
    yield "libvirt-xz-gz", lzma.compress(save_image(gzip.compress(PC), form=1))


INPUTS = dict(inputs())


class Drops:
    """A file object with nothing but read, which gives little at a time."""

    def __init__(self, data: bytes, most: int) -> None:
        self._file = io.BytesIO(data)
        self._most = most

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._most))


@pytest.mark.parametrize("name", INPUTS)
def test_a_pipe_says_what_the_file_says(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(INPUTS[name])
    program = f"{sys.executable} -m qmigtool info"
    told = []
    for line in (f"{program} {path} --json", f"cat {path} | {program} - --json"):
        found = subprocess.run(line, shell=True, capture_output=True, check=True, timeout=60)  # noqa: S602
        told.append(json.loads(found.stdout))
        for key in ("strategy", "file_size"):
            told[-1].pop(key, None)
    assert told[0] == told[1]
    assert told[0]["complete"] is True


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("spool", [False, True])
def test_file_objects_that_give_little(name: str, spool: bool) -> None:
    with qmigtool.open(INPUTS[name]) as whole, qmigtool.open(Drops(INPUTS[name], 100_003), spool=spool) as stream:  # type: ignore[arg-type]
        assert stream.complete, stream.problems
        assert stream.container == whole.container
        assert [vcpu.xsave for vcpu in stream.vcpus] == [vcpu.xsave for vcpu in whole.vcpus]
        assert stream.source.name.startswith("<pipe>")
        if spool:
            assert bytes(stream.source.view(0, stream.size or 0)) == bytes(whole.source.view(0, whole.size or 0))


@pytest.mark.parametrize("most", [1, 7, 91, 4096])
def test_a_byte_at_a_time(most: int) -> None:
    data = save_image(gzip.compress(PC), form=1)
    with qmigtool.open(Drops(data, most)) as stream:  # type: ignore[arg-type]
        assert stream.complete
        assert stream.container.removed == ("libvirt header", "gzip")


def test_objects_that_read_a_compressed_file(tmp_path: Path) -> None:
    (tmp_path / "vm.gz").write_bytes(gzip.compress(PC))
    for spool in (False, True):
        with gzip.open(tmp_path / "vm.gz") as file, qmigtool.open(file, spool=spool) as stream:  # type: ignore[arg-type]
            assert stream.complete
            assert stream.container.name == "raw"


def test_a_file_that_is_spooled_is_read_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "vm.mig").write_bytes(PC)
    with (tmp_path / "vm.mig").open("rb") as file, qmigtool.open(file, spool=True) as stream:
        assert stream.strategy == "tail-first"
        assert stream.ram.page("pc.ram", 0x100000)
        assert not file.closed
        assert file.read(4) == b"QEVM"
    (tmp_path / "behind").write_bytes(bytes(range(100)) + PC)
    with (tmp_path / "behind").open("rb") as file:
        file.seek(100)  # where its owner wants it to be read from
        with qmigtool.open(file, spool=True) as stream:
            assert stream.complete
            assert stream.size == len(PC)


def test_a_pipe_that_is_spooled_can_be_rewritten() -> None:
    for data in (PC, gzip.compress(PC)):
        with qmigtool.open(Drops(data, 5000), spool=True) as stream:  # type: ignore[arg-type]
            rewriter = Rewriter(stream)
            rewriter.set("cpu@0/env.mxcsr", 0x1FA0)
            out = io.BytesIO()
            rewriter.write(out)
        assert len(out.getvalue()) == len(PC)
        with qmigtool.open(Drops(data, 5000)) as stream, pytest.raises(UnsupportedError, match="pipe"):  # type: ignore[arg-type]
            Rewriter(stream)


@pytest.mark.parametrize(("gives", "words"), [(None, "does not block"), ("text", "a str"), (5, "an? int")])
def test_file_objects_that_give_no_bytes(gives: object, words: str) -> None:
    class Odd:
        def read(self, _: int) -> object:
            return gives

    with pytest.raises(UsageError, match=words):
        qmigtool.open(Odd())  # type: ignore[arg-type]


def test_memoryviews_and_bytearrays() -> None:
    class Views(Drops):
        def read(self, count: int) -> memoryview:  # type: ignore[override]
            return memoryview(bytearray(super().read(count)))

    with qmigtool.open(Views(gzip.compress(PC), 5000)) as stream:  # type: ignore[arg-type]
        assert stream.complete


def test_snapshots_through_a_pipe() -> None:
    for data in (PC, gzip.compress(PC), save_image(PC)):
        with pytest.raises(UsageError, match="this is not a qcow2 image"):
            qmigtool.open(io.BytesIO(data), snapshot="one")
    with qmigtool.open(io.BytesIO(samplefiles.container("savevm-7.2.qcow2")), snapshot="snap1") as stream:
        assert stream.complete
    with pytest.raises(UsageError, match="no snapshot 'snap2'") as caught:
        qmigtool.open(io.BytesIO(samplefiles.container("savevm-7.2.qcow2")), snapshot="snap2")
    assert not isinstance(caught.value, SnapshotsError)


@pytest.mark.parametrize("name", ["gz", "twice", "libvirt-bz2", "libvirt-xz-gz", "savevm-7.2.qcow2", "sparse", "plain"])
def test_truncated_pipes(name: str) -> None:
    data = INPUTS[name]
    for end in (0, 1, 15, 17, 50, 91, 93, 1000, 1091, 1093, 1110, len(data) // 2, len(data) - 1):
        found = []
        for given in (data[:end], io.BytesIO(data[:end])):
            try:
                with qmigtool.open(given) as stream:
                    assert stream.sections
                    assert stream.problems or stream.complete
                    found.append((type(stream.problems[0]).__name__ if stream.problems else "", stream.machine))
            except QmigError as error:
                found.append((type(error).__name__, ""))
        assert found[0][1] == found[1][1], end
        assert bool(found[0][0]) == bool(found[1][0]), end


def test_what_cannot_be_read_is_refused_before_the_pipe_ends() -> None:
    class Counted(Drops):
        reads = 0

        def read(self, count: int) -> bytes:
            self.reads += 1
            return super().read(count)

    pipe = Counted(b"\x02\x21\x4c\x18" + bytes(1 << 20), 1000)
    with pytest.raises(UnsupportedError, match="legacy"):
        qmigtool.open(pipe)  # type: ignore[arg-type]
    assert pipe.reads == 1


def test_an_endless_pipe_is_not_spooled_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is bounded by the space there is."""

    class Endless:
        def __init__(self) -> None:
            self.given = 0
            self.head = samplefiles.container("savevm-7.2.qcow2")[:4]

        def read(self, count: int) -> bytes:
            head, self.head = self.head, b""
            self.given += count
            assert self.given < 1 << 30
            return head or b"\xff" * count

    monkeypatch.setattr("qmigtool.stream.unwrapped.SPARE", 1 << 62)
    with pytest.raises(LimitError, match="no space in"):
        qmigtool.open(Endless())  # type: ignore[arg-type]


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for data in (INPUTS["savevm-7.2.qcow2"], INPUTS["savevm-7.2.qcow2"][:5000], INPUTS["multifd-10.0.pcap"]):
        try:
            with qmigtool.open(io.BytesIO(data)) as stream:
                _ = stream.devices
        except QmigError:
            pass
        assert not list(tmp_path.iterdir())
