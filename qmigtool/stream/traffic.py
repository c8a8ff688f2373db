"""The traffic of a capture: its connections, and for each migration when what was sent.

Times are those of the packets: what the network shows, not what the two QEMUs did. The guest had stopped when the first
packet was sent that QEMU only sends after that, and it could not run again before the last one that it needs: so the
time between the two is the least downtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from qmigtool.errors import QmigError
from qmigtool.parsers.container import ContainerKind
from qmigtool.parsers.pcap import Capture, Role, read_capture
from qmigtool.parsers.returnpath import MigRpMessageType, read_return_path
from qmigtool.parsers.section import Type
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.parsers.window import Window
from qmigtool.stream.migrations import Channel, Migration, find_migrations
from qmigtool.stream.model import Stream
from qmigtool.stream.pipes import file_of, spool_pipe
from qmigtool.stream.unwrap import unwrap
from qmigtool.util.budget import ensured

if TYPE_CHECKING:
    import os

    from qmigtool.parsers.section import Section

__all__ = ["Moment", "Pass", "Timeline", "Traffic", "read_traffic"]

SECOND = 1_000_000_000
MAX_PASSES = 1000
PING_IN_PACKAGE = 3  # the token of the last PING before POSTCOPY_RUN


@dataclass(frozen=True, slots=True)
class Moment:
    """The time of a packet, in nanoseconds since 1970; ``evidence`` says what it shows."""

    time: int
    evidence: str


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass over guest memory: ``pages``, of which ``zero`` are zero pages, ``size`` bytes of records.

    ``start`` and ``end`` are times. ``dirtied`` is how many pages a second the guest wrote meanwhile: the pages of the
    next pass; None where there is none.
    """

    number: int
    pages: int
    zero: int
    size: int
    start: int | None
    end: int | None
    dirtied: float | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """A migration by the times of its packets.

    The guest was stopped at ``stopped`` or before, and could run on the destination at ``resumed`` or after; None if
    the capture does not show it. ``problems`` are those of the stream.
    """

    migration: Migration
    page_size: int
    passes: tuple[Pass, ...]
    stopped: Moment | None
    resumed: Moment | None
    postcopy: bool
    problems: tuple[QmigError, ...]

    @property
    def downtime(self) -> float | None:
        """The least downtime that the packets allow, in seconds."""
        if self.stopped is None or self.resumed is None:
            return None
        return max(self.resumed.time - self.stopped.time, 0) / SECOND


@dataclass(frozen=True, slots=True)
class Traffic:
    """A capture that was read; ``migrations`` are in it, ``others`` the directions that belong to none."""

    source: BufferSource
    capture: Capture
    migrations: tuple[Migration, ...]
    others: tuple[Channel, ...]

    @property
    def every(self) -> Iterator[tuple[int | None, Channel]]:
        """Yield (number of its migration, channel), in the order of the connections."""
        found = [(one.number, channel) for one in self.migrations for channel in one.every]
        rest = [(None, channel) for channel in self.others]
        yield from sorted([*found, *rest], key=lambda one: (one[1].connection.number, one[1].role is Role.RETURN_PATH))

    @property
    def start(self) -> int | None:
        """The time of the first packet of a connection."""
        return min((one.opened for one in self.capture.connections if one.opened is not None), default=None)

    @property
    def end(self) -> int | None:
        """The time of the last packet of a connection."""
        return max((one.closed for one in self.capture.connections if one.closed is not None), default=None)

    def timeline(self, migration: Migration) -> Timeline:
        """Read the stream of a migration, and place it in time."""
        with Stream(_again(self.source), migration=migration.number, keep_runs=True) as stream:
            return _timeline(stream, migration)


@contextmanager
def read_traffic(target: str | os.PathLike[str] | bytes | BufferSource | BinaryIO) -> Iterator[Traffic]:
    """Read a capture, compressed or not: a path, its bytes, or a source.

    Raises :class:`~qmigtool.errors.UsageError` for what is not a capture, and the errors of reading one.
    """
    if isinstance(target, bytes):
        source: BufferSource = BufferSource(target)
    elif isinstance(target, BufferSource):
        source = target
    elif isinstance(target, str) or hasattr(target, "__fspath__"):
        source = FileSource(Path(target))
    else:
        source = file_of(target) or spool_pipe(target)
    with ensured() as budget, source:
        budget.admit(source.occupied)
        found = unwrap(source, until=ContainerKind.CAPTURE)
        try:
            capture = read_capture(found.source)
            migrations, others = find_migrations(capture, found.source.whole)
            yield Traffic(found.source, capture, tuple(migrations), tuple(others))
        finally:
            found.close(source)


def _again(source: BufferSource) -> BufferSource:
    if isinstance(source, FileSource):
        return FileSource.of_open_file(source.fileno())
    return BufferSource(source.whole, source.name)


