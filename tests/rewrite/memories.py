"""What the tests of memory edits share: a reading of streams that owes nothing to qmigtool.

`walk` reads what `tests.support.streamwriter` can write, framing and all; `mapped_areas` reads the block list of a
mapped-ram file. Facts: stream.md 2.1 to 2.5 (QEMU: ``migration/ram.c``).
"""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import qmigtool
from qmigtool.parsers.section import Type
from qmigtool.rewrite import Rewriter
from tests.support import naiveram
from tests.support.naiveram import Page, be
from tests.support.streamwriter import PAGE, be32

MIB = 1 << 20
RAM = b"\x03ram" + be32(0) + be32(4)  # of the header of its START section
ZERO, NORMAL, EOS, CONTINUE, XBZRLE, COMPRESSED, FLUSH = 0x02, 0x08, 0x10, 0x20, 0x40, 0x100, 0x200

Edits = Callable[[Rewriter], None]


class Record(NamedTuple):
    """One record: in which section, of what; ``data`` is the fill byte, the page or what it was packed to."""

    section: int
    kind: int
    block: str
    page: int
    data: bytes
    raw: bytes
    named: bool

    @property
    def meaning(self) -> tuple[int, int, str, int, bytes]:
        """All but how it was written."""
        return self[:5]


@dataclass
class Walked:
    """A stream: what is before ``ram``, its block list, its records, what is behind the last section of ``ram``."""

    before: bytes
    blocks: list[tuple[str, int]]
    records: list[Record]
    sections: list[int]
    behind: bytes


def walk(data: bytes, page_size: int = PAGE, *, footers: bool = True, mr_addr: bool = False) -> Walked:
    """Read a stream as far as its sections of ``ram`` are consecutive; ``mr_addr``: with x-ignore-shared."""
    at = start = data.index(RAM) - 5
    section_id = be(data, at + 1, 4)
    out = Walked(data[:start], [], [], [], b"")
    name = ""
    while data[at] in (1, 2, 3) and be(data, at + 1, 4) == section_id:
        section, kind = len(out.sections), data[at]
        out.sections.append(kind)
        at += 5 + 12 * (kind == 1)
        if kind == 1:
            total, at = be(data, at, 8), at + 8
            assert total % page_size == 4
            total -= 4
            while total:
                length = data[at]
                block, size = data[at + 1 : at + 1 + length].decode(), be(data, at + 1 + length, 8)
                out.blocks.append((block, size))
                total -= size
                at += 9 + length + 8 * mr_addr
        while be(data, at, 8) != EOS:
            begin, word = at, be(data, at, 8)
            flags, addr, at = word % page_size, word // page_size, at + 8
            if flags == FLUSH:
                out.records.append(Record(section, FLUSH, "", 0, b"", data[begin:at], False))
                continue
            if named := not flags & CONTINUE:
                name = data[at + 1 : at + 1 + data[at]].decode()
                at += 1 + data[at]
            flags &= ~CONTINUE
            head, length = {
                ZERO: (0, 1),
                NORMAL: (0, page_size),
                XBZRLE: (3, be(data, at + 1, 2)),
                COMPRESSED: (4, be(data, at, 4)),
            }[flags]
            at += head + length
            assert addr * page_size < dict(out.blocks)[name]
            out.records.append(Record(section, flags, name, addr, data[at - length : at], data[begin:at], named))
        at += 8
        if footers:
            assert data[at : at + 5] == b"\x7e" + be32(section_id)
            at += 5
    out.behind = data[at:]
    return out


def edited(source: Path | bytes, *edits: Edits, channels: Iterable[Path | bytes] = ()) -> bytes:
    """The stream with edits made to it."""
    with qmigtool.open(source, channels=channels) as stream:
        rewriter = qmigtool.Rewriter(stream)
        for edit in edits:
            edit(rewriter)
        out = io.BytesIO()
        assert rewriter.write(out) == len(out.getvalue())
    return out.getvalue()


def saved(source: Path | bytes, target: Path, *edits: Edits, channels: Iterable[Path | bytes] = ()) -> Path:
    """The same through `save`, which makes holes where there are zeros."""
    with qmigtool.open(source, channels=channels) as stream:
        rewriter = qmigtool.Rewriter(stream)
        for edit in edits:
            edit(rewriter)
        assert rewriter.save(target) == target.stat().st_size
    return target


class Pages(NamedTuple):
    """The blocks with their sizes in bytes, and all pages that are not zero."""

    sizes: dict[str, int]
    content: dict[Page, bytes]


class Looked(NamedTuple):
    """All of a stream: its memory, its sections of device state with their bodies, the names of its commands."""

    memory: Pages
    devices: list[tuple[str | None, int | None, int | None, bytes]]
    commands: list[str | None]


def look(path: Path, channels: Iterable[Path] = ()) -> Looked:
    """Read memory page by page (`tests.support.naiveram`), and what else there is, forward."""
    data = path.read_bytes()
    with qmigtool.open(path, channels=tuple(channels), forward=True) as stream:
        assert stream.complete, stream.problems
        memory = naiveram.memory(stream, path, tuple(channels))
        full = [s for s in stream.sections if s.type is Type.FULL]
        commands = [s.name for s in stream.sections if s.type is Type.COMMAND]
    zero = bytes(memory.page_size)
    pages = Pages(memory.sizes, {page: part for page, part in memory.content.items() if part != zero})
    bodies = [(s.name, s.instance_id, s.version_id, data[s.body_offset : s.body_offset + s.body_length]) for s in full]
    return Looked(pages, bodies, commands)


def pages_of(path: Path, channels: Iterable[Path] = ()) -> Pages:
    """Only the memory."""
    return look(path, channels).memory


class Area(NamedTuple):
    """A block of a mapped-ram file; ``pages`` are those with a bit."""

    name: str
    length: int
    header: int
    bitmap: int
    offset: int
    pages: dict[int, bytes]


def mapped_areas(data: bytes, page_size: int = PAGE, *, mr_addr: bool = False) -> list[Area]:
    """Read the block list of a mapped-ram file, and see that everything is where QEMU puts it."""
    at = data.index(RAM) + len(RAM)
    total, at = be(data, at, 8), at + 8
    assert total % page_size == 4
    total -= 4
    found = []
    while total:
        name, at = data[at + 1 : at + 1 + data[at]].decode(), at + 1 + data[at]
        length, at = be(data, at, 8), at + 8 + 8 * mr_addr
        assert (be(data, at, 4), be(data, at + 4, 8)) == (1, page_size)
        bitmap, offset = be(data, at + 12, 8), be(data, at + 20, 8)
        header, at = at, at + 28
        count = -(-length // page_size)
        pages = {}
        if (bitmap, offset) != (0, 0):
            assert bitmap == at
            size = -(-count // 64) * 8
            assert offset == -(-(bitmap + size) // MIB) * MIB
            assert not any(data[bitmap + size : offset])
            bits = int.from_bytes(data[bitmap : bitmap + size], "little")
            assert not bits >> count
            for i in range(count):
                if bits >> i & 1:
                    pages[i] = data[offset + i * page_size : offset + (i + 1) * page_size]
            at = offset + length
        found.append(Area(name, length, header, bitmap, offset, pages))
        total -= length
    assert be(data, at, 8) == EOS
    return found
