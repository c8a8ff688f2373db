"""The bare stream of every container, and what real QEMU makes of it."""

import gzip
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

import qmigtool
from qmigtool.diff.ram import compare_ram
from qmigtool.errors import UnsupportedError
from qmigtool.parsers.section import Type
from qmigtool.rewrite.bare import bare_stream
from tests.parsers.test_saveimage import save_image
from tests.rewrite.conftest import Call
from tests.support import casefiles, packedsamples, samplefiles
from tests.support.qemu.machine import Machine, Qemu

PC = samplefiles.read("pc-7.2")
CONTAINERS = ("libvirt-raw.save", "libvirt-gzip.save", "savevm-7.2.qcow2", "multifd-10.0.pcap", "postcopy-10.0.pcap")


def unwrapped(call: Call, source: Path, out: Path, *options: object) -> Path:
    code, _, err = call("unwrap", source, "-o", out, *options)
    assert code == 0, err
    return out


@pytest.fixture
def put(tmp_path: Path):
    def make(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return make


# -- what is copied ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        PC,
        PC + bytes(5000),
        PC + samplefiles.read("q35-7.2")[-800_000:],
        bytes(1 << 20) + PC,
        gzip.compress(PC),
        save_image(PC),
        save_image(gzip.compress(PC), form=1),
    ],
    ids=["plain", "padding", "another-stream", "hole", "gzip", "libvirt", "libvirt-gzip"],
)
def test_a_plain_stream_is_copied_byte_for_byte(data: bytes, call: Call, put, tmp_path: Path) -> None:
    source = put("in", data)
    assert unwrapped(call, source, tmp_path / "out").read_bytes() == PC
    assert source.read_bytes() == data


@pytest.mark.needs("gzip")
def test_the_stream_of_a_save_image_is_what_tail_and_gzip_give(call: Call, put, tmp_path: Path) -> None:
    raw, packed = (put(name, samplefiles.container(name)) for name in ("libvirt-raw.save", "libvirt-gzip.save"))
    plain = subprocess.run(["tail", "-c", "+66772", raw], capture_output=True, check=True).stdout
    assert plain[:4] == b"QEVM"
    assert unwrapped(call, raw, tmp_path / "raw.mig").read_bytes() == plain
    tail = subprocess.run(["tail", "-c", "+66772", packed], capture_output=True, check=True).stdout
    plain = subprocess.run(["gzip", "-dc"], input=tail, capture_output=True, check=True).stdout
    assert unwrapped(call, packed, tmp_path / "gzip.mig").read_bytes() == plain


def test_from_a_pipe_to_standard_output(tmp_path: Path, put) -> None:
    source = put("vm.save", save_image(gzip.compress(PC), form=1))
    with source.open("rb") as file:
        cat = subprocess.run(["cat"], stdin=file, capture_output=True, check=True).stdout
    for data in (cat, PC):
        made = subprocess.run(["python3", "-m", "qmigtool", "unwrap", "-", "-o", "-"], input=data, capture_output=True)
        assert made.stdout == PC, made.stderr


