"""Streams as they are stored: on volumes that are longer, in images of instances; and what libvirt's XML says."""

import gzip
import json
import struct
import subprocess
from pathlib import Path

import pytest

import qmigtool
from tests.parsers.test_saveimage import save_image
from tests.support import samplefiles
from tests.support.streamwriter import PAGE, StreamWriter, Vmsd, be64, eos, mem_size, num, zero

PC, OTHER = samplefiles.read("pc-7.2"), samplefiles.read("q35-7.2")
LENGTH = 4 << 20


def volume(stream: bytes, before: bytes = b"") -> bytes:
    """Return a volume that holds a stream, over what was on it before."""
    return stream + before[len(stream) : LENGTH].ljust(LENGTH - len(stream), b"\0")


def info(call, path: Path, *options: str, code: int = 0):
    found, out, err = call("info", str(path), "--json", *options)
    assert found == code, err
    return json.loads(out)


@pytest.mark.parametrize(
    ("before", "zero"), [(b"", True), (bytes(3 << 20), True), (OTHER * 3, False), (PC[:1000] * 3000, False)]
)
@pytest.mark.parametrize("name", ["pc-7.2", "novmdesc-7.2"])
def test_what_follows_the_stream(name: str, before: bytes, zero: bool, call, tmp_path: Path) -> None:
    """Padding, or an older and longer stream: its vmdesc is not this one's."""
    stream = samplefiles.read(name)
    (tmp_path / "volume").write_bytes(volume(stream, before))
    found, alone = info(call, tmp_path / "volume"), None
    with qmigtool.open(stream) as plain:
        alone = (plain.machine, len(plain.devices), plain.vmdesc is not None)
    assert (found["machine"], found["devices"], found["vmdesc"]) == alone
    assert (found["behind"], found["behind_zero"]) == (LENGTH - len(stream), zero)
    assert found["complete"] is True
    _, out, _ = call("info", str(tmp_path / "volume"))
    assert ("of zeros" in out, "that are not part of it" in out) == (zero, not zero)


def test_only_the_first_64_mib_after_it_are_looked_at(call, tmp_path: Path) -> None:
    with (tmp_path / "volume").open("wb") as file:
        file.write(PC)
        file.truncate(len(PC) + (100 << 20))
    assert info(call, tmp_path / "volume")["behind_zero"] is None
    with (tmp_path / "plain").open("wb") as file:
        file.write(PC)
    assert info(call, tmp_path / "plain")["behind_zero"] is None


def test_a_state_volume_of_proxmox(call, tmp_path: Path) -> None:
    """A raw volume: the stream has the sections pbs-state and dirty-bitmap, zeros follow."""
    w = StreamWriter("pc-q35-7.2+pve0")
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", PAGE)]) + eos())
    w.start(2, "pbs-state", 0, 1, be64(24) + b"\x01" * 24)
    w.start(3, "dirty-bitmap", 0, 1, struct.pack(">B", 1))
    w.end(1, zero(0, "pc.ram") + eos())
    w.end(3, struct.pack(">B", 1))
    w.device(4, "dev", 0, Vmsd("dev", 1, [num("a", "uint32", 5)]))
    stream = w.finish()
    (tmp_path / "volume").write_bytes(volume(stream))
    found = info(call, tmp_path / "volume")
    assert (found["complete"], found["devices"], found["behind"]) == (True, 1, LENGTH - len(stream))
    with qmigtool.open(tmp_path / "volume") as opened:
        assert {"pbs-state", "dirty-bitmap"} <= {section.name for section in opened.sections}
    code, _, err = call("unwrap", str(tmp_path / "volume"), "-o", str(tmp_path / "out"))
    assert code == 0, err
    assert (tmp_path / "out").read_bytes() == stream


def test_the_state_file_of_an_incus_instance(call, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(gzip.compress(PC))
    found = info(call, tmp_path / "state")
    assert (found["container"], found["compression"], found["complete"]) == ("raw", "gzip", True)


@pytest.mark.needs("qemu-img")
def test_the_image_of_a_suspended_multipass_instance(call, tmp_path: Path) -> None:
    """Its disk is a qcow2 image with the snapshot "suspend"; other snapshots are of the disk only."""
    image = tmp_path / "ubuntu.img"
    image.write_bytes(samplefiles.container("savevm-7.2.qcow2"))
    for name in ("@s1", "@s2"):
        subprocess.run(["qemu-img", "snapshot", "-c", name, image], check=True)
    found = info(call, image)
    assert found["container_details"]["snapshot"] == "snap1"
    assert (found["complete"], found["vcpus"]) == (True, 2)


# -- libvirt's XML ----------------------------------------------------------------------------------------------------


def test_what_info_says_of_the_domain(call, tmp_path: Path) -> None:
    path = tmp_path / "vm.save"
    path.write_bytes(samplefiles.container("libvirt-gzip.save"))
    domain = info(call, path)["domain"]
    assert (domain["name"], domain["machine"], domain["vcpus"]) == ("t", "pc-i440fx-7.2", 2)
    _, out, _ = call("info", str(path))
    assert "- qemu, x86_64 pc-i440fx-7.2, CPU maximum, 2 vCPUs, 16 MiB of memory\n" in out
    code, out, _ = call("info", str(path), "--xml")
    xml = path.read_bytes()[92:].split(b"\0", 1)[0].decode()
    assert (code, out) == (0, xml)
    assert json.loads(call("info", str(path), "--xml", "--json")[1])["xml"] == xml
    (tmp_path / "plain").write_bytes(PC)
    assert info(call, tmp_path / "plain")["domain"] is None
    assert call("info", str(tmp_path / "plain"), "--xml")[0] == 2
    assert call("info", str(path), str(path), "--xml")[0] == 2


@pytest.mark.parametrize(
    "xml",
    [
        b"<domain>\x1b[2J</domain>",
        b"<domain>\n::error::x</domain>\n##vso[task]",
        b"<!DOCTYPE a [<!ENTITY x 'y'>]><domain>&x;</domain>",
        b"\xff\xfe\xfd",
        b"",
    ],
)
def test_xml_that_is_not_to_be_trusted(xml: bytes, call, tmp_path: Path) -> None:
    image = bytearray(save_image(PC))
    image[92 : 92 + 1000] = xml.ljust(1000, b"\0")
    (tmp_path / "vm.save").write_bytes(image)
    found = info(call, tmp_path / "vm.save")
    assert found["complete"] is True
    assert "unread" in found["domain"]
    code, out, _ = call("info", str(tmp_path / "vm.save"), "--xml")
    assert code == 0
    assert "\x1b" not in out
    assert not [line for line in out.splitlines() if line.startswith(("::", "##"))]
    assert "unknown: " in call("info", str(tmp_path / "vm.save"))[1]
