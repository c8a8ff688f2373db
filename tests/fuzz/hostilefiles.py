"""Hostile files in addition to those of ``tests/data/cases/hostile``: variants of them.

They have another device, container, order or nesting, or are larger. A function in :data:`VARIANTS` makes each.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator

import qmigtool
from tests.support import samplefiles
from tests.support.streamwriter import (
    PAGE,
    Item,
    Pairs,
    StreamWriter,
    Vmsd,
    be16,
    be32,
    be64,
    eos,
    mem_size,
    num,
    page,
    raw,
    str8,
    struct_,
    structs,
    word,
    x86_cpu,
    zero,
)

Maker = Callable[[], bytes]
VARIANTS: dict[str, Maker] = {}


def variant(name: str) -> Callable[[Maker], Maker]:
    """Register the function that makes a file."""

    def register(maker: Maker) -> Maker:
        VARIANTS[name] = maker
        return maker

    return register


# -- device state -----------------------------------------------------------------------------------------------------


def head() -> StreamWriter:
    """Return the start of a stream, with its memory."""
    w = StreamWriter("pc-q35-7.2")
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", PAGE)]) + eos())
    w.end(1, zero(0, "pc.ram") + eos())
    return w


def machine(*devices: Vmsd, vmdesc: bool = True) -> bytes:
    """Return a stream of these devices."""
    w = head()
    for i, device in enumerate(devices):
        w.device(2 + i, device.name, i if device.name == "cpu" else 0, device)
    return w.finish(vmdesc=vmdesc)


def many(field: Item, count: int) -> Item:
    """Return one field of ``count`` equal elements, which are not written one by one."""
    entry = Pairs(field.entries[0])
    entry.insert(1, ("array_len", count))
    return Item([entry], field.data * count)


@variant("array-u64.mig")
def array_u64() -> bytes:
    return machine(Vmsd("a", 1, [many(num("arr", "uint64", 7), 2_000_000)]))


@variant("array-in-subsection.mig")
def array_in_subsection() -> bytes:
    return machine(Vmsd("a", 1, [num("v", "uint8", 1)], [Vmsd("a/s", 1, [many(num("arr", "uint8", 7), 9_000_000)])]))


@variant("array-behind-cpu.mig")
def array_behind_cpu() -> bytes:
    return machine(x86_cpu(), Vmsd("a", 1, [many(num("arr", "uint32", 7), 2_300_000)]))


@variant("cpu-array.mig")
def cpu_array() -> bytes:
    """The array is a field of the vCPU."""
    return machine(x86_cpu(extra=[many(num("arr", "uint16", 7), 2_300_000)]))


@variant("structs-nested.mig")
def structs_nested() -> bytes:
    inner = structs("in", [Vmsd("i", 1, [num("v", "uint8", 1)])])
    middle = struct_("m", Vmsd("m", 1, [many(inner, 1000)]))
    return machine(Vmsd("a", 1, [many(middle, 1000)]))


@variant("structs-in-cpu.mig")
def structs_in_cpu() -> bytes:
    return machine(x86_cpu(extra=[many(structs("in", [Vmsd("i", 1, [num("v", "uint8", 1)])]), 1_000_000)]))


@variant("structs-large.mig")
def structs_large() -> bytes:
    return machine(Vmsd("a", 1, [many(structs("s", [Vmsd("i", 1, [raw("b", bytes(100))])]), 200_000)]))


@variant("fields.mig")
def fields() -> bytes:
    return machine(Vmsd("a", 1, [num(f"field{i}", "uint8", 1) for i in range(150_000)]))


@variant("buffers.mig")
def buffers() -> bytes:
    return machine(Vmsd("a", 1, [raw(f"b{i}", bytes(64)) for i in range(100_000)]))


@variant("buffer-large.mig")
def buffer_large() -> bytes:
    return machine(Vmsd("a", 1, [raw("arr", bytes(range(256)) * (60 << 12))]))


@variant("subsections.mig")
def subsections() -> bytes:
    return machine(Vmsd("a", 1, [], [Vmsd(f"a/{i}", 1, [num("v", "uint8", 1)]) for i in range(50_000)]))


def deep(levels: int, build: Callable[[Vmsd], Vmsd]) -> Vmsd:
    """Nest a description ``levels`` deep."""
    found = Vmsd("d", 1, [num("v", "uint8", 1)])
    for _ in range(levels):
        found = build(found)
    return found


@variant("deep-structs.mig")
def deep_structs() -> bytes:
    return machine(deep(60, lambda inner: Vmsd("d", 1, [struct_("s", inner)])))


@variant("deep-json.mig")
def deep_json() -> bytes:
    w = head()
    w.eof()
    w.vmdesc(b'{"page_size": 4096, "devices": ' + b"[" * 3_000_000 + b"]" * 3_000_000 + b"}")
    return bytes(w.data)


@variant("long-number.mig")
def long_number() -> bytes:
    w = head()
    w.eof()
    w.vmdesc(b'{"page_size": 4096, "devices": [{"name": "a", "instance_id": ' + b"9" * 8_000_000 + b"}]}")
    return bytes(w.data)


@variant("long-string.mig")
def long_string() -> bytes:
    w = head()
    w.eof()
    w.vmdesc(b'{"page_size": 4096, "devices": [{"name": "' + b"\\u2028" * 3_000_000 + b'"}]}')
    return bytes(w.data)


@variant("described-only.mig")
def described_only() -> bytes:
    """The vmdesc has devices without a section."""
    w = head()
    one = b'{"name": "a%d", "instance_id": 0, "vmsd_name": "x", "version": 1, "fields": []}'
    w.eof()
    w.vmdesc(b'{"page_size": 4096, "devices": [' + b", ".join(one % i for i in range(200_000)) + b"]}")
    return bytes(w.data)


@variant("described-twice.mig")
def described_twice() -> bytes:
    """The same device many times."""
    w = head()
    w.device(2, "a", 0, Vmsd("a", 1, [num("v", "uint8", 1)]))
    w.described *= 100_000
    return w.finish()


# -- sections ---------------------------------------------------------------------------------------------------------


@variant("cpus-600.mig")
def cpus_600() -> bytes:
    return machine(*[x86_cpu(i) for i in range(600)])


@variant("cpus-3000.mig")
def cpus_3000() -> bytes:
    return machine(*[x86_cpu(i) for i in range(3000)])


def described(devices: list[dict[str, object]]) -> bytes:
    """Return a vmdesc."""
    return json.dumps({"page_size": PAGE, "devices": devices}).encode()


def copies(sample: str, name: str, count: int, *, vmdesc: bool) -> bytes:
    """Repeat a device of a sample with other instances."""
    with qmigtool.open(samplefiles.path(sample)) as stream:
        device = stream.device(name)
        section = device.section
        body = samplefiles.read(sample)[section.body_offset :][: section.body_length]
        text = next(one for one in stream_vmdesc(sample)["devices"] if one["name"] == device.name)
    w = head()
    for i in range(count):
        w.full(10 + i, device.name, i, section.version_id or 0, body)
    w.eof()
    if vmdesc:
        w.vmdesc(
            json.dumps({"page_size": PAGE, "devices": [{**text, "instance_id": i} for i in range(count)]}).encode()
        )
    return bytes(w.data)


def stream_vmdesc(sample: str) -> dict[str, list[dict[str, object]]]:
    """Return the vmdesc of a sample."""
    data = samplefiles.read(sample)
    at = data.rindex(b'{"page_size"') if b'{"page_size"' in data else data.rindex(b'{ "page_size"')
    found: dict[str, list[dict[str, object]]] = json.loads(data[at : data.rindex(b"}") + 1])
    return found


@variant("real-cpus-400.mig")
def real_cpus() -> bytes:
    return copies("kvm-avx512-7.2", "cpu@0", 400, vmdesc=True)


@variant("real-cpus-1040.mig")
def real_cpus_1040() -> bytes:
    """A valid file: a q35 of QEMU 11.1 can have 4096. No command refuses it."""
    return copies("kvm-avx512-7.2", "cpu@0", 1040, vmdesc=True)


@variant("undescribed-cpus-1000.mig")
def undescribed_cpus() -> bytes:
    return copies("kvm-avx512-7.2", "cpu@0", 1000, vmdesc=False)


@variant("undescribed-nics.mig")
def undescribed_nics() -> bytes:
    return copies("q35-7.2", "0000:00:03.0/virtio-net", 500, vmdesc=False)


@variant("undescribed-vga.mig")
def undescribed_vga() -> bytes:
    return copies("q35-7.2", "0000:00:01.0/vga", 8000, vmdesc=False)


@variant("undescribed-xhci.mig")
def undescribed_xhci() -> bytes:
    return copies("q35-7.2", "0000:00:05.0/xhci", 1500, vmdesc=False)


@variant("undescribed-ide.mig")
def undescribed_ide() -> bytes:
    return copies("pc-7.2", "0000:00:01.1/ide", 1500, vmdesc=False)


@variant("undescribed-rtc.mig")
def undescribed_rtc() -> bytes:
    return copies("q35-7.2", "mc146818rtc", 20_000, vmdesc=False)


@variant("undescribed-mixed.mig")
def undescribed_mixed() -> bytes:
    """Names of devices in the schemas, with bodies that match none of them."""
    with qmigtool.open(samplefiles.path("q35-7.2")) as stream:
        names = [(device.name, device.section.version_id or 0) for device in stream.devices]
    w = head()
    for i in range(8000):
        name, version = names[i % len(names)]
        w.full(10 + i, name, i, version, bytes([i % 5, 1, 5]) * 700)
    return w.finish(vmdesc=False)


@variant("undescribed-marks.mig")
def undescribed_marks() -> bytes:
    """Bodies full of apparent subsections and footers."""
    w = head()
    sub = b"\x05" + str8("cpu/pkru") + be32(1)
    for i in range(40):
        w.full(10 + i, "cpu", i, 12, (sub + b"\x7e" + be32(10 + i) + b"\x04") * 6000)
    return w.finish(vmdesc=False)


@variant("pings.mig")
def pings() -> bytes:
    w = head()
    data = bytes(w.data)
    return data + (b"\x08" + be16(2) + be16(4) + bytes(4)) * 2_000_000 + b"\x00"


@variant("parts.mig")
def parts() -> bytes:
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    before = len(w.data)
    w.part(1, eos())
    return bytes(w.data) + bytes(w.data)[before:] * 800_000


@variant("starts.mig")
def starts() -> bytes:
    """Sections without an end."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", PAGE)]) + eos())
    begun = b"".join(
        b"\x01" + be32(2 + i) + str8("dirty-bitmap") + be32(i) + be32(1) + be32(1) + b"\x7e" + be32(2 + i)
        for i in range(300_000)
    )
    return bytes(w.data) + begun


