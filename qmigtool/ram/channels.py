"""The extra channels of a migration: the kind of each, its readable records, and whether they belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from qmigtool.errors import QmigError, StreamError, TruncatedError
from qmigtool.parsers.multifd import (
    MULTIFD_MAGIC,
    Compression,
    MultiFDFlag,
    MultiFDInit,
    Packet,
    read_channel,
)
from qmigtool.parsers.ram import RamBody
from qmigtool.parsers.ramruns import RunTable
from qmigtool.parsers.ramstate import RamState
from qmigtool.parsers.returnpath import MigRpMessageType, PageRequests, read_return_path
from qmigtool.parsers.window import Window
from qmigtool.ram.columns import checked
from qmigtool.ram.lost import LostPackets, read_over_holes

if TYPE_CHECKING:
    from qmigtool.parsers.ramstate import RamBlock
    from qmigtool.parsers.source import BufferSource

__all__ = ["ChannelKind", "MultiFDChannel", "classify", "compare", "read_multifd", "read_preempt", "read_requests"]

UUID_AT, ID_AT = 8, 24  # in the greeting


class ChannelKind(StrEnum):
    """The kind of an extra channel; only multifd has a magic number."""

    MULTIFD = "multifd"
    RETURN_PATH = "return path"
    PREEMPT = "postcopy preempt"


def classify(source: BufferSource) -> ChannelKind:
    """Recognise a channel by its first bytes."""
    head = bytes(source.whole[:8])
    if head[:4] == MULTIFD_MAGIC.to_bytes(4, "big"):
        return ChannelKind.MULTIFD
    # A return path starts with a small type and a small length; a RAM record with the high half of an address.
    type_, length = int.from_bytes(head[:2], "big"), int.from_bytes(head[2:4], "big")
    if MigRpMessageType.MIG_RP_MSG_INVALID < type_ <= MigRpMessageType.MIG_RP_MSG_SWITCHOVER_ACK and length <= 512:
        return ChannelKind.RETURN_PATH
    return ChannelKind.PREEMPT


@dataclass
class MultiFDChannel:
    """The readable part of a multifd channel; ``error`` is the one that ended it."""

    name: str
    greeting: MultiFDInit | None
    packets: list[Packet]
    error: QmigError | None = None
    gaps: LostPackets | None = None

    @property
    def packing(self) -> Compression | None:
        """The compression of its pages; None without pages."""
        return next((packet.compression for packet in self.packets if packet.normal), None)

    @property
    def syncs(self) -> int:
        """The number of epochs."""
        return sum(bool(packet.flags & MultiFDFlag.SYNC) for packet in self.packets)


def read_multifd(source: BufferSource, blocks: Sequence[RamBlock], page_size: int) -> MultiFDChannel:
    """Read a multifd channel until it ends or breaks; of one with holes, the packets are set when it is settled."""
    channel = MultiFDChannel(source.name, None, [])
    if source.holes:
        channel.greeting, channel.gaps, error = read_over_holes(source, blocks, page_size)
        channel.error = None if error is None else _of(source, error)
        return channel
    items = read_channel(Window(source.whole, final=True), page_size)

    def packets() -> Iterator[Packet]:
        for item in items:
            if isinstance(item, Packet):
                yield item
            else:
                channel.greeting = item

    try:
        for packet in checked(packets(), blocks, page_size):
            channel.packets.append(packet)
    except QmigError as error:
        channel.error = _of(source, error)
    return channel


def read_preempt(source: BufferSource, state: RamState) -> tuple[RunTable, QmigError | None]:
    """Read a postcopy preempt channel until it ends or breaks: pages with their own CONTINUE.

    Only QEMU 7.2 ends it with EOS.
    """
    table = RunTable(state.page_size)
    own = RamState(
        state.page_size, state.capabilities, blocks=list(state.blocks), by_name=dict(state.by_name), runs=table
    )
    body = RamBody(own, pages_only=True)
    # Postcopy discards a page before it sends it again: what is behind a hole is absent, never old.
    end = source.holes[0][0] if source.holes else len(source.whole)
    window = Window(source.whole[:end], final=True)
    pos = 0
    try:
        while not window.at_end(pos):
            pos, _ = body.advance(window, pos)
    except TruncatedError as error:
        return table, None if source.holes else _of(source, error)
    except QmigError as error:
        return table, _of(source, error)
    return table, None


def read_requests(source: BufferSource, requests: PageRequests) -> QmigError | None:
    """Add the page requests of a return path, until it ends or breaks."""
    end = source.holes[0][0] if source.holes else len(source.whole)
    try:
        for message in read_return_path(Window(source.whole[:end], final=True)):
            requests.add(message)
    except TruncatedError as error:
        return None if source.holes else _of(source, error)
    except QmigError as error:
        return _of(source, error)
    return None


def compare(channels: Sequence[MultiFDChannel], epochs: int, uuid: bytes | None = None) -> Iterator[StreamError]:
    """Yield why multifd channels cannot all be of one migration, whose stream has ``epochs`` and perhaps a ``uuid``.

    QEMU numbers the channels from 0, sends the UUID of the VM on each, compresses all in the same way, and sends as
    many SYNC packets on each as the stream has FLUSH records (or, before 8.1, ``ram`` sections).
    """
    greeted = [(channel, channel.greeting) for channel in channels if channel.greeting is not None]
    ids = Counter(greeting.channel for _, greeting in greeted)
    for channel, greeting in greeted:
        if ids[greeting.channel] > 1:
            yield _foreign(channel, f"channel {greeting.channel}, as another one", ID_AT, "each channel once")
        elif greeting.channel >= len(channels):
            yield _foreign(
                channel, f"channel {greeting.channel} of {len(channels)}", ID_AT, f"all channels from 0 to {max(ids)}"
            )
        wanted = greeted[0][1].uuid if uuid is None else uuid
        # A VM without a UUID sends zeros, and then its stream has no UUID either.
        if greeting.uuid != wanted:
            yield _foreign(channel, f"the channel of VM {greeting.uuid.hex()}", UUID_AT, wanted.hex())
    packings = [(channel, channel.packing) for channel in channels if channel.packing is not None]
    for channel, packing in packings:
        if packing != packings[0][1]:
            yield _foreign(channel, f"pages compressed with {_name(packing)}", None, _name(packings[0][1]))
    for channel in channels:
        if channel.error is None and channel.gaps is None and channel.syncs != epochs:
            yield _foreign(channel, f"{channel.syncs} SYNC packets", None, f"{epochs}, like the stream's epochs")


def _name(packing: Compression | None) -> str:
    return str(packing.name) if packing is not None else "nothing"


def _foreign(channel: MultiFDChannel, message: str, offset: int | None, expected: str) -> StreamError:
    return StreamError(message, offset=offset, section=channel.name, expected=expected)


def _of(source: BufferSource, error: QmigError) -> QmigError:
    """Name the channel of an error; drop its traceback, whose frames hold all of the channel's bytes."""
    error.section = source.name
    return error.with_traceback(None)
