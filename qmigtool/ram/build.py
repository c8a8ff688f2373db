"""From a stream that was read, and the extra channels of its migration, to :class:`~qmigtool.ram.model.Ram`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from qmigtool.errors import QmigError, UsageError
from qmigtool.parsers.returnpath import PageRequests
from qmigtool.ram.channels import (
    ChannelKind,
    MultiFDChannel,
    classify,
    compare,
    read_multifd,
    read_preempt,
    read_requests,
)
from qmigtool.ram.columns import MAX_MAPPED_RUNS, RunColumns, from_mapped, from_packets, from_table, merge
from qmigtool.ram.content import Content, UnpackedChannel
from qmigtool.ram.model import Ram

if TYPE_CHECKING:
    from qmigtool.parsers.ramstate import RamState
    from qmigtool.parsers.source import BufferSource, Source
    from qmigtool.ram.unplugged import Region

__all__ = ["build_ram"]

MAX_PROBLEMS = 100  # of bitmaps: there may be as many as blocks


def build_ram(
    source: Source,
    state: RamState,
    ends: Iterable[int],
    channels: Sequence[BufferSource],
    problems: list[QmigError],
    uuid: bytes | None = None,
    regions: Sequence[Region] = (),
) -> Ram:
    """Combine the runs of the main stream (``state``, read with runs kept) and of every extra channel.

    ``ends`` are the offsets of the EOS records, ``uuid`` is from the stream's configuration, ``regions`` are those of
    its virtio-mem devices. Errors of a channel, and evidence that the channels are not of one migration, are added to
    ``problems``; records before an error are used.
    """
    runs = state.runs
    if runs is None:
        raise UsageError("the records of this stream's RAM were not kept", expected="a pipe opened with keep_runs=True")
    page_size = state.page_size
    # Epochs end with FLUSH records where there are any, else with each section (QEMU before 8.1).
    syncs = state.flushes if len(state.flushes) else list(ends)
    parts = [from_table(runs, page_size, syncs), *_mapped(source, state, problems)]
    sources: dict[int, Source | UnpackedChannel] = {0: source}
    packed: dict[int, UnpackedChannel] = {}
    requests = PageRequests()
    multifd: list[MultiFDChannel] = []
    for number, channel in enumerate(channels, start=1):
        sources[number] = channel
        kind = classify(channel)
        if kind is ChannelKind.MULTIFD:
            found = read_multifd(channel, state.blocks, page_size)
            multifd.append(found)
            error = found.error
            columns, packing = from_packets(found.packets, state.by_name, page_size, number)
            parts.append(columns)
            if packing:
                packed[number] = UnpackedChannel(channel, found.packets, packing, page_size)
        elif kind is ChannelKind.RETURN_PATH:
            error = read_requests(channel, requests)
        else:
            table, error = read_preempt(channel, state)
            columns = from_table(table, page_size, (), number)
            # After the switchover each page is sent once, on one of the two: the order does not matter.
            columns["epoch"] = len(syncs) + 1
            parts.append(columns)
        if error is not None:
            problems.append(error)
    problems += compare(multifd, len(syncs), uuid)
    ordered = merge(parts) if any(len(part) for part in parts[1:]) else parts[0]
    return Ram(
        state.blocks, ordered, Content(sources, packed, page_size), requests, regions, flushes=bool(len(state.flushes))
    )


def _mapped(source: Source, state: RamState, problems: list[QmigError]) -> list[RunColumns]:
    """Return the columns of every bitmap of mapped-ram that can be read."""
    parts: list[RunColumns] = []
    errors: list[QmigError] = []
    room = MAX_MAPPED_RUNS
    for index, block in enumerate(state.blocks):
        if block.mapped is None:
            continue
        try:
            part = from_mapped(index, block, source, state.page_size, state.origin, room)
        except QmigError as error:
            errors.append(error.with_traceback(None))
            if len(errors) == MAX_PROBLEMS:
                break
            continue
        room -= len(part)
        parts.append(part)
    problems += errors
    return parts
