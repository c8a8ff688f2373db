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
from qmigtool.ram.columns import MAX_MAPPED_RUNS, Encoding, RunColumns, from_mapped, from_packets, from_table, merge
from qmigtool.ram.content import Content, UnpackedChannel
from qmigtool.ram.lost import ALWAYS, lost_blocks, lost_pages, settle
from qmigtool.ram.model import Ram

if TYPE_CHECKING:
    from qmigtool.parsers.ramstate import RamState
    from qmigtool.parsers.source import BufferSource, Source
    from qmigtool.ram.unplugged import Region

__all__ = ["build_ram"]

AFTER_SWITCHOVER = 0xFFFFFFFE  # an epoch
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
    sources: dict[int, Source | UnpackedChannel] = {0: source}
    packed: dict[int, UnpackedChannel] = {}
    requests = PageRequests()
    multifd: list[tuple[int, MultiFDChannel]] = []
    parts: list[RunColumns] = []
    unknown: list[RunColumns] = []
    for number, channel in enumerate(channels, start=1):
        sources[number] = channel
        headless = bool(channel.holes and channel.holes[0][0] == 0)
        kind = ChannelKind.MULTIFD if headless else classify(channel)
        if kind is ChannelKind.MULTIFD:
            found = read_multifd(channel, state.blocks, page_size)
            error = found.error
            if headless and not (found.gaps and found.gaps.any):
                unknown.append(lost_blocks(state.blocks, page_size, number, [ALWAYS]))
                continue
            multifd.append((number, found))
        elif kind is ChannelKind.RETURN_PATH:
            error = read_requests(channel, requests)
        else:
            table, error = read_preempt(channel, state)
            columns = from_table(table, page_size, (), number)
            # After the switchover each page is sent once, on one of the two: the order does not matter.
            columns["epoch"] = AFTER_SWITCHOVER
            parts.append(columns)
        if error is not None:
            problems.append(error)
    epochs = _epochs(source, syncs, [one for _, one in multifd])
    missing = 0 if epochs is None else epochs - len(syncs)
    lost = [*unknown, *_settle(multifd, epochs, state)]
    for number, one in multifd:
        columns, packing = from_packets(one.packets, state.by_name, page_size, number)
        parts.append(columns)
        if packing:
            packed[number] = UnpackedChannel(channels[number - 1], one.packets, packing, page_size)
    problems += compare([one for _, one in multifd], len(syncs), uuid)
    if missing > 0:  # they were in the hole
        syncs = sorted([*syncs, *[sum(source.holes[0])] * missing])
    main = from_table(runs, page_size, syncs)
    if multifd and source.holes:
        mine = main["encoding"] == Encoding.LOST
        main["epoch"][mine] += missing
        lost.append(main[mine])
        main = main[~mine]
    parts = [main, *_mapped(source, state, problems), *parts]
    ordered = merge(parts, lost) if lost or any(len(part) for part in parts[1:]) else main
    return Ram(
        state.blocks, ordered, Content(sources, packed, page_size), requests, regions, flushes=bool(len(state.flushes))
    )


def _epochs(source: Source, syncs: Sequence[int], multifd: Sequence[MultiFDChannel]) -> int | None:
    """Return how many epochs the stream has; None if a hole of the main channel leaves that open."""
    if not source.holes:
        return len(syncs)
    counted = {one.syncs for one in multifd if one.gaps is None and one.error is None}
    if len(counted) != 1:
        return len(syncs) if not multifd else None
    epochs = counted.pop()
    return epochs if epochs == len(syncs) or (epochs > len(syncs) and len(source.holes) == 1) else None


def _settle(multifd: Sequence[tuple[int, MultiFDChannel]], epochs: int | None, state: RamState) -> list[RunColumns]:
    """Settle the channels with holes; return the runs of what is lost in them."""
    lost = []
    for number, one in multifd:
        if one.gaps is not None:
            one.packets = settle(one.gaps, epochs)
            lost.append(lost_blocks(state.blocks, state.page_size, number, one.gaps.epochs))
            lost.append(lost_pages(one.gaps.lost, state.by_name, state.page_size, number))
    if multifd and epochs is None:
        lost.append(lost_blocks(state.blocks, state.page_size, 0, [ALWAYS]))
    return lost


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
