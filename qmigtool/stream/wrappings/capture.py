"""A capture of migration traffic: the stream and its channels are the connections in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from qmigtool.errors import GapError, MigrationsError, QmigError, StreamError, UnsupportedError, UsageError
from qmigtool.parsers.container import ContainerKind, Magic
from qmigtool.parsers.pcap import Capture, Role, read_capture
from qmigtool.parsers.source import BufferSource, FileSource, PartSource
from qmigtool.stream.migrations import Channel, Migration, find_migrations, named
from qmigtool.stream.unwrapped import CHECKED, Unwrapped, Wrapping, check_room
from qmigtool.util.budget import current
from qmigtool.util.progress import reach, task

if TYPE_CHECKING:
    from qmigtool.parsers.reassembly import TcpDirection

__all__ = ["CAPTURE"]

Places = list[tuple[int, int]]
"""(offset in the capture, length)."""

SECTION = "capture"
MAX_SHOWN = 16  # holes or conflicts of a connection that are named one by one
BLOCK = 4096  # of a temporary file: what the least data after a hole occupies
BATCH = 256 << 10  # bytes and
MOST = 512  # places that are read and written at once
ALIGNED = 1 << 16  # where a channel starts in the temporary file of the others: every system can map that


def _capture(found: Unwrapped, _magic: Magic, wanted: str | None) -> Unwrapped:
    source = found.source
    if found.start:
        raise UnsupportedError("a capture inside another container", offset=found.start)
    capture = read_capture(source)
    migrations, others = find_migrations(capture, source.whole)
    if not migrations:
        raise _none(capture, others)
    chosen = _choose(migrations, wanted)
    with task("reassembling", sum(one.direction.size for one in chosen.every)):
        main = _main(source, chosen.main)
        try:
            channels = _channels(source, [one for one in chosen.channels if one.role is not Role.RECOVERY])
        except BaseException:
            main.close()
            raise
    details = {"migration": chosen.number, "connections": [one.document() for one in chosen.every]}
    if len(migrations) > 1:
        details["migrations"] = len(migrations)
    return Unwrapped(
        main,
        found.container.without("pcap", name="pcap", details=details),
        0,
        tuple(channels),
        (*found.outer, source),
        (*found.problems, *_problems(capture, chosen)),
    )


def _none(capture: Capture, others: Sequence[Channel]) -> QmigError:
    """Return the error for a capture without a main channel."""
    if capture.error is not None:
        return capture.error
    encrypted = [one for one in others if one.role is Role.TLS]
    if encrypted:
        names = ", ".join(one.name for one in encrypted[:4]) + (", ..." if len(encrypted) > 4 else "")
        return UnsupportedError(
            "a migration in TLS",
            f"no migration stream in this capture can be read: {len(encrypted)} directions are TLS ({names})",
            offset=0,
            section=SECTION,
            expected="a capture without TLS",
        )
    late = sum(not one.direction.began for one in others)
    lost = sum(any(hole.offset == 0 for hole in one.direction.holes) for one in others)
    return StreamError(
        f"no migration stream in the {len(others)} directions of this capture"
        + (f", of which {late} began before it" if late else "")
        + (f", of which {lost} lack their first bytes" if lost else ""),
        offset=0,
        expected="a connection that starts with QEVM",
    )


def _choose(migrations: Sequence[Migration], wanted: str | None) -> Migration:
    if wanted is not None:
        for one in migrations:
            if str(one.number) == wanted:
                return one
        raise UsageError(f"no migration {wanted!r}", expected=f"one of {named(migrations)}")
    if len(migrations) > 1:
        raise MigrationsError(
            "this capture has several migrations",
            expected=f"--migration with one of {named(migrations)}",
            migrations=tuple(one.document() for one in migrations),
        )
    return migrations[0]


def _main(source: BufferSource, main: Channel) -> FileSource:
    with tempfile.TemporaryFile() as file:
        size = _last(main.direction)
        _write(source, main.direction, file, 0, size)
        file.flush()
        made = FileSource.of_handle(os.dup(file.fileno()), f"{source.name} ({main.name})")
    made.holes = tuple((hole.offset, hole.length) for hole in main.direction.holes if sum(hole) < size)
    return made


def _channels(source: BufferSource, channels: Sequence[Channel]) -> list[BufferSource]:
    """Write all other channels to one file: there may be hundreds, and each would need a file descriptor."""
    starts = []
    with tempfile.TemporaryFile() as file:
        end = 0
        for one in channels:
            starts.append(end)
            _write(source, one.direction, file, end, _last(one.direction))
            end += -(-max(_last(one.direction), 1) // ALIGNED) * ALIGNED
        if not end:
            return []
        file.truncate(end)
        file.flush()
        made = PartSource.of_file(
            file.fileno(),
            [
                (start, _last(one.direction), f"{source.name} ({one.name})")
                for start, one in zip(starts, channels, strict=True)
            ],
        )
    for part, one in zip(made, channels, strict=True):
        way = one.direction
        known = way.kept and (way.began or one.role is not Role.UNKNOWN)
        part.holes = tuple((hole.offset, hole.length) for hole in way.holes) if known else ((0, way.size),)
    return made


def _last(direction: TcpDirection) -> int:
    """Return the bytes before a hole at the end."""
    at_end = direction.holes and sum(direction.holes[-1]) == direction.size
    return direction.holes[-1].offset if at_end else direction.size


def _write(source: BufferSource, direction: TcpDirection, file: BinaryIO, start: int, size: int) -> None:
    """Write the first ``size`` bytes of a direction to a file, the first at ``start``; holes stay holes."""
    budget, handle = current(), file.fileno()
    unchecked = CHECKED
    read = _reader(source)
    for at, places in _batches(direction, size):
        budget.tick(section=SECTION)
        length = sum(count for _, count in places)
        budget.charge("spool", max(length, BLOCK), section=SECTION)
        unchecked = check_room(length, unchecked)
        _write_all(handle, read(places), start + at)
        reach(at + length)
    os.ftruncate(handle, max(start + size, os.fstat(handle).st_size))


def _reader(source: BufferSource) -> Callable[[Places], list[memoryview]]:
    """Return a function that gives the bytes at places of a capture, until it is called again.

    A file is read, not mapped: that is faster, and its pages do not count as this process's.
    """
    if not isinstance(source, FileSource) or not hasattr(os, "preadv"):
        return lambda places: [source.whole[at : at + size] for at, size in places]
    buffer = memoryview(bytearray(2 * BATCH))
    handle = source.fileno()

    def read(places: Places) -> list[memoryview]:
        first, last = places[0][0], sum(places[-1])
        length = last - first
        near = 0 <= length <= len(buffer) and all(first <= at <= last for at, _ in places)
        if near and os.preadv(handle, [buffer[:length]], first) == length:
            return [buffer[at - first : at - first + size] for at, size in places]
        return [memoryview(bytes(source.view(at, size))) for at, size in places]

    return read


def _batches(direction: TcpDirection, size: int) -> Iterator[tuple[int, Places]]:
    """Yield (position, places of bytes that follow each other) of a direction's bytes before ``size``."""
    places: Places = []
    start = end = 0
    for position, offset, length in direction.places():
        length = min(length, size - position)
        if length <= 0:
            break
        for at in range(0, length, BATCH):
            part = min(BATCH, length - at)
            if places and (position + at != end or len(places) == MOST or end - start + part > BATCH):
                yield start, places
                places = []
            if not places:
                start = end = position + at
            places.append((offset + at, part))
            end += part
    if places:
        yield start, places


