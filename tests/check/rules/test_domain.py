"""The libvirt XML of a save image against its stream: a real image of libvirt 9.0, and edited copies."""

import pytest

from tests.check.checking import found, places, sample
from tests.check.rules.cases import PC, Case, check_case
from tests.support import samplefiles
from tests.support.saveimages import RAW, image

MEMORY = b"<memory unit='KiB'>16384<"
VCPU = b"<vcpu placement='static'>2<"
CPU = b"<cpu mode='maximum' check='none'/>"
BALLOON = b"<memballoon model='virtio'>"
MACHINE = b"machine='pc-i440fx-7.2'"
# The stream with a block of 128 KiB that has the name of a DIMM: the headers of RAM name it, nothing else does.
DIMM = RAW.replace(b"\x06pc.rom", b"\x08memdimm0")
RULES = ("xml-readable", "xml-machine", "xml-vcpus", "xml-memory", "xml-dimms", "xml-topology")


def xml(data: bytes) -> list[tuple[str, str, str]]:
    """(rule, place, message) of what contradicts the XML."""
    return [(one.rule, one.where, one.message) for one in found(data) if one.rule in RULES]


def dimm(size: int, slot: int = 0, base: str = "0x100000000", model: str = "dimm") -> tuple[bytes, bytes]:
    device = (
        f"<memory model='{model}'><target><size unit='KiB'>{size}</size><node>0</node></target>"
        f"<address type='dimm' slot='{slot}' base='{base}'/></memory>"
    )
    return BALLOON, device.encode() + BALLOON


def topology(words: str) -> tuple[bytes, bytes]:
    return CPU, f"<cpu mode='maximum' check='none'><topology {words}/></cpu>".encode()


CASES = (
    Case("xml-readable", lambda: image((b"</domain>", b"</domein>")), [("error", "")], PC, says="not well-formed"),
    Case(
        "xml-machine",
        lambda: image((MACHINE, b"machine='pc-q35-7.2'")),
        [("error", "configuration")],
        PC,
        says="pc-q35-7.2",
    ),
    Case("xml-vcpus", lambda: image((VCPU, b"<vcpu>3<")), [("error", "cpu")], PC, says="has 3"),
    Case(
        "xml-memory",
        lambda: image((MEMORY, b"<memory unit='MiB'>32<")),
        [("error", "ram/pc.ram")],
        PC,
        says="0x2000000",
    ),
    Case("xml-dimms", lambda: image(dimm(256), raw=DIMM), [("error", "ram/memdimm0")], PC, says="has 0x20000 bytes"),
    Case(
        "xml-topology",
        lambda: image(topology("sockets='1' cores='1' threads='1'")),
        [("error", "apic@1")],
        PC,
        says="1 sockets",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_rule(case: Case) -> None:
    check_case(case)


@pytest.mark.parametrize("name", ["libvirt-raw.save", "libvirt-gzip.save"])
def test_nothing_contradicts_in_a_real_image(name: str) -> None:
    assert xml(samplefiles.container(name)) == []


def test_a_stream_without_xml() -> None:
    assert xml(sample("pc-7.2")) == []


def test_xml_that_cannot_be_read() -> None:
    (one,) = xml(image((b"</domain>", b"</domein>")))
    assert one[:2] == ("xml-readable", "")
    assert "not well-formed" in one[2]


def test_another_machine() -> None:
    words = "the machine type is pc-i440fx-7.2, but the libvirt XML has pc-q35-7.2"
    assert xml(image((MACHINE, b"machine='pc-q35-7.2'"))) == [("xml-machine", "configuration", words)]
    words = "the machine type is pc-i440fx-7.2, but the libvirt XML has microvm"
    assert xml(image((MACHINE, b"machine='microvm'"))) == [("xml-machine", "configuration", words)]


@pytest.mark.parametrize("unsaid", [b"machine='pc'", b"machine='q35'", b""])
def test_an_alias_is_of_the_qemu_that_libvirt_started(unsaid: bytes) -> None:
    assert xml(image((MACHINE, unsaid))) == []


def test_another_number_of_vcpus() -> None:
    words = "the stream has 2 vCPUs, but the libvirt XML has 3"
    assert xml(image((VCPU, b"<vcpu placement='static'>3<"))) == [("xml-vcpus", "cpu", words)]
    assert xml(image((VCPU, b"<vcpu placement='static' current='2'>4<"))) == []
    assert xml(image((VCPU, b"<vcpu placement='static'>two<"))) == []


def test_vcpus_of_a_stream_that_was_cut_are_not_counted() -> None:
    cut = image((VCPU, b"<vcpu placement='static'>3<"))
    cut = cut[: cut.index(b"\x03cpu\x00\x00\x00\x01")]
    assert not [one for one in xml(cut) if one[0] == "xml-vcpus"]


def test_another_size_of_memory() -> None:
    words = "the RAM blocks of guest memory have 0x1000000 bytes, but the libvirt XML has 0x2000000"
    assert xml(image((MEMORY, b"<memory unit='MiB'>32<"))) == [("xml-memory", "ram/pc.ram", words)]
    assert [one[0] for one in xml(image((MEMORY, b"<memory unit='KiB'>8192<")))] == ["xml-memory"]
    assert xml(image((MEMORY, b"<memory unit='KiB'>16380<"))) == []  # rounded up to 1 MiB
    assert xml(image((MEMORY, b"<memory unit='furlong'>32<"))) == []


def test_the_size_of_a_dimm() -> None:
    total = (MEMORY, b"<memory unit='KiB'>16512<")
    assert xml(image(total, dimm(128), raw=DIMM)) == []
    words = "the DIMM has 0x20000 bytes, but the libvirt XML has 0x40000"
    assert xml(image(total, dimm(256), raw=DIMM)) == [("xml-dimms", "ram/memdimm0", words)]
    assert xml(image(total, dimm(256, slot=1), raw=DIMM)) == []  # of another slot


def test_memory_with_other_devices_is_undecided() -> None:
    assert xml(image((MEMORY, b"<memory unit='MiB'>32<"), dimm(128, model="virtio-mem"), raw=DIMM)) == []


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("sockets='2' cores='1' threads='1'", []),
        ("sockets='1' cores='2' threads='1'", []),
        ("sockets='1' dies='1' clusters='1' cores='1' threads='2'", []),
        ("sockets='1' cores='1' threads='1'", ["apic@1"]),
        ("sockets='0' cores='1' threads='1'", []),
        ("sockets='many' cores='1' threads='1'", []),
    ],
)
def test_apic_ids_follow_from_the_topology(words: str, wrong: list[str]) -> None:
    findings = found(image(topology(words)))
    assert places(findings, "xml-topology") == [("error", place) for place in wrong]


def test_an_apic_id_in_a_gap() -> None:
    """Three cores take two bits: 0, 1, 2, then 4; real QEMU 7.2 with -smp 6,sockets=2,cores=3 numbers so."""
    gap = RAW.replace(b"\x04apic\x00\x00\x00\x01", b"\x04apic\x00\x00\x00\x03")
    assert gap != RAW
    assert places(found(image(topology("sockets='2' cores='3' threads='1'"), raw=gap)), "xml-topology") == [
        ("error", "apic@3")
    ]
    four = RAW.replace(b"\x04apic\x00\x00\x00\x01", b"\x04apic\x00\x00\x00\x04")
    assert not places(found(image(topology("sockets='2' cores='3' threads='1'"), raw=four)), "xml-topology")