# -- what becomes plain -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_keep_their_state_and_memory(name: str, call: Call, put, tmp_path: Path) -> None:
    source = put(name, samplefiles.container(name))
    out = unwrapped(call, source, tmp_path / "out")
    with qmigtool.open(source) as a, qmigtool.open(out) as b:
        assert b.complete
        assert (b.container.name, b.channels, b.start) == ("raw", 0, 0)
        assert compare_ram(a, b).same
        assert [device.body for device in a.devices] == [device.body for device in b.devices]
        assert not {section.type for section in b.sections} & {Type.PREFIX, Type.TAIL}
        names = {section.name for section in b.sections if section.type is Type.COMMAND}
        assert not [one for one in names if one and one.startswith(("POSTCOPY", "PACKAGED", "OPEN_RETURN", "PING"))]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("xbzrle-7.2", "xbzrle pages"),
        ("compress-7.2", "compressed pages"),
        ("mapped-10.0", "mapped-ram"),
        ("mapped-offset-11.1", "mapped-ram"),
        ("multifd-zstd-7.2", "several channels"),
        ("postcopy-preempt-7.2", "several channels, postcopy"),
        ("advise-7.2", "commands of a live migration"),
    ],
)
def test_memory_that_a_file_cannot_have_is_written_as_plain_records(
    name: str, words: str, call: Call, tmp_path: Path
) -> None:
    if "zstd" in name:
        pytest.importorskip("backports.zstd", reason="zstd needs the extra qmigtool[zstd] below Python 3.14")
    sample = packedsamples.packed(name)
    channels = [word for one in sample.channels for word in ("--channel", one)]
    code, _, err = call("unwrap", sample.path, *channels, "-o", tmp_path / "out")
    assert code == 0
    assert words in err
    with qmigtool.open(tmp_path / "out") as stream:
        assert stream.complete
        assert {name for one in stream.ram.count().values() for name, pages in one.items() if pages} <= {
            "zero",
            "normal",
        }
        assert not {"mapped-ram"} & {*stream.capabilities}


def test_channels_that_are_missing(call: Call, tmp_path: Path) -> None:
    sample = packedsamples.packed("multifd-none-7.2")
    code, _, err = call("unwrap", sample.path, "-o", tmp_path / "out")
    assert code == 63
    assert "missing" in err
    assert not (tmp_path / "out").exists()
    with qmigtool.open(sample.path) as stream, pytest.raises(UnsupportedError):
        bare_stream(stream)


def test_a_sparse_save_image_becomes_a_plain_stream(call: Call, put, tmp_path: Path) -> None:
    source = put("vm.save", casefiles.read("load", "libvirt11-sparse.save"))
    out = unwrapped(call, source, tmp_path / "out")
    with qmigtool.open(source) as a, qmigtool.open(out) as b:
        assert out.read_bytes()[:4] == b"QEVM"
        assert compare_ram(a, b).same


# -- what is broken ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: save_image(data), bytes])
def test_what_can_be_read_of_a_broken_stream(pack, call: Call, put, tmp_path: Path) -> None:
    code, _, err = call("unwrap", put("in", pack(PC[:-20_000])), "-o", tmp_path / "out")
    assert code == 3
    assert "which is broken" in err
    assert (tmp_path / "out").read_bytes() == PC[:-20_000]


def test_the_input_is_not_replaced(call: Call, put) -> None:
    source = put("in", gzip.compress(PC))
    assert call("unwrap", source, "-o", source)[0] == 2
    assert source.read_bytes() == gzip.compress(PC, mtime=0) or gzip.decompress(source.read_bytes()) == PC


def test_json(call: Call, put, tmp_path: Path) -> None:
    source = put("in", samplefiles.container("libvirt-gzip.save"))
    code, out, _ = call("unwrap", source, "-o", tmp_path / "out", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["container"], found["removed"], found["bytes"]) == ("libvirt", ["libvirt header", "gzip"], 589630)
    assert (found["notes"], found["proved"], found["problems"]) == ([], True, [])


# -- real QEMU --------------------------------------------------------------------------------------------------------


@pytest.mark.qemu
def test_real_qemu_loads_the_stream_of_a_snapshot(call: Call, put, tmp_path: Path) -> None:
    image = put("disk.qcow2", samplefiles.container("savevm-7.2.qcow2"))
    out = unwrapped(call, image, tmp_path / "out")
    machine = Machine(machine="pc-i440fx-7.2", smp=2, extra=("-serial", "null"))
    disk = ("-drive", f"file={image},if=virtio,format=qcow2")
    with Qemu(Machine(machine="pc-i440fx-7.2", smp=2, extra=(*machine.extra, *disk))) as qemu:
        assert qemu.hmp("loadvm snap1") == ""
        registers, memory = qemu.info_registers(), qemu.pmemsave(0, 16 << 20)
    with Qemu(Machine(machine="pc-i440fx-7.2", smp=2, extra=(*machine.extra, *disk)), incoming=True) as qemu:
        qemu.load(out)
        assert qemu.info_registers() == registers
        assert qemu.pmemsave(0, 16 << 20) == memory


