"""Reaching the device state backwards from the end, without reading RAM.

The vmdesc at the end of a stream gives the exact length of every device section. Walking its devices from the last to
the first, each footer and each header must be where the lengths put it, with the same id, name, instance and
version; so sections reached this way are proved, not guessed. The caller must still prove the join to what precedes
(:attr:`TailWalk.start`), because the vmdesc found might belong to a stream inside the guest's memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qmigtool.errors import QmigError, StreamError
from qmigtool.parsers.bodies import FOOTER_SIZE, footer_of
from qmigtool.parsers.record import encode_name
from qmigtool.parsers.records import SectionHeader, SectionType, VmDescriptionHeader
from qmigtool.parsers.savevm import MAX_VMDESC
from qmigtool.parsers.section import Section, Type
from qmigtool.parsers.vmdesc import Vmdesc, parse_vmdesc
from qmigtool.parsers.window import Window

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource
    from qmigtool.parsers.vmdesc import DeviceDescription

__all__ = ["LocatedVmdesc", "TailWalk", "find_vmdesc", "walk_back"]

# EOF, a vmdesc of some length, and the first byte of its text
_EOF_AND_VMDESC = re.compile(
    bytes([SectionType.QEMU_VM_EOF, SectionType.QEMU_VM_VMDESCRIPTION]) + rb"(?=.{4}\{)", re.DOTALL
)
_BEHIND = 6  # bytes of that after its first
_HEAD = 5
_CHUNK = 1 << 20
MAX_CANDIDATES = 8  # texts that look like a vmdesc but are not; no real stream has had a second one
MAX_PADDING = 1 << 28  # zeros after the stream, on a block device


@dataclass(frozen=True, slots=True)
class LocatedVmdesc:
    """A vmdesc and where it is: ``offset`` of its type byte, ``end`` after its last byte."""

    vmdesc: Vmdesc
    offset: int
    end: int

    @property
    def body_offset(self) -> int:
        """Where the JSON text starts."""
        return self.offset + _HEAD


@dataclass(frozen=True, slots=True)
class TailWalk:
    """Device sections found backwards, in stream order.

    ``start`` is where the first of them starts, ``missing`` the devices before it in the vmdesc that were not
    there (early ones stand near the start of the stream), ``stopped`` what was found in the place of the last of those.
    """

    sections: tuple[Section, ...]
    start: int
    footers: bool
    missing: tuple[DeviceDescription, ...]
    stopped: QmigError | None


def find_vmdesc(source: BufferSource) -> LocatedVmdesc | None:
    """Look for the vmdesc from the end of a file backwards; None if there is none.

    One that ends at the end of the file is preferred; otherwise only zeros (padding) may follow it. Raises
    :class:`~qmigtool.errors.StreamError` if a text in the right place is not a vmdesc.
    """
    data = source.whole
    end = _behind_last_byte(source)
    if end == 0 or data[end - 1] != ord("}"):
        return None
    failure: StreamError | None = None
    candidates = 0
    top = end
    while top > 0 and end - top < MAX_VMDESC and candidates < MAX_CANDIDATES:
        bottom = max(0, top - _CHUNK)
        # The chunks overlap, so that none is missed; one that starts at top or later was in the previous chunk.
        chunk = bytes(data[bottom : min(end, top + _BEHIND)])
        for found in reversed([match.start() for match in _EOF_AND_VMDESC.finditer(chunk)]):
            offset = bottom + found + 1
            if not _ends_at(data, offset, end):
                continue
            if _in_hole(source, offset, end):
                return None
            candidates += 1
            try:
                return LocatedVmdesc(parse_vmdesc(bytes(data[offset + _HEAD : end]), offset + _HEAD), offset, end)
            except StreamError as error:
                # Its traceback would keep the text and the objects parsed from it.
                failure = failure or error.with_traceback(None)
            if candidates == MAX_CANDIDATES:
                break
        top = bottom
    if failure is not None:
        raise failure
    return None


def _ends_at(data: memoryview, offset: int, end: int) -> bool:
    """Return whether there can be a vmdesc at ``offset`` that ends at ``end``."""
    if offset + _HEAD + 2 > end:
        return False
    header, body = VmDescriptionHeader.parse(Window(data[offset : offset + _HEAD], final=True), 0)
    return header.length <= MAX_VMDESC and offset + body + header.length == end


def _behind_last_byte(source: BufferSource) -> int:
    """Return where the zeros at the end start, searching at most :data:`MAX_PADDING` of them."""
    data = source.whole
    top = len(data)
    least = max(0, top - MAX_PADDING)
    while top > least:
        bottom = max(least, top - _CHUNK)
        left = len(bytes(data[bottom:top]).rstrip(b"\0"))
        if left:
            return bottom + left
        source.release(bottom, top)
        top = bottom
    return top


def walk_back(source: BufferSource, located: LocatedVmdesc) -> TailWalk:
    """Walk the device sections from the EOF byte before the vmdesc to the first of them."""
    data = source.whole
    devices = located.vmdesc.devices
    at = cursor = located.offset - 1
    sections: list[Section] = []
    footers = True
    stopped: QmigError | None = None
    rest = left = len(devices)
    while rest:
        device = devices[rest - 1]
        start = at - (FOOTER_SIZE if footers else 0) - device.size - _head_size(device)
        if _in_hole(source, start, at):
            # Its length is in the vmdesc, and the section before it will show whether that is right.
            at = start
            rest -= 1
            continue
        try:
            section = _section_before(data, at, device, footers=footers)
        except StreamError as error:
            # The last device decides whether all have footers.
            if not sections and footers:
                footers, at, rest = False, cursor, len(devices)
                continue
            stopped = error
            break
        sections.append(section)
        at = cursor = section.offset
        rest -= 1
        left = rest
    sections.reverse()
    return TailWalk(tuple(sections), cursor, footers and bool(sections), devices[:left], stopped)


def _head_size(device: DeviceDescription) -> int:
    """Return the bytes before the body of a FULL section."""
    return 1 + 4 + 1 + len(encode_name(device.idstr)) + 4 + 4


def _in_hole(source: BufferSource, start: int, end: int) -> bool:
    return any(offset < end and start < offset + length for offset, length in source.holes)


def _section_before(data: memoryview, end: int, device: DeviceDescription, *, footers: bool) -> Section:
    """Return the FULL section of ``device`` that ends at ``end``; raises StreamError if it is not there."""
    body_end = end - (FOOTER_SIZE if footers else 0)
    body = body_end - device.size
    start = body - _head_size(device)
    if start < 0:
        raise StreamError("the vmdesc describes more than the stream contains", offset=end, section=device.idstr)
    if data[start] != SectionType.QEMU_VM_SECTION_FULL:
        raise StreamError(
            f"no FULL section here, but {data[start]:#04x}", offset=start, section=device.idstr, expected="0x04"
        )
    header, at = SectionHeader.parse(Window(data[start:body], base=start, final=True), start + 1)
    told = (device.idstr, device.instance_id)
    if at != body or (header.idstr, header.instance_id) != told:
        raise StreamError(
            f"section {header.idstr!r} {header.instance_id}",
            offset=start,
            section=device.idstr,
            expected=f"{told[0]!r} {told[1]}, as in the vmdesc",
        )
    if not device.old_style and header.version_id != device.version:
        raise StreamError(
            f"version {header.version_id}",
            offset=start,
            section=device.idstr,
            expected=f"{device.version}, as in the vmdesc",
        )
    if footers and bytes(data[body_end:end]) != footer_of(header.section_id):
        raise StreamError(
            f"no footer here, but {bytes(data[body_end:end]).hex(' ')}",
            offset=body_end,
            section=device.idstr,
            expected=footer_of(header.section_id).hex(" "),
        )
    return Section(
        Type.FULL,
        start,
        end - start,
        body,
        body_end - body,
        header.section_id,
        header.idstr,
        header.instance_id,
        header.version_id,
        "vmdesc",
    )
