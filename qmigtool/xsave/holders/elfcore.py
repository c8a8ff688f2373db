"""ELF cores of x86 processes: the areas of their threads, and the layout that Linux used.

A thread begins with its NT_PRSTATUS note (owner CORE); NT_X86_XSTATE (owner LINUX, 0x202) has its area in standard
format. NT_X86_XSAVE_LAYOUT (0x205, Linux 6.12 and later) has, for each component above bit 1, u32 type, size, offset
and flags. Source: Linux include/uapi/linux/elf.h, arch/x86/kernel/fpu/xstate.c.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

from qmigtool.errors import LimitError, UnsupportedError, UsageError, XsaveError
from qmigtool.xsave.components import EXTENDED_OFFSET
from qmigtool.xsave.cputext.model import component_row, mask_row
from qmigtool.xsave.holders.model import FoundArea
from qmigtool.xsave.holders.software import software_bytes
from qmigtool.xsave.layout import CpuidRow, Layout

NT_PRSTATUS = 1
NT_X86_XSTATE = 0x202
NT_X86_XSAVE_LAYOUT = 0x205

PT_NOTE = 4
ET_CORE = 4
EM_386, EM_X86_64 = 3, 62

PR_PID = {1: 24, 2: 32}
"""Offset of pr_pid in struct elf_prstatus, by ELF class."""

MAX_NOTES = 100_000
MAX_OWNER = 64
LAYOUT_ENTRY = 16
MAX_PLACE = 1 << 16
"""No component ends after this; the largest known area has 11 KiB."""

_CLASSES = {1: ("<HHIIIIIHHH", "<IIIII"), 2: ("<HHIQQQIHHH", "<IIQQQQ")}
"""ELF class -> formats of the header after e_ident, and of the part of a program header that is read."""


class _Note(NamedTuple):
    """One note: its contents are ``size`` bytes at offset ``start`` of the file."""

    owner: bytes
    kind: int
    start: int
    size: int


class _Thread(NamedTuple):
    pid: int | None
    """None: there is no NT_PRSTATUS before its area."""

    start: int
    size: int


def is_core(data: bytes | mmap) -> bool:
    """Return whether this is an ELF core: other ELF files have no area."""
    if len(data) < 20 or data[:4] != b"\x7fELF" or data[4] not in _CLASSES or data[5] != 1:
        return False
    kind, machine = struct.unpack_from("<HH", data, 16)
    return kind == ET_CORE and machine in (EM_386, EM_X86_64)


def layout_of_core(data: bytes | mmap, name: str) -> Layout:
    """Return the layout that a core's note NT_X86_XSAVE_LAYOUT describes. Raises UnsupportedError if it has none."""
    for note in _notes(data, name):
        if note.owner == b"LINUX" and note.kind == NT_X86_XSAVE_LAYOUT:
            return layout_of_note(data[note.start : note.start + note.size], name)
    what = "an ELF core without a note NT_X86_XSAVE_LAYOUT"
    raise UnsupportedError(f"the layout of {what}", f"no layout: {what}", section=name)


def find_in_core(data: bytes | mmap, name: str, choice: str | None) -> FoundArea:
    """Return the area of one thread of a core, and its layout if the core has it.

    ``choice`` is the thread's id, or ``@N`` for the Nth area of the core, from 1: the only name of one whose id is
    not unique or not known. Raises UnsupportedError if no thread has an area, UsageError if there are several
    and none is selected, XsaveError if the file is truncated or contradicts itself.
    """
    threads: list[_Thread] = []
    pid: int | None = None
    layout: Layout | None = None
    for note in _notes(data, name):
        if note.owner == b"CORE" and note.kind == NT_PRSTATUS:
            pid = _pid(data, note, name)
        elif note.owner == b"LINUX" and note.kind == NT_X86_XSTATE:
            threads.append(_Thread(pid, note.start, note.size))
        elif note.owner == b"LINUX" and note.kind == NT_X86_XSAVE_LAYOUT and layout is None:
            layout = layout_of_note(data[note.start : note.start + note.size], name)
    if not threads:
        what = "an ELF core without a note NT_X86_XSTATE"
        raise UnsupportedError(f"an XSAVE area in {what}", f"not an XSAVE area: {what}", section=name)
    thread = _choose(threads, name, choice)
    area = data[thread.start : thread.start + thread.size]
    software = software_bytes(area)
    how = "its layout is in NT_X86_XSAVE_LAYOUT" if layout else "the core does not record the layout"
    place = threads.index(thread) + 1
    if thread.pid is None:
        where = f"area @{place} ({len(threads)} in this ELF core), which has no NT_PRSTATUS of a thread; {how}"
    else:
        beside = f", area @{place}" if sum(one.pid == thread.pid for one in threads) > 1 else ""
        where = f"the area of thread {thread.pid}{beside} ({len(threads)} in this ELF core); {how}"
    return FoundArea(area, layout, software.xfeatures if software else None, where)


