"""Where each record of an opened stream starts and ends, by the readers of :mod:`qmigtool.parsers`.

A device section does not contain its length, so scapy cannot take a stream apart alone. The cuts of each source cover
every byte of it that is there (a capture may have holes). A long piece that is no record is cut into pieces of at most
:data:`MAX_PIECE` bytes, so memory stays bounded. Nothing is kept: an iterator gives one cut at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qmigtool.errors import QmigError, UnsupportedError
from qmigtool.layers import known
from qmigtool.layers.packets import MigrationRecord, layer
from qmigtool.parsers import records
from qmigtool.parsers.configuration import ConfigurationHeader
from qmigtool.parsers.multifd import (
    PAGES_IN_PACKET,
    MultiFDFlag,
    MultiFDInit,
    MultiFDPacket,
    MultiFDPagePacket,
    Packet,
    read_channel,
)
from qmigtool.parsers.qcow2 import QCOW2_MAGIC, Qcow2Header, Qcow2Snapshot
from qmigtool.parsers.records import RamRecord, RamSaveFlag, Subsection
from qmigtool.parsers.returnpath import MessageHeader, read_return_path
from qmigtool.parsers.saveimage import SAVE_IMAGE_MAGIC, SAVE_IMAGE_PARTIAL, SaveImageHeader, byte_order
from qmigtool.parsers.section import Section, Type
from qmigtool.parsers.source import BufferSource
from qmigtool.parsers.window import Window
from qmigtool.ram.channels import ChannelKind, classify
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from qmigtool.parsers.ramstate import RamBlock
    from qmigtool.parsers.record import Record
    from qmigtool.stream.facts import Facts

__all__ = ["MAX_PIECE", "Cut", "cuts"]

MAX_PIECE = 1 << 20
MAIN, QCOW2 = "main", "qcow2 image"
Layer = type[MigrationRecord]


@dataclass(frozen=True, slots=True)
class Cut:
    """A record: ``layer`` dissects its bytes, ``length`` of them at ``offset`` of the source of that name."""

    layer: Layer
    offset: int
    length: int
    section: str | None = None
    source: str = MAIN

    @property
    def end(self) -> int:
        """The offset after the record."""
        return self.offset + self.length


def cuts(
    stream: Facts, problem: Callable[[QmigError], None], within: tuple[int, int] | None = None
) -> Iterator[tuple[Cut, memoryview]]:
    """Yield each record of a stream with its bytes: those of its containers, of the main channel, of other channels.

    ``within`` restricts them to the main channel, and there to sections with bytes in this span: first and last offset.
    ``problem`` is called with each error of an extra channel; those of the stream itself are in its ``problems``.
    Raises :class:`~qmigtool.errors.UnsupportedError` for a pipe, whose bytes are not kept.
    """
    main = stream.source
    if not isinstance(main, BufferSource):
        raise UnsupportedError("the records of a pipe, whose bytes are not kept", expected="a file")
    if within is not None:
        yield from _numbered(main, _main(stream, main, within))
        return
    for source in stream.container_sources:
        yield from _numbered(source, _container(source))
    yield from _numbered(main, _main(stream, main))
    for number, source in enumerate(stream.channel_sources):
        yield from _numbered(source, _channel(stream, source, number, problem))


def _numbered(source: BufferSource, found: Iterator[Cut]) -> Iterator[tuple[Cut, memoryview]]:
    source.restart()
    for cut in found:
        current().tick(cut.offset, cut.section)  # a new budget outside a command: the caller's time is not ours
        source.passed(cut.offset)
        yield cut, source.view(cut.offset, cut.length)


def _pieces(kind: Layer, start: int, end: int, section: str | None = None, source: str = MAIN) -> Iterator[Cut]:
    for at in range(start, end, MAX_PIECE):
        yield Cut(kind, at, min(MAX_PIECE, end - at), section, source)


# -- containers --------------------------------------------------------------------------------------------------------


def _container(source: BufferSource) -> Iterator[Cut]:
    """Yield the headers of a container; what is in it is read from where it was unpacked to."""
    head = bytes(source.whole[:16])
    if head in (SAVE_IMAGE_MAGIC, SAVE_IMAGE_PARTIAL):
        yield from _save_image(source, "libvirt save image")
    elif head.startswith(QCOW2_MAGIC):
        window = Window(source.whole, final=True)
        image, end = Qcow2Header.parse(window, 0)
        yield Cut(layer(Qcow2Header), 0, end, None, QCOW2)
        at = image.snapshots_offset
        for _ in range(image.nb_snapshots):
            _, end = Qcow2Snapshot.parse(window, at)
            yield Cut(layer(Qcow2Snapshot), at, end - at, None, QCOW2)
            at = (end + 7) // 8 * 8


def _save_image(source: BufferSource, name: str) -> Iterator[Cut]:
    window = Window(source.whole, final=True)
    header = SaveImageHeader.variant(BYTE_ORDER=byte_order(bytes(source.whole[:92])))
    found, end = header.parse(window, 0)
    yield Cut(layer(header), 0, end, None, name)
    yield from _pieces(known.SaveImageData, end, end + found.data_length, None, name)


# -- the main channel --------------------------------------------------------------------------------------------------


def _main(stream: Facts, source: BufferSource, within: tuple[int, int] | None = None) -> Iterator[Cut]:
    window = Window(source.whole, final=True)
    blocks = {block.offset: block for block in stream.ram_blocks}
    record = RamRecord.variant(PAGE_SIZE=stream.page_size)
    for section in stream.sections:
        if within is not None and (section.end <= within[0] or section.offset > within[1]):
            continue
        if section.type is Type.HOLE:
            continue  # there are no bytes, and a problem says so
        if section.type is Type.PREFIX:
            yield from _prefix(source, section)
        elif section.type in (Type.TAIL, Type.UNREADABLE):
            yield from _pieces(known.Unparsed, section.offset, section.end, section.name)
        elif section.type is Type.HEADER:
            yield Cut(known.FileHeader, section.offset, section.length)
        elif section.type is Type.CONFIGURATION:
            yield from _configuration(window, section)
        elif section.type in (Type.COMMAND, Type.EOF):
            yield Cut(known.ItemType, section.offset, section.length, section.name)
        elif section.type is Type.VMDESC:
            yield Cut(known.VmDescriptionHeader, section.offset, section.length)
        else:
            yield from _section(window, section, record, blocks)


def _prefix(source: BufferSource, section: Section) -> Iterator[Cut]:
    """Yield what precedes a stream in its file: the header of a save image, or a hole."""
    at = section.offset
    if bytes(source.whole[at : at + 16]) in (SAVE_IMAGE_MAGIC, SAVE_IMAGE_PARTIAL):
        for cut in _save_image(source, MAIN):
            yield cut
            at = cut.end
    yield from _pieces(known.Unparsed, at, section.end)


def _configuration(window: Window, section: Section) -> Iterator[Cut]:
    _, at = ConfigurationHeader.parse(window, section.body_offset)
    yield Cut(known.ItemType, section.offset, at - section.offset, "configuration")
    while at < section.end:
        head, body = Subsection.parse(window, at)
        end = _after_subsection(window, head.idstr, body)
        yield Cut(known.Subsection, at, end - at, "configuration")
        at = end


def _after_subsection(window: Window, name: str, body: int) -> int:
    from qmigtool.parsers.configuration import CONFIGURATION_RECORDS

    return CONFIGURATION_RECORDS[name].parse(window, body)[1]


def _section(window: Window, section: Section, record: type[RamRecord], blocks: dict[int, RamBlock]) -> Iterator[Cut]:
    name, end = section.name, section.body_offset + section.body_length
    if section.body_offset > section.offset:  # else it continues behind a hole
        yield Cut(known.ItemType, section.offset, section.body_offset - section.offset, name)
    if section.type is not Type.FULL and name == "ram":
        yield from _ram(window, section.body_offset, end, record, blocks, MAIN)
    else:
        kind = known.DeviceState if section.type is Type.FULL else known.LiveState
        yield from _pieces(kind, section.body_offset, end, name)
    if section.end > end:
        yield Cut(known.SectionFooter, end, section.end - end, name)


def _ram(
    window: Window, at: int, end: int, record: type[RamRecord], blocks: dict[int, RamBlock], source: str
) -> Iterator[Cut]:
    """Yield the records of a ``ram`` body; what follows an error in one that is cut or broken is unparsed."""
    kind = layer(record)
    while at < end:
        try:
            found, after = record.parse(window, at)
        except QmigError:
            break
        if after > end or not _known_flags(found.flags):
            break
        yield Cut(kind, at, after - at, "ram", source)
        at = after
        if found.flags == RamSaveFlag.MEM_SIZE:
            while at in blocks:
                for cut in _block(window, blocks[at], record.PAGE_SIZE, end):
                    yield cut
                    at = cut.end
    yield from _pieces(known.Unparsed, at, end, "ram", source)


def _known_flags(flags: int) -> bool:
    others = (RamSaveFlag.MEM_SIZE, RamSaveFlag.EOS, RamSaveFlag.MULTIFD_FLUSH)
    return flags in others or flags & ~RamSaveFlag.CONTINUE in records.PAGE_KINDS


def _block(window: Window, block: RamBlock, page_size: int, limit: int) -> Iterator[Cut]:
    """Yield an entry of the MEM_SIZE list with what follows it."""
    more: list[type[Record]] = [records.RamBlockHeader]
    more += [] if block.page_size is None else [records.RamBlockPageSize]
    more += [] if block.mr_addr is None else [records.RamBlockAddress]
    more += [] if block.mapped is None else [records.MappedRamHeader]
    at = block.offset
    for one in more:
        _, end = one.parse(window, at)
        yield Cut(layer(one), at, end - at, "ram")
        at = end
    if block.mapped is None or not block.mapped.pages_offset:
        return
    # A bit for each page, in whole words of 64 bits.
    bits = -(-block.used_length // page_size)
    bitmap, pages = block.mapped.bitmap_offset, block.mapped.pages_offset
    behind = min(bitmap + -(-bits // 64) * 8, pages)
    spans = (
        (known.Unparsed, at, bitmap),
        (known.MappedRamBitmap, bitmap, behind),
        (known.Unparsed, behind, pages),
        (known.MappedRamPages, pages, pages + block.used_length),
    )
    for kind, start, end in spans:
        yield from _pieces(kind, start, min(end, limit), "ram")


# -- the other channels ------------------------------------------------------------------------------------------------


def _channel(stream: Facts, source: BufferSource, number: int, problem: Callable[[QmigError], None]) -> Iterator[Cut]:
    kind = classify(source)
    name = f"channel {number}: {kind}"
    window = Window(source.whole, final=True)
    at = 0
    try:
        for cut in _CHANNELS[kind](stream, window, name):
            yield cut
            at = cut.end
    except QmigError as error:
        error.section = error.section or source.name
        problem(error)
    yield from _pieces(known.Unparsed, at, window.end, None, name)


def _multifd(stream: Facts, window: Window, name: str) -> Iterator[Cut]:
    at = 0
    for item in read_channel(window, stream.page_size):
        if not isinstance(item, Packet):
            _, at = MultiFDInit.parse(window, 0)
            yield Cut(known.MultiFDInit, 0, at, None, name)
            continue
        yield from _packet(window, item, name)


def _packet(window: Window, packet: Packet, name: str) -> Iterator[Cut]:
    if packet.flags & MultiFDFlag.DEVICE_STATE:
        yield Cut(known.DeviceStateData, packet.offset, packet.end - packet.offset, None, name)
        return
    head, at = MultiFDPacket.parse(window, packet.offset)
    if at + 8 * (head.pages_alloc or PAGES_IN_PACKET) == packet.payload:
        yield Cut(layer(MultiFDPagePacket), packet.offset, packet.end - packet.offset, packet.block, name)
        return
    # The place for offsets is the same in every packet, whatever its pages_alloc says.
    yield Cut(known.MultiFDPacket, packet.offset, at - packet.offset, packet.block, name)
    yield from _pieces(known.Unparsed, at, packet.end, packet.block, name)


def _return_path(_stream: Facts, window: Window, name: str) -> Iterator[Cut]:
    for message in read_return_path(window):
        head, at = MessageHeader.parse(window, message.offset)
        end = at + head.length
        yield Cut(known.MessageHeader, message.offset, end - message.offset, message.block, name)
        if message.end > end:
            yield Cut(known.ReceivedBitmap, end, message.end - end, message.block, name)


def _preempt(stream: Facts, window: Window, name: str) -> Iterator[Cut]:
    return _ram(window, 0, window.end, RamRecord.variant(PAGE_SIZE=stream.page_size), {}, name)


_CHANNELS: dict[ChannelKind, Any] = {
    ChannelKind.MULTIFD: _multifd,
    ChannelKind.RETURN_PATH: _return_path,
    ChannelKind.PREEMPT: _preempt,
}
