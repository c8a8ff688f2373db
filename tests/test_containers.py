"""Streams out of their containers: real save images, snapshots and captures, and what somebody has broken of them."""

import bz2
import gzip
import io
import json
import lzma
import struct
import time
from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.diff import compare
from qmigtool.errors import LimitError, QmigError, StreamError, TruncatedError, UnsupportedError, UsageError
from qmigtool.rewrite import Rewriter
from tests import samplefiles
from tests.conftest import QemuStreamFactory
from tests.oracle.qemu import Machine, Qemu

FOLDER = Path(__file__).parents[1] / "samples" / "containers"
PC = samplefiles.read("pc-7.2")


def unpacked(name: str) -> bytes:
    return lzma.decompress((FOLDER / f"{name}.xz").read_bytes())


# -- real ones --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "container", "compression", "machine", "vcpus"),
    [
        ("libvirt-raw.save", "libvirt", "xz", "pc-i440fx-7.2", 2),
        ("libvirt-gzip.save", "libvirt", "gzip", "pc-i440fx-7.2", 2),
        ("savevm-7.2.qcow2", "qcow2", "xz", "pc-i440fx-7.2", 2),
        ("multifd-10.0.pcap", "pcap", "xz", "pc-i440fx-10.0", 2),
        ("postcopy-10.0.pcap", "pcap", "xz", "pc-i440fx-10.0", 2),
    ],
)
def test_real_containers(name: str, container: str, compression: str, machine: str, vcpus: int) -> None:
    with qmigtool.open(FOLDER / f"{name}.xz") as stream:
        assert stream.container.name == container
        assert stream.container.compression == compression
        assert stream.machine == machine
        assert len(stream.vcpus) == vcpus
        assert stream.complete, stream.problems
        # The pattern that the guest loads: see the manifest.
        assert any(vcpu.xsave.xmm(1) == bytes(range(1, 17)) for vcpu in stream.vcpus)


def test_a_raw_save_image_is_read_where_it_lies() -> None:
    data = unpacked("libvirt-raw.save")
    with qmigtool.open(data) as stream:
        assert stream.container.in_place
        assert stream.container.details["was_running"] is True
        first = stream.sections[1]
        assert first.offset == stream.container.details["stream_offset"] == 0x104D3
        assert data[first.offset : first.offset + 4] == b"QEVM"
        assert stream.road == "tail-first"


def test_a_rewritten_save_image_is_still_one() -> None:
    """libvirt's head is copied as it is: only the stream behind it changes."""
    data = unpacked("libvirt-raw.save")
    with qmigtool.open(data) as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.regs[3]", 0x1234)
        out = io.BytesIO()
        rewriter.write(out)
    assert out.getvalue()[:0x104D3] == data[:0x104D3]
    with qmigtool.open(out.getvalue()) as stream:
        assert stream.container.name == "libvirt"
        assert stream.field("cpu@0/env.regs[3]").value == 0x1234


def test_a_rewritten_snapshot_is_the_stream_alone() -> None:
    with qmigtool.open(FOLDER / "savevm-7.2.qcow2.xz") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.regs[3]", 0x1234)
        assert rewriter.notes == ["the output is without what was taken off: xz, qcow2"]
        out = io.BytesIO()
        rewriter.write(out)
    assert out.getvalue().startswith(b"QEVM")
    with qmigtool.open(out.getvalue()) as stream:
        assert stream.container.name == "raw"
        assert stream.complete


def test_only_what_was_taken_off_is_gone(tmp_path: Path) -> None:
    """A save image that xz has packed is a save image again; it has the rights of any new file."""
    out = tmp_path / "out"
    with qmigtool.open(FOLDER / "libvirt-raw.save.xz") as stream:
        rewriter = Rewriter(stream)
        rewriter.set("cpu@0/env.regs[3]", 0x1234)
        assert rewriter.notes == ["the output is without what was taken off: xz"]
        rewriter.save(out)
    assert out.read_bytes().startswith(b"LibvirtQemudSave")
    plain = tmp_path / "plain"
    plain.touch()
    assert out.stat().st_mode == plain.stat().st_mode
    with qmigtool.open(FOLDER / "libvirt-gzip.save.xz") as stream:
        assert stream.container.removed == ("xz", "libvirt's head", "gzip")


