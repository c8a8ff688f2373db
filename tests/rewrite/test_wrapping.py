"""Streams put into containers: what the programs of those names and real QEMU make of them."""

import gzip
import json
import struct
import subprocess
from pathlib import Path

import pytest

import qmigtool
from qmigtool.errors import QmigError
from qmigtool.parsers.domainxml import domain_facts, parse_xml
from tests.rewrite.conftest import Call
from tests.support import casefiles, samplefiles
from tests.support.qemu.machine import Machine, Qemu

PC = samplefiles.read("pc-7.2")
PROGRAMS = {"gzip": "gzip", "bzip2": "bzip2", "xz": "xz", "zstd": "zstd", "lz4": "lz4", "lzop": "lzop"}
PACKAGES = {"zstd": "backports.zstd", "lz4": "lz4", "lzop": "lzokay"}
XML = b"<domain type='kvm'>\n  <name>vm</name>\n</domain>\n"


@pytest.fixture
def put(tmp_path: Path):
    def make(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return make


def words(image: bytes) -> tuple[int, ...]:
    return struct.unpack("<5I", image[16:36])


# -- compressed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.needs(program)) for kind, program in PROGRAMS.items()]
)
def test_the_program_decompresses_it(kind: str, call: Call, put, tmp_path: Path) -> None:
    if kind in PACKAGES:
        pytest.importorskip(PACKAGES[kind], reason=f"{kind} needs the extra qmigtool[{kind}]")
    out = tmp_path / "out"
    for source in (put("plain", PC), put("packed", gzip.compress(PC)), put("padded", PC + bytes(9000))):
        code, _, err = call("wrap", source, "--as", kind, "-o", out)
        assert code == 0, err
        assert subprocess.run([PROGRAMS[kind], "-dc"], input=out.read_bytes(), capture_output=True).stdout == PC
        with qmigtool.open(out) as stream:
            assert stream.container.compression == kind


# -- libvirt's save images --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["libvirt-raw.save", "libvirt-gzip.save"])
def test_a_save_image_goes_back_into_one(name: str, call: Call, put, tmp_path: Path) -> None:
    """With its header, its cookie, its compression: what libvirt wrote, but for what gzip makes of the same bytes."""
    data = samplefiles.container(name)
    source, out = put(name, data), tmp_path / "out"
    assert call("unwrap", source, "-o", tmp_path / "bare")[0] == 0
    for given in ((source,), (tmp_path / "bare", "--like", source)):
        assert call("wrap", *given, "--as", "libvirt", "-o", out)[0] == 0
        made = out.read_bytes()
        assert made[:0x104D3] == data[:0x104D3]
        bare = (tmp_path / "bare").read_bytes()
        assert (gzip.decompress(made[0x104D3:]) if "gzip" in name else made[0x104D3:]) == bare


def test_the_cookie_and_the_run_state(call: Call, put, tmp_path: Path) -> None:
    source, out = put("in.save", samplefiles.container("libvirt-gzip.save")), tmp_path / "out"
    cookie = words(source.read_bytes())[4]
    assert source.read_bytes()[92 + cookie :].startswith(b"<cookie>")
    xml = put("new.xml", XML.replace(b"vm", b"v" * 200_000))
    code, _, _ = call("wrap", source, "--as", "libvirt", "--xml", xml, "--paused", "--format", "xz", "-o", out)
    assert code == 0
    version, length, running, form, cookie = words(out.read_bytes())
    assert (version, running, form, length > 264_000) == (2, 0, 3, True)
    data = out.read_bytes()[92 : 92 + length]
    assert data.split(b"\0")[0] == xml.read_bytes()
    assert data[cookie:].split(b"\0")[0] == source.read_bytes()[92 + words(source.read_bytes())[4] :].split(b"\0")[0]
    with qmigtool.open(source) as a, qmigtool.open(out) as b:
        assert [device.body for device in a.devices] == [device.body for device in b.devices]


def test_a_sparse_image_becomes_a_raw_one(call: Call, put, tmp_path: Path) -> None:
    source = put("vm.save", casefiles.read("load", "libvirt11-sparse.save"))
    assert call("wrap", source, "--as", "libvirt", "-o", tmp_path / "out")[0] == 0
    assert words((tmp_path / "out").read_bytes())[3] == 0
    with qmigtool.open(tmp_path / "out") as stream:
        assert stream.complete


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--as", "libvirt"], 2, "needs the domain's XML"),
        (["--as", "libvirt", "--like", "{plain}"], 2, "is not a save image of libvirt"),
        (["--as", "gzip", "--xml", "{xml}"], 2, "--xml goes with --as libvirt"),
        (["--as", "gzip", "--format", "xz"], 2, "--format goes with --as libvirt"),
        (["--as", "libvirt", "--xml", "{plain}"], 3, "the XML"),
    ],
)
def test_wrong_usage(options: list[str], code: int, said: str, call: Call, put, tmp_path: Path) -> None:
    names = {"plain": put("plain", PC), "xml": put("xml", XML)}
    found, _, err = call("wrap", names["plain"], *(one.format(**names) for one in options), "-o", tmp_path / "out")
    assert found == code
    assert said in err
    assert not (tmp_path / "out").exists()


