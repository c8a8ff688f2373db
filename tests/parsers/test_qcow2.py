"""qcow2 images: what real QEMU saves into one, what is none, and what is made to be walked for ever."""

import struct
import time
from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.diff import compare
from qmigtool.errors import QmigError, StreamError, UnsupportedError, UsageError
from tests.conftest import QemuStreamFactory
from tests.support import samplefiles
from tests.support.qemu.machine import Machine, Qemu


@pytest.mark.qemu
def test_a_snapshot_holds_what_a_migration_sends(qemu_stream: QemuStreamFactory, tmp_path: Path) -> None:
    """Real QEMU saves one stopped guest twice: into a qcow2 image, and as a stream."""
    image = tmp_path / "disk.qcow2"
    image.write_bytes(empty_qcow2(64 << 20))
    machine = Machine(extra=("-drive", f"file={image},if=virtio,format=qcow2"))
    first = qemu_stream(Machine()).path
    with Qemu(machine, incoming=True) as qemu:
        qemu.load(first)
        qemu.cont()  # from QEMU 10.0 on a disk is inactive, and takes no snapshot, until an incoming VM has run
        qemu.stop()
        assert qemu.hmp("savevm one") == ""
        assert qemu.hmp("savevm two") == ""
        qemu.migrate_to_file(tmp_path / "plain.mig")
    with qmigtool.open(tmp_path / "plain.mig") as plain:
        for name in ("one", "2"):  # by name, and by id
            with qmigtool.open(image, snapshot=name) as snapshot:
                assert snapshot.complete, snapshot.problems
                assert compare(plain, snapshot).same
                assert snapshot.ram.page("pc.ram", 0x100000) == plain.ram.page("pc.ram", 0x100000)
    with pytest.raises(UsageError, match=r"several snapshots .*'one' \(id 1\), 'two' \(id 2\)"):
        qmigtool.open(image)
    with pytest.raises(UsageError, match="no snapshot 'three'"):
        qmigtool.open(image, snapshot="three")
    assert run(["info", str(image), "--snapshot", "one"]) == 0
    assert run(["info", str(image)]) == 0  # it lists them
    assert run(["show", str(image)]) == 2
    assert run(["diff", str(image), str(image), "--snapshot-a", "one", "--snapshot-b", "two"]) == 0


def empty_qcow2(size: int) -> bytes:
    """An image without data: header, refcount table, refcount block, L1 table (docs/interop/qcow2.txt)."""
    cluster = 1 << 16
    l1_entries = -(-size // (cluster * cluster // 8))
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, 16, size, 0, l1_entries, 3 * cluster, cluster, 1, 0, 0),
        *(0, 0, 0, 4, 104),
    )
    table = struct.pack(">Q", 2 * cluster)
    counts = struct.pack(">4H", 1, 1, 1, 1)
    return b"".join(part.ljust(cluster, b"\0") for part in (header, table, counts, b""))


@pytest.mark.slow
def test_broken_images_raise_nothing_but_our_errors() -> None:
    data = samplefiles.container("savevm-7.2.qcow2")
    places = [4, 20, 24, 32, 36, 40, 60, 64, 72, 79]
    table = int.from_bytes(data[64:72], "big")
    places += range(table, table + 90, 3)
    for at in places:
        for bit in (0, 7):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            try:
                with qmigtool.open(bytes(broken)) as stream:
                    _ = stream.devices, stream.sections
            except QmigError:
                pass


def image_of(l1: list[int], l2: bytes, *, cluster_bits: int = 16, data: int = 1) -> bytes:
    """A snapshot with this L1 table; one L2 table in cluster 6, then clusters of data."""
    size = 1 << cluster_bits
    head = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 0, 0, cluster_bits, size, 0, 1, 3 * size, size, 1, 1, 4 * size),
        *(0, 0, 0, 4, 104),
    )
    entry = (
        struct.pack(">QIHHIIQII", 5 * size, len(l1), 1, 1, 0, 0, 0, 0, 24) + struct.pack(">QQQ", 100, size, 0) + b"1a"
    )
    table = struct.pack(f">{len(l1)}Q", *l1)
    assert len(table) <= size
    parts = (head, b"", b"", b"", entry, table, l2)
    return b"".join(part.ljust(size, b"\0") for part in parts) + b"\xff" * size * data


@pytest.mark.parametrize("what", ["tables", "clusters"])
def test_a_small_image_does_not_become_a_large_stream(what: str) -> None:
    """Every entry of the L1 table names one L2 table, or every entry of that one cluster."""
    size = 1 << 16
    if what == "tables":
        l1, l2 = [6 * size] * 4000, struct.pack(">Q", 7 * size)
    else:
        l1, l2 = [0, 6 * size], struct.pack(">Q", 7 * size) * (size // 8)
    with pytest.raises(StreamError):
        qmigtool.open(image_of([0, *l1], l2))


def test_an_image_of_empty_tables_is_walked_at_once() -> None:
    size = 1 << 16
    started = time.process_time()
    with pytest.raises(StreamError):
        qmigtool.open(image_of([0] + [6 * size] + [0] * 8000, b""))
    assert time.process_time() - started < 5


def test_an_image_without_a_snapshot() -> None:
    with pytest.raises(UnsupportedError, match="without a snapshot"):
        qmigtool.open(empty_qcow2(1 << 20))
    with pytest.raises(UsageError, match="this is not a qcow2 image"):
        qmigtool.open(samplefiles.read("pc-7.2"), snapshot="one")
