"""Every record type has an encoder: a whole stream, encoded again from its decoded values, is the same bytes.

Nothing here copies spans of the stream but the payloads of pages, disks and the like, which have no inner structure.
"""

from collections.abc import Iterator

import pytest

import qmigtool
from qmigtool.parsers.bodies import footer_of
from qmigtool.parsers.livebodies import HtabBody, live_section
from qmigtool.parsers.multifd import read_channel
from qmigtool.parsers.ram import RamBody, encode_page
from qmigtool.parsers.ramstate import RamState
from qmigtool.parsers.records import (
    QEMU_VM_FILE_MAGIC,
    Command,
    CommandHeader,
    FileHeader,
    PostcopyAdvise,
    RamBlockHeader,
    RamSaveFlag,
    SectionHeader,
    SectionReference,
    SectionType,
    VmDescriptionHeader,
    is_plain_stream,
)
from qmigtool.parsers.section import Section, Type
from qmigtool.parsers.vmdesctext import format_vmdesc
from qmigtool.parsers.vmstate import encode_field
from qmigtool.parsers.window import Window
from qmigtool.parsers.xbzrle import encode_xbzrle, parse_xbzrle
from qmigtool.stream.model import Stream
from tests.support.samplefiles import SAMPLES, path

TYPES = {
    Type.START: SectionType.QEMU_VM_SECTION_START,
    Type.PART: SectionType.QEMU_VM_SECTION_PART,
    Type.END: SectionType.QEMU_VM_SECTION_END,
    Type.FULL: SectionType.QEMU_VM_SECTION_FULL,
}


