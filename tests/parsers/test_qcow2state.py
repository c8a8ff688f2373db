"""The state in a snapshot: subclusters and compressed clusters as real QEMU reads them, and wrong tables."""

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import qmigtool
from qmigtool.diff import compare
from qmigtool.diff.ram import compare_ram
from qmigtool.errors import StreamError, TruncatedError, UnsupportedError
from tests.conftest import QemuStreamFactory
from tests.parsers.test_qcow2 import empty_qcow2, image_of
from tests.support import casefiles, samplefiles
from tests.support.qcow2images import compress_state, deflated, state_entries
from tests.support.qemu.machine import Machine, Qemu

SIZE = 1 << 16


def zstd_compressor() -> Callable[[bytes], bytes]:
    zstd = pytest.importorskip("backports.zstd", reason="zstd needs the extra qmigtool[zstd] below Python 3.14")
    pack: Callable[[bytes], bytes] = zstd.compress
    return pack


@pytest.mark.qemu
@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize(
    "options",
    [
        "extended_l2=on",
        "extended_l2=on,cluster_size=2M",
        "cluster_size=512",
        "cluster_size=2M,compression_type=zstd",
        "compat=0.10",
        "compression_type=zstd",
        "extended_l2=on,compression_type=zstd",
    ],
)
def test_states_of_real_qemu(options: str, qemu_stream: QemuStreamFactory, tmp_path: Path) -> None:
    """The state as QEMU saves it, then with all its clusters compressed, which QEMU loads, too."""
    image = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, "8M"], check=True)
    machine = Machine(extra=("-drive", f"file={image},if=virtio,format=qcow2"))
    with Qemu(machine, incoming=True) as qemu:
        qemu.load(qemu_stream(Machine()).path)
        qemu.cont()
        qemu.stop()
        assert qemu.hmp("savevm one") == ""
        memory = qemu.pmemsave(0, 16 << 20)
        qemu.migrate_to_file(tmp_path / "plain.mig")

    def same() -> None:
        with qmigtool.open(tmp_path / "plain.mig") as plain, qmigtool.open(image) as snapshot:
            assert snapshot.complete, snapshot.problems
            assert compare(plain, snapshot).same
            assert compare_ram(plain, snapshot).same

    same()
    if "512" in options:
        return  # a sector is not compressed
    assert compress_state(image, zstd_compressor() if "zstd" in options else deflated) >= 1
    same()
    with Qemu(machine) as qemu:
        assert qemu.hmp("loadvm one") == ""
        assert qemu.pmemsave(0, 16 << 20) == memory


def test_a_real_image_with_subclusters() -> None:
    with qmigtool.open(casefiles.read("load", "sv-extl2-10.0.qcow2")) as stream:
        assert stream.complete
        assert (stream.machine, stream.size, len(stream.devices)) == ("pc-i440fx-10.0", 722332, 31)


@pytest.mark.needs("qemu-img")
def test_encrypted_images_and_data_in_another_file_are_named(tmp_path: Path) -> None:
    image = bytearray(empty_qcow2(1 << 20))
    for method, name in ((1, "AES"), (2, "LUKS"), (3, "method 3")):
        struct.pack_into(">I", image, 32, method)
        with pytest.raises(UnsupportedError, match=f"a qcow2 image encrypted by {name}"):
            qmigtool.open(bytes(image))
    other = ("-o", f"data_file={tmp_path / 'secret.raw'}")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *other, tmp_path / "disk.qcow2", "1M"], check=True)
    with pytest.raises(UnsupportedError, match="data in another file, which is not opened") as caught:
        qmigtool.open(tmp_path / "disk.qcow2")
    assert "secret.raw" not in str(caught.value)


@pytest.mark.qemu
@pytest.mark.needs("qemu-img")
def test_qemu_makes_no_snapshot_where_data_is_in_another_file(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    options = f"data_file={tmp_path / 'data.raw'}"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, "1M"], check=True)
    with Qemu(Machine(extra=("-drive", f"file={image},if=virtio,format=qcow2"))) as qemu:
        assert "Error" in qemu.hmp("savevm one")


