"""Streams out of their containers: real save images, snapshots and captures, layer by layer, and what commands say."""

import gzip
import io
import json
import lzma
from pathlib import Path

import pytest

import qmigtool
from qmigtool.cli.main import run
from qmigtool.errors import LimitError
from qmigtool.rewrite import Rewriter
from tests.support import casefiles, samplefiles
from tests.support.samplefiles import CONTAINERS as FOLDER

PC = samplefiles.read("pc-7.2")


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
    data = samplefiles.container("libvirt-raw.save")
    with qmigtool.open(data) as stream:
        assert stream.container.in_place
        assert stream.container.details["was_running"] is True
        first = stream.sections[1]
        assert first.offset == stream.container.details["stream_offset"] == 0x104D3
        assert data[first.offset : first.offset + 4] == b"QEVM"
        assert stream.strategy == "tail-first"


def test_a_rewritten_save_image_is_still_one() -> None:
    """libvirt's header is copied as it is: only the stream behind it changes."""
    data = samplefiles.container("libvirt-raw.save")
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
        assert rewriter.notes == ["the output does not have the source's wrapping: xz, qcow2"]
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
        assert rewriter.notes == ["the output does not have the source's wrapping: xz"]
        rewriter.save(out)
    assert out.read_bytes().startswith(b"LibvirtQemudSave")
    with qmigtool.open(lzma.compress(casefiles.read("load", "libvirt11-sparse.save"))) as stream:
        assert Rewriter(stream).notes == ["the output does not have the source's wrapping: xz"]
    plain = tmp_path / "plain"
    plain.touch()
    assert out.stat().st_mode == plain.stat().st_mode
    with qmigtool.open(FOLDER / "libvirt-gzip.save.xz") as stream:
        assert stream.container.removed == ("xz", "libvirt header", "gzip")


def test_the_channels_of_a_capture_come_with_it() -> None:
    with qmigtool.open(FOLDER / "multifd-10.0.pcap.xz") as stream:
        assert stream.channels == 3
        page = stream.ram.page("pc.ram", 0x100000)
        assert page[:4] != bytes(4)
    with qmigtool.open(FOLDER / "postcopy-10.0.pcap.xz") as stream:
        assert stream.channels == 1  # the return path
        assert stream.ram.page("pc.ram", 0x100000)[:4] != bytes(4)


def test_packed_twice() -> None:
    with qmigtool.open(gzip.compress(lzma.compress(PC))) as stream:
        assert stream.complete
    data = PC
    for _ in range(6):
        data = gzip.compress(data)
    with pytest.raises(LimitError, match="too many nested"):
        qmigtool.open(data)


def test_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmigtool.stream.unwrapped.SPARE", 1 << 62)
    with pytest.raises(LimitError, match=r"no space in .* for it"):
        qmigtool.open(gzip.compress(PC))


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["info", str(FOLDER / "savevm-7.2.qcow2.xz"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["container"], document["compression"]) == ("qcow2", "xz")
    assert document["container_details"] == {"snapshot": "snap1", "snapshot_id": "1", "vm_state_size": 698078}
    assert document["size"] == 698078
    assert (document["layers"], document["file_size"]) == (
        ["xz", "qcow2"],
        (FOLDER / "savevm-7.2.qcow2.xz").stat().st_size,
    )
    assert run(["info", str(FOLDER / "multifd-10.0.pcap.xz")]) == 0
    out = capsys.readouterr().out
    assert "xz > pcap (size and offsets count in the result)" in out
    assert "- 127.0.0.1:46170 -> 127.0.0.1:4567: main, 120.4 KiB (123331 bytes)" in out
    assert "--channel" not in out


def test_an_output_does_not_replace_a_container(tmp_path: Path) -> None:
    file = tmp_path / "vm.gz"
    file.write_bytes(gzip.compress(PC))
    before = file.read_bytes()
    assert run(["rewrite", str(file), "--set", "cpu@0/env.regs[3]=5", "-o", str(file)]) == 2
    assert file.read_bytes() == before
    assert run(["rewrite", str(file), "--set", "cpu@0/env.regs[3]=5", "-o", str(tmp_path / "out.mig")]) == 0
