"""One direction of a TCP connection, put together from its segments as they were captured.

Segments come in any order, twice, and not at all. Nothing is copied or kept but their places in the capture: the first
that has a byte is used, one that has other bytes there is a :class:`Conflict`, and what none has is a hole.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from qmigtool.parsers.frames import Segment
from qmigtool.util.budget import current

__all__ = ["Conflict", "Gap", "TcpDirection", "end_name"]

SECTION = "capture"
MODULUS = 1 << 32
MAX_AHEAD = 1 << 30  # bytes: the largest window of TCP
MAX_EARLY = 1 << 20  # bytes before the first segment, where the capture began later than the connection
SURE = 8  # segments in a row that far ahead: then the capture lacks more than a window
MAX_GAPS = 1 << 16  # open at one time
MAX_HOLES = 4096  # a direction is used up to the last of them
MAX_CONFLICTS = 64  # that are listed
HEAD = 512  # bytes that tell what a direction carries
CHARGED = 4096  # segments charged to the budget at once
SEGMENT_BYTES = 28


class Gap(NamedTuple):
    """``length`` bytes from ``offset`` of a direction that the capture does not have."""

    offset: int
    length: int


class Conflict(NamedTuple):
    """Segments with other bytes for the same place: the first of ``length`` bytes is at ``offset`` of the direction.

    ``first`` and ``second`` are the places of that byte in the capture; that at ``first`` is used.
    """

    offset: int
    length: int
    first: int
    second: int


@dataclass(slots=True)
class TcpDirection:
    """The bytes that one end of a connection sent; ``source`` and ``destination`` are addresses with ports.

    ``size`` counts the holes. ``repeated`` bytes were captured more than once, ``late`` of the ``segments`` not in
    order, ``cut`` segments without all of their bytes; ``ignored`` did not fit. ``first`` and ``last`` are the times of
    the first and the last segment with data, in nanoseconds since 1970. ``began`` is whether the capture has its start.
    """

    source: bytes
    destination: bytes
    kept: bool = True
    began: bool = False
    finished: bool = False
    reset: bool = False
    segments: int = 0
    repeated: int = 0
    late: int = 0
    cut: int = 0
    cut_at: int | None = None
    ignored: int = 0
    conflict_count: int = 0
    conflicts: list[Conflict] = field(default_factory=list)
    holes: list[Gap] = field(default_factory=list)
    size: int = 0
    first: int | None = None
    last: int | None = None
    _base: int | None = None  # the sequence number of the byte at 0
    _edge: int = 0  # after the last byte so far
    _end: int = 0  # as a FIN or the other end's ACK tells
    _gap_starts: list[int] = field(default_factory=list)
    _gap_ends: list[int] = field(default_factory=list)
    _positions: array[int] = field(default_factory=lambda: array("q"))
    _offsets: array[int] = field(default_factory=lambda: array("Q"))
    _lengths: array[int] = field(default_factory=lambda: array("I"))
    _times: array[int] = field(default_factory=lambda: array("q"))
    _again: array[int] = field(default_factory=lambda: array("q"))  # (position, offset, length) of what came again
    _head: bytes = b""
    _sorted: bool = True
    _far: int = 0
    _far_edge: int = 0

    @property
    def name(self) -> str:
        """Both ends, as ``10.0.0.1:40000 -> 10.0.0.2:4444``."""
        return f"{end_name(self.source)} -> {end_name(self.destination)}"

    @property
    def edge(self) -> int:
        """The bytes so far."""
        return self._edge

    def starts_anew(self, sequence: int) -> bool:
        """Return whether a SYN with this number begins another connection between the same two ends."""
        return self._base is not None and self._base != (sequence + 1) % MODULUS

    def start(self, sequence: int) -> None:
        """Take the sequence number of a SYN."""
        self._base, self.began = (sequence + 1) % MODULUS, True

    def acknowledged(self, number: int) -> None:
        """Take the other end's ACK: what it has was sent, captured or not."""
        if self._base is not None:
            ahead = (number - self._base - self._edge) % MODULUS
            if 1 < ahead <= MAX_AHEAD:  # 1: a FIN
                self._end = max(self._end, self._edge + ahead)

    def finish_at(self, sequence: int) -> None:
        """Take the number after the last byte, from a FIN."""
        self.finished = True
        if self._base is not None:
            ahead = (sequence - self._base - self._edge) % MODULUS
            if ahead <= MAX_AHEAD:
                self._end = self._edge + ahead

    def add(self, segment: Segment, time: int | None) -> None:
        """Take a segment with data."""
        sequence, length = segment.sequence, segment.length
        if segment.flags & 2:
            sequence += 1
        if self._base is None:
            self._base = sequence % MODULUS
            self._gap_starts.append(-MAX_EARLY)
            self._gap_ends.append(0)
        self.segments += 1
        if time is not None:
            self.first = time if self.first is None else self.first
            self.last = time
        edge = self._edge
        in_order = (sequence - self._base - edge) % MODULUS == 0
        if in_order and len(segment.places) == 1 and segment.places[0][1] == length:  # what follows does the same
            self._edge = edge + length
            self._append(edge, *segment.places[0], -1 if time is None else time)
            return
        # Sequence numbers wrap around: this one is at the position nearest to the edge.
        ahead = (sequence - self._base - edge + MODULUS // 2) % MODULUS - MODULUS // 2
        position, end = edge + ahead, edge + ahead + length
        if ahead > 0:
            if not self._may_jump(position, end):
                self.ignored += 1
                return
            self._gap_starts.append(edge)
            self._gap_ends.append(position)
        elif ahead < 0:
            self.late += 1
        captured = sum(size for _, size in segment.places)
        if captured < length:
            self.cut += 1
            if self.cut_at is None:
                self.cut_at = segment.places[0][0] if segment.places else None
        if end > edge:
            self._edge = end
            if captured < length:
                self._gap_starts.append(max(position + captured, edge))
                self._gap_ends.append(end)
        stamp = -1 if time is None else time
        for offset, size in segment.places:
            if position >= edge:
                self._append(position, offset, size, stamp)
            else:
                new = position + size - edge
                if new > 0:
                    self._append(edge, offset + size - new, new, stamp)
                self._behind(position, offset, size - max(new, 0), stamp)
            position += size

    def _may_jump(self, position: int, end: int) -> bool:
        """Return whether to believe a segment ahead of the others."""
        if len(self._gap_starts) >= MAX_GAPS:
            return False
        if position - self._edge <= MAX_AHEAD:
            return True
        self._far = self._far + 1 if position == self._far_edge else 1
        self._far_edge = end
        return self._far >= SURE

    def _append(self, position: int, offset: int, size: int, time: int) -> None:
        if not self.kept or not size:
            return
        if self._positions and position < self._positions[-1]:
            self._sorted = False
        self._positions.append(position)
        self._offsets.append(offset)
        self._lengths.append(size)
        self._times.append(time)
        if len(self._positions) % CHARGED == 0:
            current().charge("memory", CHARGED * SEGMENT_BYTES, section=SECTION)

    def _behind(self, position: int, offset: int, size: int, time: int) -> None:
        """Take bytes before the edge: they fill gaps, or come again."""
        starts, ends = self._gap_starts, self._gap_ends
        end = position + size
        index = bisect_right(ends, position)
        at = position
        while at < end:
            if index < len(starts) and starts[index] < end:
                first, last = max(starts[index], at), min(ends[index], end)
                self._repeat(at, offset + at - position, first - at)
                self._append(first, offset + first - position, last - first, time)
                index = self._fill(index, first, last)
                at = last
            else:
                self._repeat(at, offset + at - position, end - at)
                at = end

    def _fill(self, index: int, first: int, last: int) -> int:
        """Take ``[first, last)`` out of a gap; return the index of the next gap."""
        starts, ends = self._gap_starts, self._gap_ends
        if first == starts[index] and last == ends[index]:
            del starts[index], ends[index]
            return index
        if first == starts[index]:
            starts[index] = last
            return index
        if last == ends[index]:
            ends[index] = first
            return index + 1
        starts.insert(index + 1, last)
        ends.insert(index, first)
        return index + 1

    def _repeat(self, position: int, offset: int, size: int) -> None:
        if size <= 0:
            return
        if position < (0 if self.began else -MAX_EARLY):
            self.ignored += 1
            return
        self.repeated += size
        if self.kept:
            self._again.extend((position, offset, size))
            if len(self._again) % (3 * CHARGED) == 0:
                current().charge("memory", 3 * 8 * CHARGED, section=SECTION)

    def forget(self, whole: memoryview) -> None:
        """Keep no places, only the first bytes: it carries something else."""
        self._head = self.head(whole)
        self.kept = False
        for one in (self._positions, self._offsets, self._lengths, self._times, self._again):
            del one[:]

    # -- results -----------------------------------------------------------------------------------------------------

    def head(self, whole: memoryview, count: int = HEAD) -> bytes:
        """Return the first bytes, as far as they were captured."""
        if not self.kept:
            return self._head[:count]
        self._sort()
        data, at = b"", self._positions[0] if self._positions and not self.began else 0
        for position, offset, length in zip(self._positions, self._offsets, self._lengths, strict=True):
            if position != at or len(data) >= count:
                break
            data += bytes(whole[offset : offset + min(length, count)])
            at += length
        return data[:count]

    def close(self, whole: memoryview) -> None:
        """End the input: find the holes, and compare what was captured more than once."""
        self._sort()
        if self._end > self._edge:
            self._gap_starts.append(self._edge)
            self._gap_ends.append(self._end)
        floor = self._positions[0] if self._positions and not self.began else 0
        end = max(self._end, self._edge)
        for start, stop in zip(self._gap_starts, self._gap_ends, strict=True):
            if stop <= floor:
                continue
            if len(self.holes) == MAX_HOLES:
                end = start
                break
            hole = Gap(max(start, floor) - floor, stop - max(start, floor))
            if self.holes and sum(self.holes[-1]) == hole.offset:
                hole = Gap(self.holes[-1].offset, self.holes.pop().length + hole.length)
            self.holes.append(hole)
        self._compare(whole, floor)
        if floor:
            self._positions = array("q", [one - floor for one in self._positions])
        self.size = max(end - floor, 0)

    def _sort(self) -> None:
        if not self._sorted:
            order = sorted(range(len(self._positions)), key=self._positions.__getitem__)
            self._positions = array("q", map(self._positions.__getitem__, order))
            self._offsets = array("Q", map(self._offsets.__getitem__, order))
            self._lengths = array("I", map(self._lengths.__getitem__, order))
            self._times = array("q", map(self._times.__getitem__, order))
            self._sorted = True

    def _compare(self, whole: memoryview, floor: int) -> None:
        budget = current()
        for i in range(0, len(self._again), 3):
            position, offset, size = self._again[i : i + 3]
            budget.tick(section=SECTION)
            index = max(bisect_right(self._positions, position) - 1, 0)
            while index < len(self._positions) and self._positions[index] < position + size:
                start, length = self._positions[index], self._lengths[index]
                first, last = max(start, position), min(start + length, position + size)
                if first < last:
                    self._differ(whole, first, last - first, self._offsets[index] - start, offset - position, floor)
                index += 1
        del self._again[:]

    def _differ(self, whole: memoryview, position: int, size: int, first: int, second: int, floor: int) -> None:
        one = bytes(whole[first + position : first + position + size])
        other = bytes(whole[second + position : second + position + size])
        if one == other:
            return
        self.conflict_count += 1
        if len(self.conflicts) < MAX_CONFLICTS:
            different = [i for i in range(size) if one[i] != other[i]]
            at = position + different[0]
            self.conflicts.append(Conflict(at - floor, different[-1] - different[0] + 1, first + at, second + at))

    def places(self) -> Iterator[tuple[int, int, int]]:
        """Yield (position, offset in the capture, length) of all bytes that were captured, in order."""
        for position, offset, length in zip(self._positions, self._offsets, self._lengths, strict=True):
            if position + length > self.size:
                length = self.size - position
            if length > 0:
                yield position, offset, length

    def place_of(self, offset: int) -> int:
        """Return where the capture has the byte at ``offset``; it must have it."""
        index = bisect_right(self._positions, offset) - 1
        return self._offsets[index] + offset - self._positions[index]

    def time_of(self, offset: int) -> int | None:
        """Return when the byte at ``offset`` was captured, in nanoseconds since 1970; None for what has no time."""
        index = bisect_right(self._positions, offset) - 1
        return self._time(index) if index >= 0 else self.first

    def sent(self, start: int, step: int, count: int) -> list[int]:
        """Return the bytes captured in each of ``count`` intervals of ``step`` nanoseconds from ``start`` on."""
        found = [0] * count
        for time, length in zip(self._times, self._lengths, strict=True):
            index = (time - start) // step
            if 0 <= index < count:
                found[index] += length
        return found

    def _time(self, index: int) -> int | None:
        return None if self._times[index] < 0 else self._times[index]


def end_name(raw: bytes) -> str:
    """Return an address and a port as text."""
    address, port = ip_address(raw[:-2]), int.from_bytes(raw[-2:], "big")
    return f"[{address}]:{port}" if len(raw) > 6 else f"{address}:{port}"