# -- a migration in time ----------------------------------------------------------------------------------------------


def _timeline(stream: Stream, migration: Migration) -> Timeline:
    main = migration.main.direction
    sections = list(stream.sections)
    package = next((s for s in sections if s.type is Type.COMMAND and s.name == "PACKAGED"), None)
    stop = _stop(sections, package)
    stopped = resumed = None
    if stop is not None:
        time = main.time_of(stop.offset)
        if time is not None:
            what = f"command {stop.name}" if stop.type is Type.COMMAND else f"{stop.type.upper()} of {stop.name}"
            stopped = Moment(time, what)
            resumed = _resumed(stream, migration, sections, package)
    return Timeline(
        migration,
        stream.page_size,
        tuple(_passes(stream, migration, None if package is None else package.offset)),
        stopped,
        resumed,
        package is not None,
        tuple(stream.problems),
    )


def _stop(sections: Sequence[Section], package: Section | None) -> Section | None:
    """Return the first item that QEMU sends after it has stopped the guest."""
    for section in sections:
        if section.type is Type.COMMAND and section.name == "SWITCHOVER_START":
            return section
        if section.type is Type.END and package is None:
            return section
        if section is package:
            return section
    return None


def _others(migration: Migration) -> list[Channel]:
    """Return the channels that a stream of the migration has beside its own."""
    return [one for one in migration.channels if one.role is not Role.RECOVERY]


def _resumed(
    stream: Stream, migration: Migration, sections: Sequence[Section], package: Section | None
) -> Moment | None:
    """Return the last packet that the destination needs: with postcopy, its answer to the last PING before RUN."""
    last = next((section for section in reversed(sections) if section.type is Type.EOF), None)
    if package is not None:
        last = package
        for channel, source in zip(_others(migration), stream.channel_sources, strict=True):
            if channel.role is Role.RETURN_PATH:
                time = _answered(channel, source)
                if time is not None:
                    return Moment(time, "PONG on the return path")
    time = None if last is None else migration.main.direction.time_of(last.end - 1)
    return None if time is None else Moment(time, "the last byte of device state")


def _answered(channel: Channel, source: BufferSource) -> int | None:
    with suppress(QmigError):
        for message in read_return_path(Window(source.whole, final=True)):
            if message.type is MigRpMessageType.MIG_RP_MSG_PONG and message.value == PING_IN_PACKAGE:
                return channel.direction.time_of(message.offset)
    return None


def _passes(stream: Stream, migration: Migration, package: int | None) -> Iterator[Pass]:
    """Yield the passes before postcopy; with multifd, those that FLUSH records (or sections) end."""
    import numpy as np

    from qmigtool.ram.columns import VOID, Encoding
    from qmigtool.ram.usage import SENT_AS_ZERO

    ram = stream.ram
    multifd = any(one.role is Role.MULTIFD for one in migration.channels)
    rounds = ram.runs["epoch"].astype(np.int64) if multifd else ram.passes
    kept = ~np.isin(ram.runs["encoding"], VOID)
    if package is not None:
        kept &= (ram.runs["channel"] == 0) & (ram.runs["offset"] < package)
    order = np.flatnonzero(kept)
    order = order[np.argsort(rounds[order], kind="stable")]
    starts = np.flatnonzero(np.concatenate(([True], np.diff(rounds[order]) != 0))) if len(order) else order
    # The offsets of compressed multifd pages count in the decompressed channel.
    placed = np.isin(ram.runs["encoding"], [one for one in Encoding if one < Encoding.MULTIFD_ZLIB])
    ways = [migration.main.direction, *(one.direction for one in _others(migration))]
    found = []
    for number, mine in enumerate(np.split(order, starts[1:])[:MAX_PASSES] if len(order) else ()):
        runs = ram.runs[mine]
        pages = runs["pages"].astype(np.int64)
        sizes = pages * (runs["head"].astype(np.int64) + runs["payload"])
        offsets = runs["offset"].astype(np.int64)
        times = []
        for channel in np.unique(runs["channel"]).tolist():
            here = (runs["channel"] == channel) & placed[mine]
            if here.any():
                ends = int(offsets[here].min()), int((offsets + np.maximum(sizes, 1))[here].max()) - 1
                times += [time for time in map(ways[channel].time_of, ends) if time is not None]
        zero = int(pages[SENT_AS_ZERO[runs["encoding"]]].sum())
        first, last = min(times, default=None), max(times, default=None)
        found.append(Pass(number, int(pages.sum()), zero, int(sizes.sum()), first, last))
    for one, following in zip_longest(found, found[1:]):
        rate = None
        if following is not None and one.start is not None and following.start is not None:
            took = following.start - one.start
            rate = following.pages * SECOND / took if took > 0 else None
        yield replace(one, dirtied=rate)