def _write_all(handle: int, pieces: list[memoryview], at: int) -> None:
    os.lseek(handle, at, os.SEEK_SET)
    if not hasattr(os, "writev"):
        pieces = [memoryview(b"".join(pieces))]
    while pieces:
        written = os.writev(handle, pieces) if hasattr(os, "writev") else os.write(handle, pieces[0])
        while pieces and written >= len(pieces[0]):
            written -= len(pieces.pop(0))
        if written:
            pieces[0] = pieces[0][written:]


def _problems(capture: Capture, chosen: Migration) -> Iterator[QmigError]:
    """Yield what is wrong with the capture of a migration."""
    if capture.error is not None:
        yield capture.error
    for one in chosen.every:
        way, name = one.direction, one.name
        if one.role is Role.RECOVERY:
            yield UnsupportedError("postcopy recovery", f"{name} is a postcopy recovery, which is not read")
        if one.role is Role.UNKNOWN and not way.began:
            yield StreamError(f"the start of {name} was not captured: what it carries is unknown", section=SECTION)
        for hole in way.holes[:MAX_SHOWN]:
            yield GapError(hole.length, name, offset=hole.offset, section=SECTION)
        if len(way.holes) > MAX_SHOWN:
            yield StreamError(f"{len(way.holes) - MAX_SHOWN} more holes in {name}", section=SECTION)
        if way.cut:
            yield StreamError(
                f"{way.cut} segments of {name} were cut when they were captured",
                offset=way.cut_at,
                section=SECTION,
                expected="whole packets (tcpdump -s 0)",
            )
        for conflict in way.conflicts[:MAX_SHOWN]:
            yield StreamError(
                f"two segments have other bytes at offset {conflict.offset} of {name}, over {conflict.length} bytes: "
                f"the capture has the first at {conflict.first:#x}, which is used, the second at {conflict.second:#x}; "
                "this may be an evasion",
                section=SECTION,
            )
        if way.conflict_count > MAX_SHOWN:
            yield StreamError(
                f"{way.conflict_count - MAX_SHOWN} more segments of {name} have other bytes", section=SECTION
            )
        if one.connection.mptcp:
            yield UnsupportedError("MPTCP", f"{name} is MPTCP: its other subflows are not read")
    if capture.overlapping_fragments:
        yield StreamError(
            f"{capture.overlapping_fragments} IP datagrams have fragments that overlap: they are left out",
            offset=capture.overlap_at,
            section=SECTION,
        )


CAPTURE = Wrapping(ContainerKind.CAPTURE, _capture, selects="migration")
