"""Copies of qcow2 images with a snapshot's state replaced, as qemu-img and real QEMU see them."""

import struct
import subprocess
from pathlib import Path

import pytest

import qmigtool
from tests.conftest import QemuStreamFactory
from tests.rewrite.conftest import Call
from tests.support import samplefiles
from tests.support.qemu.machine import Machine, Qemu

SIZE = 16 << 20


def check(image: Path) -> None:
    found = subprocess.run(["qemu-img", "check", image], capture_output=True, text=True)
    assert (found.returncode, "No errors were found" in found.stdout) == (0, True), found.stdout + found.stderr


def ended(qemu: Qemu) -> None:
    """End it in order: where it is killed, what it has of the image in memory is lost."""
    qemu.execute("quit")
    qemu.wait()


def replaced(call: Call, image: Path, folder: Path, name: str, *edits: str) -> Path:
    """Edit the state of a snapshot, and put it back into a copy of the image."""
    assert call("rewrite", image, "--snapshot", name, *edits, "-o", folder / "edited")[0] == 0
    code, _, err = call(
        "wrap", folder / "edited", "--as", "qcow2", "--like", image, "--replace", name, "-o", folder / "new.qcow2"
    )
    assert code == 0, err
    return folder / "new.qcow2"


@pytest.mark.qemu
@pytest.mark.needs("qemu-img", "qemu-io")
@pytest.mark.parametrize(
    "options",
    [
        "cluster_size=64k",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=2M",
        "cluster_size=4k,refcount_bits=4",
        "refcount_bits=8",
        "compat=0.10",
        "extended_l2=on",
        "lazy_refcounts=on",
        "compression_type=zstd",
    ],
)
@pytest.mark.parametrize("loaded", [False, True])
def test_real_qemu_loads_the_new_state(
    options: str, loaded: bool, call: Call, qemu_stream: QemuStreamFactory, tmp_path: Path
) -> None:
    """``loaded``: one snapshot was loaded last, so that the disk's own tables share its state."""
    image = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, image, "8M"], check=True)
    subprocess.run(["qemu-io", "-c", "write -q -P 7 1M 300k", image], check=True)
    machine = Machine(extra=("-drive", f"file={image},if=virtio,format=qcow2"))
    with Qemu(machine, incoming=True) as qemu:
        qemu.load(qemu_stream(Machine()).path)
        qemu.cont()
        qemu.stop()
        assert qemu.hmp("savevm one") == ""
        assert qemu.hmp("savevm two") == ""
        if loaded:
            assert qemu.hmp("loadvm one") == ""
        memory, registers = qemu.pmemsave(0, SIZE), qemu.registers(0)
        ended(qemu)
    check(image)
    before = image.read_bytes()
    new = replaced(call, image, tmp_path, "one", "--set", "cpu@0/env.mxcsr=0x1fa0", "--squeeze-zero-pages")
    assert image.read_bytes() == before
    check(new)
    listed = [
        subprocess.run(["qemu-img", "snapshot", "-l", one], capture_output=True, check=True).stdout.split(b"\n")[3]
        for one in (image, new)
    ]
    assert listed[0] == listed[1]  # of the other snapshot
    same = subprocess.run(["qemu-img", "compare", "-q", image, new], capture_output=True)
    assert same.returncode == 0
    with Qemu(Machine(extra=("-drive", f"file={new},if=virtio,format=qcow2"))) as qemu:
        assert qemu.hmp("loadvm one") == ""
        assert qemu.registers(0).mxcsr == 0x1FA0
        assert qemu.pmemsave(0, SIZE) == memory
        assert qemu.hmp("loadvm two") == ""
        assert qemu.registers(0).mxcsr == registers.mxcsr
        assert qemu.hmp("delvm one") == ""
        ended(qemu)
    check(new)


@pytest.mark.needs("qemu-img")
def test_a_longer_and_a_shorter_state(call: Call, tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    image.write_bytes(samplefiles.container("savevm-7.2.qcow2"))
    for name in ("q35-7.2", "arm-7.2"):
        out = tmp_path / f"{name}.qcow2"
        assert call("wrap", samplefiles.path(name), "--as", "qcow2", "--like", image, "-o", out)[0] == 0
        check(out)
        with qmigtool.open(out) as stream:
            assert bytes(stream.source.view(0, stream.size or 0)) == samplefiles.read(name)
        image = out  # again


@pytest.mark.needs("qemu-img")
def test_over_a_backing_file(call: Call, tmp_path: Path) -> None:
    """Zeros of the state are written as such: an unallocated cluster would show the backing file's data."""
    image = tmp_path / "disk.qcow2"
    image.write_bytes(samplefiles.container("savevm-7.2.qcow2"))
    base = tmp_path / "base.raw"
    base.write_bytes(b"\xff" * (64 << 10))
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", base, image], check=True)
    assert call("wrap", image, "--as", "qcow2", "-o", tmp_path / "new.qcow2")[0] == 0
    check(tmp_path / "new.qcow2")


def words(image: bytearray, at: int, value: int, size: int = 8) -> bytes:
    image[at : at + size] = value.to_bytes(size, "big")
    return bytes(image)


@pytest.mark.parametrize("what", ["dirty", "corrupt", "refcounts", "l1", "refcount-order", "table"])
def test_images_that_are_not_right(what: str, call: Call, tmp_path: Path) -> None:
    image = bytearray(samplefiles.container("savevm-7.2.qcow2"))
    edits = {
        "dirty": (72, 1, 8, 63, "in use, or not closed"),
        "corrupt": (72, 2, 8, 63, "marked as corrupt"),
        "refcounts": (
            struct.unpack_from(">Q", image, struct.unpack_from(">Q", image, 48)[0])[0],
            0,
            65536,
            3,
            "refcounts",
        ),
        "l1": (36, 0xFFFFFFFF, 4, 3, "an L1 table of 4294967295 entries"),
        "refcount-order": (96, 60, 4, 3, "refcounts of"),
        "table": (48, 0x30200, 8, 3, "refcounts"),
    }
    at, value, size, code, said = edits[what]
    path = tmp_path / "disk.qcow2"
    path.write_bytes(words(image, at, value, size))
    found, _, err = call("wrap", path, "--as", "qcow2", "-o", tmp_path / "out")
    assert (found, said in err) == (code, True), err
    assert not (tmp_path / "out").exists()


def test_wrong_usage(call: Call, tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    image.write_bytes(samplefiles.container("savevm-7.2.qcow2"))
    plain = samplefiles.path("pc-7.2")
    for arguments, said in (
        ((plain, "--as", "qcow2", "-o", tmp_path / "out"), "needs the image"),
        (
            (plain, "--as", "qcow2", "--like", plain, "-o", tmp_path / "out"),
            "is not a qcow2 image (expected an uncompressed one)",
        ),
        ((plain, "--as", "qcow2", "--like", image, "--replace", "two", "-o", tmp_path / "out"), "no snapshot 'two'"),
        ((image, "--as", "qcow2", "-o", "-"), "not written in order"),
        ((image, "--as", "qcow2", "-o", image), "is the input"),
        ((plain, "--as", "qcow2", "--like", image, "-o", image), "is the input"),
        ((plain, "--as", "libvirt", "--replace", "one", "-o", tmp_path / "out"), "--replace goes with --as qcow2"),
    ):
        code, _, err = call("wrap", *arguments)
        assert (code, said in err) == (2, True), err
    assert image.read_bytes() == samplefiles.container("savevm-7.2.qcow2")