def test_inputs_are_not_replaced(call: Call, put) -> None:
    source, image = put("plain", PC), put("in.save", samplefiles.container("libvirt-raw.save"))
    before = image.read_bytes()
    assert call("wrap", source, "--as", "gzip", "-o", source)[0] == 2
    assert call("wrap", source, "--as", "libvirt", "--like", image, "-o", image)[0] == 2
    assert (source.read_bytes(), image.read_bytes()) == (PC, before)


def test_json_and_standard_output(call: Call, put, tmp_path: Path) -> None:
    source, xml = put("plain", PC), put("xml", XML)
    code, out, _ = call("wrap", source, "--as", "libvirt", "--xml", xml, "-o", tmp_path / "out", "--json")
    found = json.loads(out)
    assert (code, found["container"], found["bytes"]) == (0, "libvirt", (tmp_path / "out").stat().st_size)
    made = subprocess.run(
        ["python3", "-m", "qmigtool", "wrap", "-", "--as", "gzip", "-o", "-"], input=PC, capture_output=True
    )
    assert gzip.decompress(made.stdout) == PC


@pytest.mark.qemu
def test_real_qemu_loads_what_follows_the_header(call: Call, put, tmp_path: Path) -> None:
    """As libvirt hands it over: decompressed by the program that the header names."""
    image = put("in.save", samplefiles.container("libvirt-raw.save"))
    assert call("rewrite", image, "--set", "cpu@0/env.mxcsr=0x1fa0", "-o", tmp_path / "edited")[0] == 0
    assert call("wrap", tmp_path / "edited", "--as", "libvirt", "--format", "gzip", "-o", tmp_path / "out")[0] == 0
    data = (tmp_path / "out").read_bytes()
    (tmp_path / "payload").write_bytes(gzip.decompress(data[92 + words(data)[1] :]))
    devices = (
        *("-serial", "null", "-device", "piix3-usb-uhci,bus=pci.0,addr=0x1.0x2"),
        *("-device", "virtio-balloon-pci,bus=pci.0,addr=0x2"),
    )
    with Qemu(Machine(machine="pc-i440fx-7.2,acpi=off", smp=2, extra=devices), incoming=True) as qemu:
        qemu.load(tmp_path / "payload")
        assert qemu.registers(0).mxcsr == 0x1FA0


# -- XML that is not to be trusted ------------------------------------------------------------------------------------

LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<domain>&b;</domain>"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "a document type or an entity"),
        (b'<!DOCTYPE d SYSTEM "file:///etc/passwd"><domain/>', "a document type or an entity"),
        (b"<domain>&x;</domain>", "not well-formed"),
        (b"<a>" * 200 + b"</a>" * 200, "deep"),
        (b"<domain>" + b"<a/>" * 200_000 + b"</domain>", "elements"),
        (b"<domain>" + b" " * (17 << 20) + b"</domain>", "bytes of XML"),
        (b"", "not well-formed"),
        (b"<domain>", "not well-formed"),
        (b"<domain/><domain/>", "not well-formed"),
        (b"<?xml version='1.0' encoding='no-such'?><domain/>", "not well-formed"),
        (b"\xff\xfe", "not well-formed"),
        (b"<network/>", "the root of the XML is 'network'"),
        (b"<domain>\0</domain>", "a byte of 0"),
    ],
)
def test_xml_that_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(QmigError, match=said):
        domain_facts(text)


def test_what_the_xml_says() -> None:
    image = samplefiles.container("libvirt-gzip.save")
    found = domain_facts(image[92:].split(b"\0", 1)[0])
    assert found == {
        "name": "t",
        "uuid": "b53285ac-3ef9-4269-8de9-0fdee4291f17",
        "type": "qemu",
        "machine": "pc-i440fx-7.2",
        "arch": "x86_64",
        "cpu_mode": "maximum",
        "cpu_model": None,
        "vcpus": 2,
        "maximum_vcpus": 2,
        "memory": 16 << 20,
        "devices": found["devices"],
    }
    assert "memballoon virtio" in found["devices"]


@pytest.mark.parametrize(
    "text",
    [
        b"<domain><memory unit='zebibytes'>5</memory><vcpu>many</vcpu></domain>",
        b"<domain><memory>" + b"9" * 5000 + b"</memory><vcpu current='" + b"9" * 5000 + b"'>1</vcpu></domain>",
        b"<domain><os/><cpu/><devices/></domain>",
    ],
)
def test_numbers_that_are_none(text: bytes) -> None:
    found = domain_facts(text)
    assert (found["memory"], found["vcpus"]) == (None, None)
    assert found["devices"] == []


def test_text_is_kept() -> None:
    assert parse_xml(b"<a>x<b>y</b>z</a>").inner[0].text == "y"