def extended(entries: list[tuple[int, int]]) -> bytes:
    """Return an image with extended L2 entries and these ones in its state's first table."""
    l2 = b"".join(struct.pack(">QQ", *entry) for entry in entries)
    image = bytearray(image_of([0, 0, 6 * SIZE], l2, data=4))
    struct.pack_into(">Q", image, 72, 0x10)
    return bytes(image)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ((7 * SIZE, 1 << 32 | 1), "subclusters 0x0000000100000001"),
        ((0, 1), "subclusters 0x0000000000000001"),
        ((1 << 40, 1), "after the end of the image"),
    ],
)
def test_subclusters_that_lie(entry: tuple[int, int], words: str) -> None:
    # The state begins at the second table: the disk of one cluster fills a part of the first.
    image = bytearray(extended([entry]))
    table = struct.unpack_from(">Q", image, 64)[0]
    struct.pack_into(">Q", image, table + 40 + 8, 1)  # a disk of one byte
    struct.pack_into(">Q", image, struct.unpack_from(">Q", image, table)[0] + 8, 6 * SIZE)
    with pytest.raises((StreamError, TruncatedError), match=words):
        qmigtool.open(bytes(image))


def test_a_cluster_with_subclusters_is_used_once() -> None:
    image = bytearray(extended([(7 * SIZE, 0x1), (7 * SIZE, 0x2)]))
    struct.pack_into(
        ">Q", image, struct.unpack_from(">Q", image, struct.unpack_from(">Q", image, 64)[0])[0] + 8, 6 * SIZE
    )
    image[7 * SIZE : 7 * SIZE + 8] = b"QEVM\0\0\0\3"
    with qmigtool.open(bytes(image)) as stream:
        assert "used twice" in str(stream.problems[0])


@pytest.mark.parametrize("kind", ["deflate", "zstd"])
def test_compressed_clusters_that_are_damaged_or_short(kind: str, tmp_path: Path) -> None:
    pack = zstd_compressor() if kind == "zstd" else deflated
    path = tmp_path / "disk.qcow2"
    image = bytearray(samplefiles.container("savevm-7.2.qcow2"))
    if kind == "zstd":
        struct.pack_into(">Q", image, 72, struct.unpack_from(">Q", image, 72)[0] | 8)
        image[104] = 1
    path.write_bytes(image)
    whole = qmigtool.open(path).source
    assert compress_state(path, pack) > 5
    with qmigtool.open(path) as stream:
        assert stream.complete
        assert bytes(stream.source.view(0, whole.size or 0)) == bytes(whole.view(0, whole.size or 0))
    path.write_bytes(image)
    compress_state(path, lambda data: pack(data[:-1]))
    with pytest.raises(StreamError, match="a compressed cluster gives 65535 bytes"):
        qmigtool.open(path)
    if kind == "zstd":  # deflated data goes on with what follows, and QEMU accepts that if it is long enough
        path.write_bytes(image)
        compress_state(path, lambda data: pack(data)[:-9])
        with pytest.raises(StreamError, match=r"a damaged cluster|a compressed cluster gives"):
            qmigtool.open(path)
    path.write_bytes(image)
    compress_state(path, lambda _: b"\x07" * 100)
    with pytest.raises(StreamError, match="a damaged cluster"):
        qmigtool.open(path)


def test_a_compressed_bomb_is_a_cluster_long(tmp_path: Path) -> None:
    """What is compressed into a cluster may be larger: only a cluster of it is made."""
    path = tmp_path / "disk.qcow2"
    image = samplefiles.container("savevm-7.2.qcow2")
    path.write_bytes(image)
    compress_state(path, lambda data: deflated(data + bytes(16 << 20)))
    with qmigtool.open(path) as stream:
        assert stream.complete
        assert stream.size == 698078


def test_entries_at_every_offset_are_answered() -> None:
    """Each bit of an L2 entry of the state, set or cleared: an answer or an error of ours."""
    image = samplefiles.container("savevm-7.2.qcow2")
    at, entry = next(state_entries(image))
    for bit in range(64):
        broken = bytearray(image)
        struct.pack_into(">Q", broken, at, entry ^ 1 << bit)
        try:
            with qmigtool.open(bytes(broken)) as stream:
                _ = stream.devices
        except (StreamError, UnsupportedError):
            pass