class Encoder:
    """Encodes the sections of one stream again."""

    def __init__(self, stream: Stream, data: bytes) -> None:
        self.stream = stream
        self.data = data
        self.window = Window(data, final=True)
        self.ram = RamState(stream.page_size, frozenset(stream.capabilities))
        self.devices = {device.section.offset: device for device in stream.devices}
        self.footers = bool(stream.footers)

    def section(self, section: Section) -> bytes:
        if section.type is Type.HEADER:
            return FileHeader(QEMU_VM_FILE_MAGIC, 3).build()
        if section.type is Type.CONFIGURATION:
            assert self.stream.configuration is not None
            return bytes([SectionType.QEMU_VM_CONFIGURATION]) + self.stream.configuration.build()
        if section.type is Type.COMMAND:
            return self.command(section)
        if section.type is Type.EOF:
            return bytes([SectionType.QEMU_VM_EOF])
        if section.type is Type.VMDESC:
            text = format_vmdesc(self.stream.vmdesc_text or b"")
            return VmDescriptionHeader(SectionType.QEMU_VM_VMDESCRIPTION, len(text)).build() + text
        if section.type is Type.TAIL:
            return self.data[section.offset : section.end]
        section_id = section.section_id or 0
        out = bytes([TYPES[section.type]])
        if section.type in (Type.START, Type.FULL):
            header = SectionHeader(section_id, section.name or "", section.instance_id or 0, section.version_id or 0)
            out += header.build()
        else:
            out += SectionReference(section_id).build()
        out += b"".join(self.body(section))
        return out + (footer_of(section_id) if self.footers else b"")

    def command(self, section: Section) -> bytes:
        code = Command[f"MIG_CMD_{section.name}"]
        payload = self.data[section.body_offset : section.end]
        if code is Command.MIG_CMD_POSTCOPY_ADVISE and payload:
            advise, _ = PostcopyAdvise.parse(Window(payload, final=True), 0)
            self.ram.advise = advise
            payload = advise.build()
        return bytes([SectionType.QEMU_VM_COMMAND]) + CommandHeader(code, len(payload)).build() + payload

    def body(self, section: Section) -> Iterator[bytes]:
        device = self.devices.get(section.offset)
        if device is not None:
            yield from map(encode_field, device.fields)
        elif section.name == "ram":
            yield from self.ram_body(section)
        else:
            found = live_section(section.name or "")
            assert found is not None
            read = HtabBody().read if section.name == "spapr/htab" else found.read
            pos, ended = section.body_offset, False
            while not ended:
                record, at, ended = read(self.window, pos)
                yield record.build() + self.data[at : at + record.payload]
                pos = at + record.payload

    def ram_body(self, section: Section) -> Iterator[bytes]:
        """Walk record by record: every step of a RamBody in a window of one record is one record."""
        state = self.ram
        pos, end = section.body_offset, section.body_offset + section.body_length
        while pos < end:
            word = int.from_bytes(self.data[pos : pos + 8], "big")
            flags, addr = word & (state.page_size - 1), word & ~(state.page_size - 1)
            pos += 8
            if flags == RamSaveFlag.MEM_SIZE:
                yield word.to_bytes(8, "big")
                for block in self.stream.ram_blocks:
                    state.add_block(block)
                    yield RamBlockHeader(block.idstr, block.used_length).build()
                    yield b"" if block.page_size is None else block.page_size.to_bytes(8, "big")
                    yield b"" if block.mr_addr is None else block.mr_addr.to_bytes(8, "big")
                    pos = block.offset + 9 + len(block.idstr) + 8 * (block.page_size is not None)
                    pos += 8 * (block.mr_addr is not None)
                    if block.mapped is not None:
                        yield block.mapped.build()
                        pos += 28
                        if block.mapped.pages_offset:
                            area, pos = pos, block.mapped.pages_offset + block.used_length
                            yield self.data[area:pos]
                continue
            kind = flags & ~RamSaveFlag.CONTINUE
            if kind in (RamSaveFlag.EOS, RamSaveFlag.MULTIFD_FLUSH):
                yield word.to_bytes(8, "big")
                continue
            name = None
            if not flags & RamSaveFlag.CONTINUE:
                length = self.data[pos]
                name = self.data[pos + 1 : pos + 1 + length].decode()
                pos += 1 + length
            fill = self.data[pos]
            head, length = {
                int(RamSaveFlag.ZERO): (1, 0),
                int(RamSaveFlag.PAGE): (0, state.page_size),
                int(RamSaveFlag.XBZRLE): (3, int.from_bytes(self.data[pos + 1 : pos + 3], "big")),
                int(RamSaveFlag.COMPRESS_PAGE): (4, int.from_bytes(self.data[pos : pos + 4], "big")),
            }[kind]
            payload = self.data[pos + head : pos + head + length]
            if kind == RamSaveFlag.XBZRLE:
                payload = encode_xbzrle(parse_xbzrle(payload, state.page_size))
            assert addr < max(block.used_length for block in state.blocks)
            yield encode_page(word, name, payload, fill, state.page_size)
            pos += head + length


@pytest.mark.parametrize("file", sorted(SAMPLES.glob("*.mig")), ids=lambda file: file.name)
def test_encoded_again_a_stream_is_the_same(file):
    data = file.read_bytes()
    with qmigtool.open(file) as stream:
        encoder = Encoder(stream, data)
        for section in stream.sections:
            assert encoder.section(section) == data[section.offset : section.end], section
        assert sum(section.length for section in stream.sections) == len(data)


def test_the_encoder_reads_what_it_encodes():
    """The test above is no copy: another value gives other bytes."""
    with qmigtool.open(path("pc-7.2")) as stream:
        field = stream.field("cpu@0/env.mxcsr")
        assert encode_field(field) == bytes.fromhex("00001f80")
        assert stream.configuration is not None
        assert stream.configuration.build()[4:] == b"pc-i440fx-7.2"
    assert RamBody.measured == "records"
    assert next(iter(read_channel(Window(GREETING, final=True), 4096))).build() == GREETING  # type: ignore[union-attr]


def test_a_stream_begins_with_its_magic() -> None:
    assert is_plain_stream(path("pc-7.2").read_bytes()[:4])
    assert not is_plain_stream(b"QEV")
    assert not is_plain_stream(b"")
    assert not is_plain_stream(b"\0QEVM")


GREETING = bytes.fromhex("1122334400000001") + bytes(16) + b"\x01" + bytes(39)