def test_the_channels_of_a_capture_come_with_it() -> None:
    with qmigtool.open(FOLDER / "multifd-10.0.pcap.xz") as stream:
        assert stream.channels == 3
        page = stream.ram.page("pc.ram", 0x100000)
        assert page[:4] != bytes(4)
    with qmigtool.open(FOLDER / "postcopy-10.0.pcap.xz") as stream:
        assert stream.channels == 1  # the return path
        assert stream.ram.page("pc.ram", 0x100000)[:4] != bytes(4)


@pytest.mark.qemu
def test_a_snapshot_holds_what_a_migration_sends(qemu_stream: QemuStreamFactory, tmp_path: Path) -> None:
    """Real QEMU saves one stopped guest twice: into a qcow2 image, and as a stream."""
    image = tmp_path / "disk.qcow2"
    image.write_bytes(empty_qcow2(64 << 20))
    machine = Machine(extra=("-drive", f"file={image},if=virtio,format=qcow2"))
    first = qemu_stream(Machine()).path
    with Qemu(machine, incoming=True) as qemu:
        qemu.load(first)
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
    assert run(["info", str(image)]) == 2


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


# -- compression ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)])
def test_packed_streams(name: str, pack: object) -> None:
    assert callable(pack)
    half = len(PC) // 2
    for packed in (pack(PC), pack(PC[:half]) + pack(PC[half:]), pack(PC) + bytes(4096)):
        with qmigtool.open(packed) as stream:
            assert stream.complete, stream.problems
            assert stream.container.compression == name
            assert not stream.container.in_place
            assert bytes(stream.source.view(0, len(PC))) == PC


def test_zstd() -> None:
    zstd = pytest.importorskip("backports.zstd", reason="zstd needs the extra qmigtool[zstd] below Python 3.14")
    with qmigtool.open(zstd.compress(PC)) as stream:
        assert stream.complete
        assert stream.container.compression == "zstd"
    with pytest.raises(StreamError, match="damaged zstd"):
        qmigtool.open(b"\x28\xb5\x2f\xfd" + b"\xff" * 40)


def test_packed_twice() -> None:
    with qmigtool.open(gzip.compress(lzma.compress(PC))) as stream:
        assert stream.complete
    data = PC
    for _ in range(6):
        data = gzip.compress(data)
    with pytest.raises(LimitError, match="without end"):
        qmigtool.open(data)


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)])
def test_many_members(name: str, pack: object) -> None:
    assert callable(pack)
    parts = [PC[at : at + 300] for at in range(0, 60_000, 300)]
    with qmigtool.open(b"".join(map(pack, parts)) + pack(PC[60_000:])) as stream:
        assert stream.complete
    with pytest.raises(LimitError, match="1001 members with nothing in them"):
        qmigtool.open(pack(b"") * 1500)
    with qmigtool.open(pack(b"") * 500 + pack(PC)) as stream:
        assert stream.complete