@variant("same-sections.mig")
def same_sections() -> bytes:
    """450,000 sections of one name and instance, described."""
    w = head()
    for _ in range(100_000):
        w.full(2, "a", 0, 1, b"\x01")
    w.described.append(Pairs([("name", "a"), ("instance_id", 0), *Vmsd("a", 1, [num("v", "uint8", 1)]).pairs()]))
    return w.finish()


@variant("footers.mig")
def footers() -> bytes:
    """A body of repeated footers and headers."""
    w = head()
    one = b"\x7e" + be32(2) + b"\x04" + be32(2) + str8("a") + be32(0) + be32(1)
    w.full(2, "a", 0, 1, one * 700_000)
    return w.finish(vmdesc=False)


# -- memory -----------------------------------------------------------------------------------------------------------


@variant("zeros-jumping.mig")
def zeros_jumping() -> bytes:
    """Zero records of 9 bytes, never of consecutive pages: no runs."""
    pages = 64 << 8
    order = [i * 7919 % pages * PAGE for i in range(pages)]
    some = b"".join(zero(addr) for addr in order)
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", pages * PAGE)]) + eos())
    w.part(1, zero(0, "r") + some * 400 + eos())
    w.end(1, eos())
    return w.finish()


@variant("records-alternating.mig")
def records_alternating() -> bytes:
    """Zero pages, fills and blocks in turn."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 1 << 26), ("s", 1 << 26)]) + eos())
    some = b"".join(zero(i % 16384 * PAGE, "rs"[i % 2]) for i in range(50_000))
    w.part(1, some * 40 + eos())
    w.end(1, eos())
    return w.finish()


@variant("records-eos.mig")
def records_eos() -> bytes:
    """RAM that ends after each page, in one section and in many."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 1 << 26)]) + eos())
    for i in range(150_000):
        w.part(1, zero(i % 16384 * PAGE, "r") + eos())
    w.end(1, eos())
    return w.finish()


