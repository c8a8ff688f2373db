"""rdqmig on every sample: the bytes in order, and each record rebuilt from its fields alone."""

import itertools
import logging
import lzma
import struct
import time

import pytest

import qmigtool
from qmigtool.errors import BudgetError, StreamError, UnsupportedError
from qmigtool.layers import known
from qmigtool.layers.cuts import MAX_PIECE
from qmigtool.layers.packets import RawBytes
from qmigtool.layers.reading import QmigReader, rdqmig, wrqmig
from qmigtool.util.budget import Limits, limited
from tests.fuzz.targets import Pipe
from tests.support import samplefiles
from tests.support.capturewriter import SEGMENT, Packets
from tests.support.paths import SAMPLES

STREAMS = sorted(
    path for folder in ("", "packed", "containers") for path in (SAMPLES / folder).glob("*.*")
    if path.name.endswith((".mig", ".mig.xz", ".save.xz", ".pcap.xz", ".qcow2.xz"))
)  # fmt: skip
LARGE = {
    "arm-7.2.mig",
    "aarch64-virt-gic2-7.2.mig.xz",
    "arm-vexpress-a9-7.2.mig.xz",
    "dirtybitmap-10.0.mig.xz",
}  # 100,000 pages
SLOW = pytest.mark.slow


@pytest.fixture
def said():
    """What scapy's logger is told; it does not pass it on."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("scapy.qmigtool")
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def rebuilt(packet):
    """Return the bytes of a packet, made of its fields alone."""
    packet.clear_cache()
    return bytes(packet)


@pytest.mark.parametrize("path", [pytest.param(p, marks=[SLOW] if p.name in LARGE else [], id=p.name) for p in STREAMS])
def test_whole_samples_are_rebuilt_record_by_record(path):
    channels = [one for one in path.parent.glob(path.name.replace(".mig.xz", ".*.bin.xz")) if one != path]
    at, unparsed = {}, 0
    with qmigtool.open(path, channels=channels) as stream, QmigReader(path, channels=channels) as reader:
        whole = {"main": bytes(stream.source.whole)}
        for number, source in enumerate(stream.channel_sources):
            whole[f"channel {number}"] = bytes(source.whole)
        for packet in reader:
            name = packet.source.partition(":")[0]
            raw = packet.original
            assert not isinstance(packet, RawBytes) or len(raw) <= MAX_PIECE
            if name in whole:
                assert packet.offset == at.get(name, 0)
                assert whole[name][packet.offset : packet.offset + len(raw)] == raw
                at[name] = packet.offset + len(raw)
            assert rebuilt(packet) == raw
            unparsed += len(raw) if isinstance(packet, known.Unparsed) else 0
        assert at == {name: len(data) for name, data in whole.items()}
        holes = "mapped" in path.name or "offset" in path.name
        assert not list(reader.problems)
        assert holes or not unparsed


def test_what_a_packet_is():
    packets = rdqmig(SAMPLES / "pc-7.2.mig")
    head, item = packets[0], packets[1]
    assert head.layers() == [known.FileHeader]
    assert item.layers() == [known.ItemType, known.ConfigurationHeader]
    assert item.machine == b"pc-i440fx-7.2"
    assert [(one.offset, one.source, one.section) for one in (head, item)] == [
        (0, "main", None),
        (8, "main", "configuration"),
    ]
    ram = [one for one in packets if known.RamRecord in one]
    assert sum(one.flags & 0x0A != 0 for one in ram) == 4226  # pages, as `ram` counts them
    assert ram[0].flags == 4
    assert next(one.idstr for one in packets if known.RamBlockHeader in one) == b"pc.ram"
    (cpu,) = [one for one in packets if one.section == "hpet" and known.DeviceState in one]
    with qmigtool.open(SAMPLES / "pc-7.2.mig") as stream:
        section = stream["hpet@0"].section
        assert (cpu.offset, len(cpu.load)) == (section.body_offset, section.body_length)
    assert packets[-1].layers() == [known.VmDescriptionHeader, known.VmDescription]


def test_the_pages_of_another_page_size():
    (first, *_) = [one for one in rdqmig(SAMPLES / "packed/avr-mega-7.2.mig.xz") if one.name == "RamRecord"][1:]
    assert first.PAGE_SIZE == 256
    (big,) = [one for one in rdqmig(SAMPLES / "packed/sparc64-sun4u-10.0.mig.xz", count=20) if one.name == "RamRecord"][
        1:2
    ]
    assert big.PAGE_SIZE == 8192


def test_containers_are_taken_apart_too():
    image = rdqmig(SAMPLES / "containers/savevm-7.2.qcow2.xz", count=2)
    assert [type(one) for one in image] == [known.Qcow2Header, known.Qcow2Snapshot]
    assert (image[0].version, image[1].snapshot_name, image[1].source) == (3, b"snap1", "qcow2 image")
    save = rdqmig(SAMPLES / "containers/libvirt-gzip.save.xz", count=2)
    assert [one.name for one in save] == ["SaveImageHeader", "SaveImageData"]
    assert "format    = GZIP" in save[0].show(dump=True)
    assert save[1].load.startswith(b"<domain")
    plain = rdqmig(SAMPLES / "containers/libvirt-raw.save.xz", count=3)
    assert [(one.name, one.source, one.offset) for one in plain][:2] == [
        ("SaveImageHeader", "main", 0),
        ("SaveImageData", "main", 92),
    ]
    assert plain[2].layers() == [known.FileHeader]


def test_channels_of_a_capture():
    packets = rdqmig(SAMPLES / "containers/postcopy-10.0.pcap.xz")
    messages = [one for one in packets if known.MessageHeader in one]
    assert {one.source for one in messages} == {"channel 0: return path"}
    requests = [one for one in messages if known.NamedPageRequest in one]
    assert all(one.section == "pc.ram" and one.size == 4096 for one in requests)
    multifd = rdqmig(SAMPLES / "containers/multifd-10.0.pcap.xz")
    assert sum(isinstance(one, known.MultiFDInit) for one in multifd) == 3
    assert {one.ramblock.rstrip(b"\0") for one in multifd if isinstance(one, known.MultiFDPagePacket)} >= {b"pc.ram"}


def test_a_truncated_stream_gives_all_before_the_cut(tmp_path, said):
    data = samplefiles.read("pc-7.2")
    whole = rdqmig(data)
    for size in (30, 3000, 300_000, len(data) - 10):
        said.clear()
        packets = rdqmig(data[:size])
        assert b"".join(one.original for one in packets) == data[:size]
        assert isinstance(packets[-1], known.Unparsed)
        same = [one.original for one in whole]
        assert [one.original for one in packets[:-2]] == same[: len(packets) - 2] or size > 500_000
        assert "the stream ends here" in " ".join(said)


@pytest.mark.parametrize("lost", [[40], [2, 3, 200], [450], [0, 1]])
def test_a_capture_with_holes_gives_all_that_is_there(lost, said):
    data = samplefiles.read("pc-7.2")
    capture = holed(data, lost)
    if 0 in lost:
        with pytest.raises((StreamError, UnsupportedError)):
            rdqmig(capture)
        return
    missing = {(index * SEGMENT, SEGMENT) for index in lost}
    at = 0
    for packet in rdqmig(capture):
        while packet.offset != at:
            hole = next(one for one in missing if one[0] == at)
            missing.remove(hole)
            at += hole[1]
        assert data[at : at + len(packet.original)] == packet.original
        at += len(packet.original)
    assert at == len(data)
    assert not missing
    assert said


def holed(data, lost):
    packets = Packets()
    packets.connection(data, port=40000)
    for index in sorted(lost, reverse=True):
        del packets.frames[2 + index]
    return packets.pcap()


def test_a_broken_channel_is_said(said):
    data = lzma.decompress((SAMPLES / "packed/multifd-none-7.2.ch0.bin.xz").read_bytes())
    broken = data[: 64 + 320] + b"?" * 50
    main = SAMPLES / "packed/multifd-none-7.2.mig.xz"
    packets = [one for one in rdqmig(main, channels=[broken]) if one.source == "channel 0: multifd"]
    assert [type(one) for one in packets] == [known.MultiFDInit, known.Unparsed]
    assert b"".join(one.original for one in packets) == broken
    assert "the stream ends here" in " ".join(said)


def test_what_is_no_stream_and_what_is_too_much():
    with pytest.raises(StreamError):
        rdqmig(b"nothing")
    with pytest.raises(UnsupportedError, match="pipe"):
        rdqmig(Pipe(samplefiles.read("pc-7.2")))
    with limited(Limits(memory=4 << 20, grow=False)), pytest.raises(BudgetError):
        rdqmig(SAMPLES / "q35-7.2.mig")


def test_written_again(tmp_path):
    path = tmp_path / "out.mig"
    packets = rdqmig(SAMPLES / "containers/savevm-7.2.qcow2.xz")
    wrqmig(path, packets)
    with qmigtool.open(SAMPLES / "containers/savevm-7.2.qcow2.xz") as stream:
        assert path.read_bytes() == bytes(stream.source.whole)
    assert not [one for one in tmp_path.iterdir() if one != path]


def test_a_stream_built_by_hand(tmp_path):
    """The bytes are those that the format says, and qmigtool reads them."""
    page = b"\x90" * 4096
    stream = (
        known.FileHeader()
        / known.ItemType()
        / known.ConfigurationHeader(machine=b"pc-i440fx-7.2")
        / known.ItemType(section_type="QEMU_VM_SECTION_START")
        / known.SectionHeader(section_id=1, idstr="ram", version_id=4)
        / known.RamRecord(addr=0x2000, flags="MEM_SIZE")
        / known.RamBlockHeader(idstr="pc.ram", used_length=0x2000)
        / known.RamRecord(flags="PAGE", idstr="pc.ram", page=page)
        / known.RamRecord(addr=0x1000, flags="ZERO+CONTINUE")
        / known.RamRecord()
        / known.SectionFooter(section_id=1)
        / known.ItemType(section_type="QEMU_VM_EOF")
    )
    expected = (
        b"QEVM\0\0\0\3\x07" + struct.pack(">I", 13) + b"pc-i440fx-7.2"
        + b"\x01\0\0\0\1\x03ram" + struct.pack(">II", 0, 4)
        + struct.pack(">Q", 0x2004) + b"\x06pc.ram" + struct.pack(">Q", 0x2000)
        + struct.pack(">Q", 8) + b"\x06pc.ram" + page + struct.pack(">QB", 0x1022, 0) + struct.pack(">Q", 0x10)
        + b"\x7e\0\0\0\1\0"
    )  # fmt: skip
    assert bytes(stream) == expected
    with qmigtool.open(bytes(stream)) as found:
        assert found.complete
        assert found.ram.page("pc.ram", 0) == page


def test_a_reader_does_not_count_the_time_of_its_user(monkeypatch):
    clock = itertools.count(0, 0.5)  # half a second for each look
    with QmigReader(SAMPLES / "pc-11.1.mig") as reader:
        next(iter(reader))  # all that is read before the first record
        monkeypatch.setattr(time, "thread_time", lambda: next(clock))
        assert sum(1 for _ in itertools.islice(reader, 1000)) == 1000