def test_what_can_be_unpacked_of_a_broken_file_is_shown() -> None:
    packed = gzip.compress(PC)
    with qmigtool.open(packed[:-20000]) as stream:
        assert isinstance(stream.problems[0], TruncatedError)
        assert stream.machine == "pc-i440fx-7.2"
        assert not stream.complete
    damaged = bytearray(lzma.compress(PC))
    damaged[len(damaged) // 2] ^= 0xFF
    with pytest.raises(QmigError):
        qmigtool.open(bytes(damaged)).device("cpu")


def test_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmigtool.unwrap.SPARE", 1 << 62)
    with pytest.raises(LimitError, match=r"no room in .* to unpack it"):
        qmigtool.open(gzip.compress(PC))


# -- libvirt ----------------------------------------------------------------------------------------------------------


def save_image(
    payload: bytes,
    *,
    version: int = 2,
    form: int = 0,
    order: str = "<",
    magic: bytes = b"LibvirtQemudSave",
    **words: int,
) -> bytes:
    """A save image with 1000 bytes of XML and slack (src/qemu/qemu_saveimage.h)."""
    xml = b"<domain/>\0".ljust(1000, b"\0")
    numbers = (version, words.get("length", len(xml)), 1, form, words.get("cookie", 0))
    return magic + struct.pack(f"{order}5I", *numbers).ljust(76, b"\0") + xml + payload


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
def test_save_images_of_either_byte_order(order: str, version: int) -> None:
    with qmigtool.open(save_image(PC, order=order, version=version)) as stream:
        assert stream.complete
        assert stream.container.details["stream_offset"] == 1092


@pytest.mark.parametrize(("form", "pack"), [(1, gzip.compress), (2, bz2.compress), (3, lzma.compress)])
def test_save_images_that_are_packed(form: int, pack: object) -> None:
    assert callable(pack)
    with qmigtool.open(save_image(pack(PC), form=form)) as stream:
        assert stream.complete
        assert (stream.container.name, stream.container.in_place) == ("libvirt", False)


def test_an_unfinished_save_image_says_so() -> None:
    with qmigtool.open(save_image(PC, magic=b"LibvirtQemudPart")) as stream:
        assert "did not finish" in str(stream.problems[0])
        assert stream.vcpus


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"version": 3}, StreamError),
        ({"length": 1 << 30}, LimitError),
        ({"length": 1 << 22}, TruncatedError),
        ({"cookie": 5000}, StreamError),
        ({"form": 4}, UnsupportedError),
        ({"form": 9}, UnsupportedError),
    ],
)
def test_broken_save_images(words: dict[str, int], error: type[QmigError]) -> None:
    with pytest.raises(error) as caught:
        qmigtool.open(save_image(PC, **words))  # type: ignore[arg-type]
    assert caught.value.offset is not None


# -- qcow2 ------------------------------------------------------------------------------------------------------------


def test_broken_images_raise_nothing_but_our_errors() -> None:
    data = unpacked("savevm-7.2.qcow2")
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
    with pytest.raises(UsageError, match="this is no qcow2 image"):
        qmigtool.open(PC, snapshot="one")


# -- what commands say ------------------------------------------------------------------------------------------------


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(FOLDER / "savevm-7.2.qcow2.xz"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["container"], document["compression"]) == ("qcow2", "xz")
    assert document["container_details"] == {"snapshot": "snap1", "snapshot_id": "1", "vm_state_size": 698078}
    assert document["size"] == 698078
    assert run(["info", str(FOLDER / "multifd-10.0.pcap.xz")]) == 0
    out = capsys.readouterr().out
    assert "- 127.0.0.1:46170 -> 127.0.0.1:4567: 120.4 KiB (123331 bytes)" in out
    assert "--channel" not in out


def test_containers_through_a_pipe_are_named() -> None:
    with pytest.raises(UnsupportedError, match="gzip compression through a pipe"):
        qmigtool.open(io.BytesIO(gzip.compress(PC)))


def test_an_output_does_not_replace_a_container(tmp_path: Path) -> None:
    file = tmp_path / "vm.gz"
    file.write_bytes(gzip.compress(PC))
    before = file.read_bytes()
    assert run(["rewrite", str(file), "--set", "cpu@0/env.regs[3]=5", "-o", str(file)]) == 2
    assert file.read_bytes() == before
    assert run(["rewrite", str(file), "--set", "cpu@0/env.regs[3]=5", "-o", str(tmp_path / "out.mig")]) == 0