@variant("records-xbzrle.mig")
def records_xbzrle() -> bytes:
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", 1 << 26)]) + eos())
    some = zero(0, "r") + b"".join(
        word(i % 16384 * PAGE, 0x60) + b"\x01" + be16(3) + b"\x00\x01\x07" for i in range(100_000)
    )
    w.part(1, some * 10 + eos())
    w.end(1, eos())
    return w.finish()


def block_list(names_: list[tuple[str, int]]) -> bytes:
    """Return the same as :func:`mem_size`, without repeated copying."""
    return word(sum(size for _, size in names_), 0x04) + b"".join(str8(name) + be64(size) for name, size in names_)


@variant("blocks.mig")
def blocks() -> bytes:
    names = [(f"block{i}", PAGE) for i in range(300_000)]
    w = StreamWriter()
    w.start(1, "ram", 0, 4, block_list(names) + eos())
    w.end(1, zero(0, "block1") + eos())
    return w.finish()


@variant("blocks-named-long.mig")
def blocks_named_long() -> bytes:
    names = [(f"{i:0255}", PAGE) for i in range(60_000)]
    w = StreamWriter()
    w.start(1, "ram", 0, 4, block_list(names) + eos())
    w.end(1, b"".join(zero(0, name) for name, _ in names) + eos())
    return w.finish()


