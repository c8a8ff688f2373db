"""Multifd channels with holes: which packets are there, in which epochs, and what the holes may have written.

A packet whose header was captured tells its pages and where the next packet starts. Behind a hole that has a header,
the next packet is where a chain of valid packets starts that leads to the end of the channel, or to another such hole.
Each channel has as many SYNC packets as the stream has epochs; if there is one hole, those that are missing were in it.

An epoch sends no page twice. So what a hole may have written is older than the epoch that it ends in: pages that were
sent in this epoch or later are known, on whatever channel, and all others are lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from qmigtool.errors import BudgetError, QmigError, TruncatedError
from qmigtool.parsers.multifd import (
    Compression,
    MultiFDFlag,
    MultiFDInit,
    Packet,
    page_packet_size,
    read_packet,
)
from qmigtool.parsers.window import Window
from qmigtool.ram.columns import RUN, Encoding, RunColumns, checked
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from qmigtool.parsers.ramstate import RamBlock
    from qmigtool.parsers.source import BufferSource

__all__ = ["ALWAYS", "LostPackets", "lost_blocks", "lost_pages", "read_over_holes", "settle"]

ALWAYS = 0xFFFFFFFF  # an epoch after all others
_MAGIC = re.compile(bytes.fromhex("1122334400000001"))
GREETING_SIZE = 64  # bytes of MultiFDInit
SEARCHED = 2 << 20  # bytes behind a hole: no packet is longer


@dataclass
class LostPackets:
    """What is missing in a channel: ``lost`` are packets whose pages are known but not their contents.

    ``epochs`` are those in which packets are missing whose pages are not known: see :func:`settle`.
    """

    segments: list[list[Packet]] = field(default_factory=lambda: [[]])
    lost: list[Packet] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    at_end: bool = False

    @property
    def any(self) -> bool:
        """Whether there are packets at all."""
        return any(self.segments)

    @property
    def syncs(self) -> int:
        """The SYNC packets that were captured."""
        return sum(map(_syncs, self.segments))


def read_over_holes(
    source: BufferSource, blocks: Sequence[RamBlock], page_size: int
) -> tuple[MultiFDInit | None, LostPackets, QmigError | None]:
    """Read a channel with holes; the epochs of its packets are only right after :func:`settle`."""
    found, window = LostPackets(), Window(source.whole, final=True)
    size = len(source.whole)
    greeting: MultiFDInit | None = None
    broken = False
    try:
        pos = 0
        if not _in_hole(source, 0, GREETING_SIZE):
            greeting, pos = MultiFDInit.parse(window, 0)
        while pos < size:
            if _in_hole(source, pos, pos + page_packet_size(page_size)):
                behind = _resume(source, window, pos, blocks, page_size)
                found.segments.append([])
                broken = True
                if behind is None:
                    found.at_end = True
                    break
                pos = behind
                continue
            (packet,) = checked([read_packet(window, pos, 0, page_size)], blocks, page_size)
            broken = broken or _in_hole(source, packet.payload, packet.end)
            # The pages of a compressed channel are one stream: behind a hole none can be decompressed.
            packed = packet.compression is not Compression.NOCOMP
            if packet.normal and (_in_hole(source, packet.payload, packet.end) or (packed and broken)):
                found.lost.append(packet)
            found.segments[-1].append(packet)
            pos = packet.end
    except TruncatedError as error:
        if not (source.holes and sum(source.holes[-1]) > size):
            return greeting, found, error
    except QmigError as error:
        return greeting, found, error
    if source.holes and sum(source.holes[-1]) > size and not found.at_end:
        found.segments.append([])
        found.at_end = True
    return greeting, found, None


def _in_hole(source: BufferSource, start: int, end: int) -> bool:
    return any(at < end and start < at + length for at, length in source.holes)


def _resume(source: BufferSource, window: Window, pos: int, blocks: Sequence[RamBlock], page_size: int) -> int | None:
    """Return the first packet behind the hole at ``pos`` from which a chain leads to the end or to another hole."""
    head = page_packet_size(page_size)
    start = max(at + length for at, length in source.holes if at < pos + head and pos < at + length)
    data = bytes(source.whole[start : start + SEARCHED])
    for match in _MAGIC.finditer(data):
        first = at = start + match.start()
        try:
            while at < len(source.whole) and not _in_hole(source, at, at + head):
                current().tick(at, "multifd")
                (packet,) = checked([read_packet(window, at, 0, page_size)], blocks, page_size)
                at = packet.end
        except TruncatedError:
            return first
        except BudgetError:
            raise
        except QmigError:
            continue
        return first
    return None


def settle(gaps: LostPackets, epochs: int | None) -> list[Packet]:
    """Return the packets with their epochs, of a stream with ``epochs``; None: how many is not known.

    Packets behind a hole whose epoch cannot be told are left out. Fills ``gaps.epochs``.
    """
    known: list[Packet] = []
    segments = gaps.segments
    missing = None if epochs is None else epochs - gaps.syncs
    epoch = 0
    lost = {packet.offset for packet in gaps.lost}
    gaps.lost = []

    def add(packets: Iterable[Packet], epoch: int) -> int:
        for packet in packets:
            placed = replace(packet, epoch=epoch)
            if packet.offset in lost:
                gaps.lost.append(placed)
                placed = replace(placed, normal=())
            known.append(placed)
            epoch += bool(packet.flags & MultiFDFlag.SYNC)
        return epoch

    epoch = add(segments[0], 0)
    for index, segment in enumerate(segments[1:], 1):
        last = index == len(segments) - 1
        if missing is None or missing < 0:
            gaps.epochs.append(ALWAYS)
            break
        if gaps.at_end and last:
            gaps.epochs.append(max((epochs or 1) - 1, 0))
        elif missing == 0 or len(segments) == 2:
            epoch += missing
            gaps.epochs.append(epoch)
            epoch = add(segment, epoch)
        elif last:
            epoch = (epochs or 0) - _syncs(segment)
            gaps.epochs.append(epoch)
            add(segment, epoch)
    return known


def _syncs(packets: Iterable[Packet]) -> int:
    return sum(bool(packet.flags & MultiFDFlag.SYNC) for packet in packets)


def lost_blocks(blocks: Sequence[RamBlock], page_size: int, channel: int, epochs: Iterable[int]) -> RunColumns:
    """Return the runs that make all pages of all blocks lost, at the start of some epochs."""
    rows = [
        (channel, Encoding.LOST, 0, index, 0, epoch, 0, 0, -(-block.used_length // page_size), 0)
        for epoch in epochs
        for index, block in enumerate(blocks)
        if block.mr_addr is None
    ]
    return np.array(rows, RUN)


def lost_pages(packets: Iterable[Packet], blocks: dict[str, int], page_size: int, channel: int) -> RunColumns:
    """Return the runs that make the pages of packets lost."""

    def rows() -> Iterator[tuple[int, ...]]:
        for packet in packets:
            if packet.block is not None:
                for addr in packet.normal:
                    yield (
                        *(channel, Encoding.LOST, 0, blocks[packet.block], 0, packet.epoch, 0),
                        *(addr // page_size, 1, packet.offset),
                    )

    return np.array(list(rows()), RUN)
