"""From a stream that was read, and the extra channels of its migration, to :class:`~qmigtool.ram.model.Ram`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from qmigtool.errors import QmigError, UsageError
from qmigtool.parsers.multifd import MULTIFD_MAGIC, Packet, read_channel
from qmigtool.parsers.ram import RamBody, RamState
from qmigtool.parsers.ramruns import RunTable
from qmigtool.parsers.returnpath import Message, MigRpMessageType, read_return_path
from qmigtool.parsers.window import Window
from qmigtool.ram.columns import from_mapped, from_packets, from_table, merge
from qmigtool.ram.content import Content, UnpackedChannel
from qmigtool.ram.model import Ram

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource, Source

__all__ = ["ChannelKind", "build_ram", "classify"]

T = TypeVar("T")


class ChannelKind(StrEnum):
    """What an extra channel is; only multifd has a magic number."""

    MULTIFD = "multifd"
    RETURN_PATH = "return path"
    PREEMPT = "postcopy preempt"


def classify(source: BufferSource) -> ChannelKind:
    """Tell a channel by its first bytes."""
    head = bytes(source.whole[:8])
    if head[:4] == MULTIFD_MAGIC.to_bytes(4, "big"):
        return ChannelKind.MULTIFD
    # A return path starts with a small type and a small length; a RAM record with the high half of an address.
    type_, length = int.from_bytes(head[:2], "big"), int.from_bytes(head[2:4], "big")
    if MigRpMessageType.MIG_RP_MSG_INVALID < type_ <= MigRpMessageType.MIG_RP_MSG_SWITCHOVER_ACK and length <= 512:
        return ChannelKind.RETURN_PATH
    return ChannelKind.PREEMPT


def build_ram(
    source: Source,
    state: RamState,
    ends: Iterable[int],
    channels: Sequence[BufferSource],
    problems: list[QmigError],
) -> Ram:
    """Put together the runs of the main stream (``state``, read with runs kept) and of every extra channel.

    ``ends`` are the offsets of the EOS records. Errors of a channel go to ``problems``; what came before them counts.
    """
    runs = state.runs
    if runs is None:
        raise UsageError("the records of this stream's RAM were not kept", expected="a pipe opened with keep_runs=True")
    page_size = state.page_size
    # Epochs end with FLUSH records where there are any, else with each section (QEMU before 8.1).
    syncs = state.flushes if len(state.flushes) else list(ends)
    parts = [from_table(runs, page_size, syncs)]
    try:
        parts.append(from_mapped(state.blocks, source, page_size, state.origin))
    except QmigError as error:
        problems.append(error)
    sources: dict[int, Source | UnpackedChannel] = {0: source}
    packed: dict[int, UnpackedChannel] = {}
    requests: list[Message] = []
    for number, channel in enumerate(channels, start=1):
        sources[number] = channel
        kind = classify(channel)
        window = Window(channel.whole, final=True)
        if kind is ChannelKind.MULTIFD:
            packets = _salvage(_packets(window, page_size), problems, channel.name)
            columns, packing = from_packets(packets, state.by_name, page_size, number)
            parts.append(columns)
            if packing is not None and packing:
                packed[number] = UnpackedChannel(channel, packets, packing, page_size)
        elif kind is ChannelKind.RETURN_PATH:
            requests += _salvage(read_return_path(window), problems, channel.name)
        else:
            table = _preempt(window, state, problems, channel.name)
            columns = from_table(table, page_size, (), number)
            # After the switchover each page is sent once, on one of the two: the order does not matter.
            columns["epoch"] = len(syncs) + 1
            parts.append(columns)
    ordered = merge(parts) if len(parts) > 2 else np.concatenate(parts)
    return Ram(state.blocks, ordered, Content(sources, packed, page_size), requests)


def _packets(window: Window, page_size: int) -> Iterable[Packet]:
    return (item for item in read_channel(window, page_size) if isinstance(item, Packet))


def _salvage(items: Iterable[T], problems: list[QmigError], name: str) -> list[T]:
    """Take items until the channel ends or breaks."""
    taken: list[T] = []
    try:
        for item in items:
            taken.append(item)
    except QmigError as error:
        error.section = name
        problems.append(error)
    return taken


def _preempt(window: Window, state: RamState, problems: list[QmigError], name: str) -> RunTable:
    """Read a postcopy preempt channel: page records with a CONTINUE of its own; only QEMU 7.2 ends it with EOS."""
    table = RunTable(state.page_size)
    own = replace(state, current=None, runs=table, pages={}, problems=[])
    body = RamBody(own)
    pos = 0
    try:
        while not window.at_end(pos):
            pos, _ = body.advance(window, pos)
    except QmigError as error:
        error.section = name
        problems.append(error)
    return table