@variant("block-huge.mig")
def block_huge() -> bytes:
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", 1 << 62)]) + eos())
    w.end(1, b"".join(zero(i << 45, "pc.ram") for i in range(2000)) + eos())
    return w.finish()


@variant("multifd-huge.mig")
def multifd_huge() -> bytes:
    head_ = be32(0x11223344) + be32(1) + bytes(16) + b"\0" + bytes(39)
    packet = be32(0x11223344) + be32(1) + be32(0) + be32(0xFFFFFF) + be32(0xFFFFFF) + be32(1 << 31) + be64(1)
    return head_ + (packet + bytes(288) + bytes(4096)) * 2000


# -- containers -------------------------------------------------------------------------------------------------------


def long_stream(size: int) -> bytes:
    """Return a stream that lists and contains much memory of one byte value."""
    w = StreamWriter("pc-q35-7.2")
    w.start(1, "ram", 0, 4, mem_size([("pc.ram", size)]) + eos())
    return bytes(w.data) + b"\x02" + be32(1) + zero(0, "pc.ram")


def repeated(data: bytes, count: int, size: int = 1 << 20) -> Iterator[bytes]:
    """Yield ``data``, then megabytes of a page record."""
    yield data
    chunk = (page(0, b"\x55" * PAGE) * (size // 4104))[:size]
    for _ in range(count):
        yield chunk


def packed(compressor: object, parts_: Iterable[bytes]) -> bytes:
    """Compress data in parts."""
    return b"".join(compressor.compress(part) for part in parts_) + compressor.flush()  # type: ignore[attr-defined]


@variant("stream.gz")
def stream_gz() -> bytes:
    return packed(zlib.compressobj(9, wbits=31), repeated(long_stream(1 << 40), 1000))


@variant("stream.bz2")
def stream_bz2() -> bytes:
    return packed(bz2.BZ2Compressor(), repeated(long_stream(1 << 40), 200))


@variant("stream.xz")
def stream_xz() -> bytes:
    return packed(lzma.LZMACompressor(preset=0), repeated(long_stream(1 << 40), 2000))


@variant("zeros.gz")
def zeros_gz() -> bytes:
    body = zero(0, "pc.ram") + b"".join(zero(i * PAGE) for i in range(100_000))
    return packed(zlib.compressobj(1, wbits=31), [long_stream(1 << 40), *[body] * 60])


@variant("members.gz")
def members_gz() -> bytes:
    return gzip.compress(long_stream(1 << 30)) + gzip.compress(b"\0") * 400_000


@variant("members.xz")
def members_xz() -> bytes:
    return lzma.compress(long_stream(1 << 30)) + lzma.compress(b"\0") * 100_000


@variant("libvirt-xml.save")
def libvirt_xml() -> bytes:
    magic = b"LibvirtQemudSave"
    xml = b"<domain>" + b"<a>" * 3_000_000 + b"</domain>\0"
    header = magic + struct.pack("<IIIII", 2, len(xml), 0, 0, 0) + bytes(14 * 4)
    return header + xml + long_stream(1 << 30)


@variant("libvirt-claims.save")
def libvirt_claims() -> bytes:
    header = b"LibvirtQemudSave" + struct.pack("<IIIII", 2, 0xFFFFFFF0, 0, 1, 0) + bytes(14 * 4)
    return header + b"<domain/>\0" + bytes(1000)


def qcow2(snapshots: int, l1: int, *, claims: int | None = None, extra: int = 16) -> bytes:
    """An image whose header claims many snapshots, and many L1 entries for each."""
    cluster = 16
    table = 2 << cluster
    entries = b""
    for i in range(snapshots):
        one = be64(3 << cluster) + be32(l1) + be16(4) + be16(4) + be32(0) * 2 + be64(0) + be32(1 << 30) + be32(extra)
        one += be64(1 << 40) + be64(1 << 30) + bytes(extra - 16) + f"{i:04}"[-4:].encode() + b"snap"
        entries += one + bytes(-len(one) % 8)
    header = b"QFI\xfb" + be32(3) + be64(0) + be32(0) + be32(cluster) + be64(1 << 40) + be32(0)
    header += be32(1) + be64(1 << cluster) + be64(4 << cluster) + be32(1)
    header += be32(snapshots if claims is None else claims) + be64(table) + bytes(24) + be32(4) + be32(104)
    return header.ljust(table, b"\0") + entries


@variant("snapshots.qcow2")
def snapshots_qcow2() -> bytes:
    return qcow2(9000, 1)


@variant("snapshots-claimed.qcow2")
def snapshots_claimed() -> bytes:
    return qcow2(2, 0xFFFFFF, claims=0xFFFFFFFF)


@variant("one-l1-huge.qcow2")
def one_l1() -> bytes:
    return qcow2(1, 0x7FFFFFF).ljust(40 << 20, b"\xff")


def pcap(packets: Iterable[bytes]) -> bytes:
    """A capture of Ethernet frames."""
    out = io.BytesIO()
    out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
    for data in packets:
        out.write(struct.pack("<IIII", 0, 0, len(data), len(data)) + data)
    return out.getvalue()


def tcp(port: int, seq: int, data: bytes, flags: int = 0x18, host: int = 1) -> bytes:
    """A frame."""
    segment = struct.pack(">HHIIBBHHH", port, 4444, seq & 0xFFFFFFFF, 1, 0x50, flags, 1000, 0, 0) + data
    ip = struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0, 0x0A000000 + host, 0x0A000002)
    return bytes(12) + b"\x08\x00" + ip + segment


@variant("flows-data.pcap")
def flows_data() -> bytes:
    """Ten thousand flows, each of which begins like a stream."""
    begin = long_stream(1 << 30)
    return pcap(
        frame
        for i in range(30_000)
        for frame in (tcp(1024 + i % 60000, 1, b"", 2, i >> 8), tcp(1024 + i % 60000, 2, begin, host=i >> 8))
    )


@variant("segments-backwards.pcap")
def segments_backwards() -> bytes:
    """One flow in one-byte segments, the last first."""
    data = samplefiles.read("pc-7.2")[:200_000]
    return pcap([tcp(5000, 0, b"", 2), *(tcp(5000, 1 + i, data[i : i + 1]) for i in range(len(data) - 1, -1, -1))])


@variant("segments-odd.pcap")
def segments_odd() -> bytes:
    """Every second byte first, then the others."""
    data = samplefiles.read("pc-7.2")[:200_000]
    order = [*range(1, len(data), 2), *range(0, len(data), 2)]
    return pcap([tcp(5000, 0, b"", 2), *(tcp(5000, 1 + i, data[i : i + 1]) for i in order)])


@variant("segments-far.pcap")
def segments_far() -> bytes:
    """Gaps of gigabytes."""
    begin = long_stream(1 << 30)
    far = (tcp(5000, i * 30_000_000, b"QEVM" * 300) for i in range(1, 3000))
    return pcap([tcp(5000, 0, b"", 2), tcp(5000, 1, begin), *far])


@variant("connections.pcap")
def connections() -> bytes:
    """A stream, and a SYN of each of 250,000 connections: more than are kept at one time."""
    data = samplefiles.read("pc-7.2")
    stream = (tcp(5000, 1 + at, data[at : at + 1448], host=99) for at in range(0, len(data), 1448))
    scan = (tcp(1024 + i % 60000, 1, b"", 2, i >> 8) for i in range(250_000))
    return pcap([tcp(5000, 0, b"", 2, 99), *scan, *stream])


@variant("connections-main.pcap")
def connections_main() -> bytes:
    """250,000 connections that each begin like a stream, and have nothing more."""
    return pcap(tcp(1024 + i % 60000, 1, b"QEVM", host=i >> 8) for i in range(250_000))


@variant("segments-random.pcap")
def segments_random() -> bytes:
    """Segments of one byte at random offsets."""
    chance = random.Random(5)  # noqa: S311 - no secret
    begin = [tcp(5000, 0, b"", 2), tcp(5000, 1, long_stream(1 << 30))]
    return pcap([*begin, *(tcp(5000, chance.randrange(1 << 32), b"x") for _ in range(200_000))])


@variant("segments-lies.pcap")
def segments_lies() -> bytes:
    """Each byte of a stream again, but another one."""
    data = samplefiles.read("pc-7.2")[:200_000]
    lies = (tcp(5000, 1 + i, bytes([data[i] ^ 1])) for i in range(len(data)))
    return pcap(
        [tcp(5000, 0, b"", 2), *(tcp(5000, 1 + at, data[at : at + 1448]) for at in range(0, len(data), 1448)), *lies]
    )


@variant("fragments.pcap")
def fragments() -> bytes:
    """First fragments of 200,000 datagrams, and 200,000 fragments of one."""

    def one(number: int, offset: int) -> bytes:
        ip = struct.pack(">BBHHHBBHII", 0x45, 0, 28, number & 0xFFFF, 0x2000 | offset, 64, 6, 0, number >> 16, 1)
        return bytes(12) + b"\x08\x00" + ip + bytes(8)

    data = samplefiles.read("pc-7.2")
    stream = (tcp(5000, 1 + at, data[at : at + 1448]) for at in range(0, len(data), 1448))
    many = (one(i, 0) for i in range(200_000))
    return pcap([tcp(5000, 0, b"", 2), *many, *(one(7, i & 0x1FFF) for i in range(200_000)), *stream])


def block(kind: int, body: bytes) -> bytes:
    """A block of a pcapng file."""
    return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))