@pytest.mark.qemu
@pytest.mark.parametrize("name", ["libvirt-raw.save", "libvirt-gzip.save"])
def test_real_qemu_loads_the_stream_of_a_save_image(name: str, call: Call, put, tmp_path: Path) -> None:
    out = unwrapped(call, put("vm.save", samplefiles.container(name)), tmp_path / "out")
    devices = (
        *("-serial", "null", "-device", "piix3-usb-uhci,bus=pci.0,addr=0x1.0x2"),
        *("-device", "virtio-balloon-pci,bus=pci.0,addr=0x2"),
    )
    with Qemu(Machine(machine="pc-i440fx-7.2,acpi=off", smp=2, extra=devices), incoming=True) as qemu:
        qemu.load(out)
        with qmigtool.open(out) as stream:
            found = qemu.all_registers()
            for vcpu, loaded in zip(stream.vcpus, found, strict=True):
                assert loaded.vectors[1][:16] == vcpu.xsave.xmm(1)


@pytest.mark.qemu
@pytest.mark.parametrize(
    "name",
    ["plain-7.2", "xbzrle-7.2", "compress-live-7.2", "multifd-none-7.2", "multifd-zlib-7.2", "postcopy-preempt-7.2"],
)
def test_real_qemu_loads_what_became_plain(name: str, call: Call, tmp_path: Path) -> None:
    sample = packedsamples.packed(name)
    channels = [word for one in sample.channels for word in ("--channel", one)]
    out = unwrapped(call, sample.path, tmp_path / "out", *channels)
    with qmigtool.open(out) as stream:  # whose firmware is no larger than it has to be
        size = next(block.used_length for block in stream.ram_blocks if block.idstr == "pc.bios")
        smp = len(stream.vcpus)
        serial = ("-serial", "null") if "serial" in {device.name for device in stream.devices} else ()
    (tmp_path / "bios").write_bytes(bytes(size))
    machine = Machine(machine="pc-i440fx-7.2", smp=smp, extra=("-bios", str(tmp_path / "bios"), *serial))
    with Qemu(machine, incoming=True) as qemu:
        qemu.load(out)
        memory = bytearray(qemu.pmemsave(0, 16 << 20))
    memory[0xA0000:0x100000] = bytes(0x60000)
    if name in packedsamples.RAM:
        assert hashlib.sha256(memory).hexdigest() == packedsamples.RAM[name]["sha256"]


def test_absent_memory_becomes_zeros_only_if_asked_for(call: Call, tmp_path: Path) -> None:
    main, out = packedsamples.packed("multifd-zstd-7.2").path, tmp_path / "out"
    code, _, err = call("unwrap", main, "-o", out)
    assert code == 63
    assert not out.exists()
    assert "`qmigtool unwrap` has --channel and --absent zero" in err
    assert "--ram" not in err
    assert "1 pages" not in err
    code, _, err = call("unwrap", main, "--absent", "zero", "-o", out)
    assert code == 0, err
    assert "343 pages of 'pc.ram'" in err
    assert "written as zeros" in err
    assert "postcopy" not in err
    with qmigtool.open(out) as stream:
        assert not stream.problems
        assert stream.ram.absent("pc.ram") == 0


def test_the_last_line_says_what_was_unwrapped(call: Call, put, tmp_path: Path) -> None:
    plain = put("plain", PC)
    assert f"copied: {plain} has no container" in call("unwrap", plain, "-o", tmp_path / "out")[2]
    padded = put("padded", PC + bytes(5000))
    assert f"the plain stream of {padded}" in call("unwrap", padded, "-o", tmp_path / "out")[2]
    packed = put("packed", gzip.compress(PC))
    assert f"unwrapped from {packed} (gzip)" in call("unwrap", packed, "-o", tmp_path / "out")[2]
    assert f"{plain} as gzip" in call("wrap", plain, "--as", "gzip", "-o", tmp_path / "out")[2]