def _pid(data: bytes | mmap, note: _Note, name: str) -> int:
    at = PR_PID[data[4]]
    if note.size < at + 4:
        raise XsaveError(
            f"a note NT_PRSTATUS has {note.size} bytes, too short for a thread's id", offset=note.start, section=name
        )
    return int.from_bytes(data[note.start + at : note.start + at + 4], "little")


def _choose(threads: list[_Thread], name: str, choice: str | None) -> _Thread:
    pids = Counter(one.pid for one in threads)
    words = [
        f"@{place}" if one.pid is None or pids[one.pid] > 1 else str(one.pid) for place, one in enumerate(threads, 1)
    ]
    known = ", ".join(f"{name}#{word}" for word in words[:16]) + (", ..." if len(words) > 16 else "")
    if choice is None:
        if len(threads) > 1:
            raise UsageError(f"{name} is a core with {len(threads)} threads; name one", expected=known)
        return threads[0]
    found = [one for one in threads if str(one.pid) == choice and one.pid is not None]
    found += [one for place, one in enumerate(threads, 1) if f"@{place}" == choice]
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} areas of {name} are of thread {choice}; select one by its position", expected=known
        )
    if not found:
        what = f"area {choice}" if choice.startswith("@") else f"thread {choice}"
        raise UsageError(f"no {what} in {name}", expected=known)
    return found[0]


def _notes(data: bytes | mmap, name: str) -> Iterator[_Note]:
    """Yield every note; at most MAX_NOTES in all segments together."""
    header, segment = _CLASSES[data[4]]
    left = MAX_NOTES
    try:
        _, _, _, _, start, _, _, _, size, count = struct.unpack_from(header, data, 16)
        for number in range(count):
            kind, *fields = struct.unpack_from(segment, data, start + number * size)
            # 32-bit: offset, vaddr, paddr, filesz; 64-bit: flags, offset, vaddr, paddr, filesz
            offset, length = (fields[0], fields[3]) if data[4] == 1 else (fields[1], fields[4])
            for note in _notes_of_segment(data, offset, offset + length, name) if kind == PT_NOTE else ():
                left -= 1
                if left < 0:
                    raise LimitError("the core has too many notes", expected=f"at most {MAX_NOTES}", section=name)
                yield note
    except (struct.error, OverflowError):
        raise XsaveError("the core ends inside its program headers", offset=len(data), section=name) from None


def _notes_of_segment(data: bytes | mmap, at: int, end: int, name: str) -> Iterator[_Note]:
    while at < end:
        if at + 12 > len(data):
            raise XsaveError("the core, or the copy of it, ends inside its notes", offset=len(data), section=name)
        owner_size, size, kind = struct.unpack_from("<III", data, at)
        start = at + 12 + -(-owner_size // 4) * 4
        if start + size > len(data):
            raise XsaveError(
                f"a note of type {kind:#x} has {size} bytes, but the core ends before that", offset=at, section=name
            )
        yield _Note(data[at + 12 : at + 12 + min(owner_size, MAX_OWNER)].rstrip(b"\0"), kind, start, size)
        at = start + -(-size // 4) * 4


def is_layout_note(data: bytes) -> bool:
    """Return whether these are the contents of a note NT_X86_XSAVE_LAYOUT: ascending entries that do not overlap."""
    if not data or len(data) % LAYOUT_ENTRY or len(data) > 61 * LAYOUT_ENTRY:
        return False
    entries = list(struct.iter_unpack("<IIII", data))
    bits = [bit for bit, *_ in entries]
    return bits == sorted(set(bits)) and all(
        2 <= bit < 63 and 0 < size <= MAX_PLACE and EXTENDED_OFFSET <= offset <= MAX_PLACE
        for bit, size, offset, _ in entries
    )


def layout_of_note(data: bytes, name: str) -> Layout:
    """Return the layout that a note NT_X86_XSAVE_LAYOUT describes. Raises XsaveError if it is not one."""
    if not is_layout_note(data):
        raise XsaveError("the note NT_X86_XSAVE_LAYOUT is not a list of components", section=name)
    rows: dict[int, CpuidRow] = {
        bit: component_row(bit, size, offset) for bit, size, offset, _ in struct.iter_unpack("<IIII", data)
    }
    end = max(row[0] + row[1] for row in rows.values())
    rows[0] = mask_row(3 | sum(1 << bit for bit in rows), end, end)
    return Layout.from_leaf_0xd(name, rows, title=f"from the core {name}", source="NT_X86_XSAVE_LAYOUT")