@variant("interfaces.pcapng")
def interfaces() -> bytes:
    """A million interfaces, with a stream on the last."""
    data = samplefiles.read("pc-7.2")
    out = [
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
        block(1, struct.pack("<HHI", 1, 0, 0)) * 300_000,
    ]
    for at in range(0, len(data), 1448):
        frame = tcp(5000, 1 + at, data[at : at + 1448])
        frame += bytes(-len(frame) % 4)
        out.append(block(6, struct.pack("<5I", 299_999, 0, at, len(frame), len(frame)) + frame))
    return b"".join(out)


@variant("blocks-empty.pcapng")
def blocks_empty() -> bytes:
    """A block of no bytes, which leads back to itself."""
    return block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + struct.pack("<3I", 5, 0, 0) * 100


@variant("tiny-frames.zst")
def tiny_frames() -> bytes:
    frame = bytes.fromhex("28b52ffd2001090000") + b"\x51"
    return frame * 1_000_000


@variant("skipped-frames.zst")
def skipped_frames() -> bytes:
    frame = bytes.fromhex("28b52ffd2001090000") + b"\x51"
    return frame + bytes.fromhex("502a4d1800000000") * 2_000_000


# -- XSAVE areas -------------------------------------------------------------------------------------------------------


def core_head(segments: int) -> bytes:
    """Return the header of an ELF core."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return ident + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, segments, 0, 0, 0)


@variant("notes.core")
def notes_core() -> bytes:
    """An ELF core of many notes."""
    note = struct.pack("<III", 5, 4, 0x202) + b"LINUX\0\0\0" + bytes(4)
    notes = note * 500_000
    header = core_head(1)
    return header + struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(notes), len(notes), 4) + notes


@variant("segments.core")
def segments_core() -> bytes:
    """Every segment is the same notes."""
    note = struct.pack("<III", 5, 4, 0x202) + b"LINUX\0\0\0" + bytes(4)
    count = 60_000
    header = core_head(count)
    at = 64 + 56 * count
    notes = note * 2000
    return header + struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(notes), len(notes), 4) * count + notes


@variant("deep.json")
def deep_area() -> bytes:
    return b'{"a":' * 2_000_000 + b"1" + b"}" * 2_000_000


@variant("wide.json")
def wide_area() -> bytes:
    return b"[" + b'{"xsave": {"region": [1]}},' * 600_000 + b"1]"


@variant("cpuid.txt")
def cpuid_text() -> bytes:
    line = b"   0x0000000d 0x%02x: eax=0x00000100 ebx=0x00000240 ecx=0x00000000 edx=0x00000000\n"
    return b"".join(line % (i & 63) for i in range(300_000))


@variant("random")
def random_bytes() -> bytes:
    return os.urandom(30 << 20)


@variant("zeros")
def zeros() -> bytes:
    return bytes(60 << 20)
