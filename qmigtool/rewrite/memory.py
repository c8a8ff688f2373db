"""RAM as it will be: its list of blocks, its pages, its format; and the splices that follow.

There are three ways to write memory. Page records stay page records, and only those that an edit touches change
(:mod:`~qmigtool.rewrite.records`). A mapped-ram file has a place for every page, and offsets that must be correct
(:mod:`~qmigtool.rewrite.mapped`). A change of format writes all of memory again (:mod:`~qmigtool.rewrite.plain`, or
mapped-ram).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qmigtool.errors import StreamError, UsageError
from qmigtool.parsers.ramstate import RamBlock
from qmigtool.parsers.records import MappedRamHeader, RamBlockHeader, RamSaveFlag
from qmigtool.parsers.section import Section, Type
from qmigtool.rewrite.splice import Splice, differing
from qmigtool.rewrite.values import name_bytes

if TYPE_CHECKING:
    from qmigtool.ram.model import Absent, Ram
    from qmigtool.stream.model import Stream

__all__ = ["BlockDraft", "MemoryDraft", "MemoryFormat", "block_entry"]

WORD = 8
IGNORE_SHARED = "x-ignore-shared"
EOS = int(RamSaveFlag.EOS).to_bytes(WORD, "big")


class MemoryFormat(StrEnum):
    """The memory format of a stream."""

    KEEP = "keep"  # as it is
    PLAIN = "plain"  # page records, none of them compressed
    MAPPED = "mapped-ram"


@dataclass(slots=True, eq=False)
class BlockDraft:
    """A RAMBlock as it will be; ``scrub``: all its pages become zero; ``sent``: how many of its bytes stay."""

    block: RamBlock
    name: str
    length: int
    sent: int
    dropped: bool = False
    scrub: bool = False

    @property
    def renamed(self) -> bool:
        """Whether its name differs from the source."""
        return self.name != self.block.idstr

    @property
    def resized(self) -> bool:
        """Whether its size differs from the source, or differed after an earlier edit."""
        return self.length != self.block.used_length or self.sent != self.block.used_length

    @property
    def touched(self) -> bool:
        """Whether anything of it changes."""
        return self.renamed or self.resized or self.dropped or self.scrub


class MemoryDraft:
    """The memory of a draft. ``squeeze``: pages that contain only zeros become zero pages, however they were sent."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.blocks = [
            BlockDraft(block, block.idstr, block.used_length, block.used_length) for block in stream.ram_blocks
        ]
        self.format = MemoryFormat.KEEP
        self.squeeze = False
        self.absent: Absent = "error"
        self.ignore_shared = self.ignored_before = IGNORE_SHARED in stream.capabilities
        self.mapped_before = any(block.mapped is not None for block in stream.ram_blocks)

    def state(self) -> tuple[Any, ...]:
        """Return what edits can change, for :meth:`restore`."""
        blocks = [(block.name, block.length, block.sent, block.dropped, block.scrub) for block in self.blocks]
        return blocks, self.format, self.squeeze, self.absent, self.ignore_shared

    def restore(self, state: tuple[Any, ...]) -> None:
        """Make it what it was."""
        blocks, self.format, self.squeeze, self.absent, self.ignore_shared = state
        for block, old in zip(self.blocks, blocks, strict=True):
            block.name, block.length, block.sent, block.dropped, block.scrub = old

    @cached_property
    def ram(self) -> Ram:
        """The memory of the source."""
        ram = self.stream.ram
        if self.stream.problems:
            raise self.stream.problems[0]
        return ram

    @property
    def page_size(self) -> int:
        """The target page size in bytes."""
        return self.stream.page_size

    @property
    def kept(self) -> list[BlockDraft]:
        """The blocks that there will be."""
        return [block for block in self.blocks if not block.dropped]

    @property
    def touched(self) -> bool:
        """Whether any of it changes."""
        changed = self.squeeze or self.format is not MemoryFormat.KEEP or self.ignore_shared != self.ignored_before
        return changed or any(block.touched for block in self.blocks)

    def block(self, name: str) -> BlockDraft:
        """Return a block by its current name; raises :class:`~qmigtool.errors.UsageError`."""
        for block in self.kept:
            if block.name == name:
                return block
        raise UsageError(f"no RAM block {name!r}", expected="one of " + ", ".join(block.name for block in self.kept))

    def sent_elsewhere(self, block: BlockDraft) -> bool:
        """Return whether a block is listed and was never sent: shared memory, with x-ignore-shared."""
        return block.block.mr_addr is not None and not len(self.ram.runs_of(block.block.idstr))

    @cached_property
    def start(self) -> Section:
        """The START section of ``ram``."""
        for section in self.stream.sections:
            if section.type is Type.START and section.name == "ram":
                return section
        raise UsageError("this stream has no RAM")

    def list_splices(self) -> Iterator[Splice]:
        """Yield the splices of a block list whose entries are adjacent."""
        start, source = self.start.body_offset, self.stream.source
        self.check_list()
        end = start + WORD + sum(len(block_entry(block.block)) for block in self.blocks)
        yield from differing(start, bytes(source.view(start, end - start)), self.block_list())

    def check_list(self) -> None:
        """Check that the START body starts with its list of blocks."""
        start = self.start.body_offset
        word = int.from_bytes(self.stream.source.view(start, WORD), "big")
        if word & self.page_size - 1 != RamSaveFlag.MEM_SIZE:
            raise StreamError("the block list is not at the start of RAM", offset=start, section="ram")

    def block_list(self) -> bytes:
        """Return the MEM_SIZE record with the entries of all blocks that there will be."""
        return self.total_word() + b"".join(map(self.entry, self.kept))

    def entry(self, block: BlockDraft, mapped: MappedRamHeader | None = None) -> bytes:
        """Return the entry of a block as it will be."""
        mr_addr = (block.block.mr_addr or 0) if self.ignore_shared else None
        # The page size is listed only after POSTCOPY_ADVISE, which other formats do not have.
        page_size = block.block.page_size if self.format is MemoryFormat.KEEP else None
        listed = replace(block.block, page_size=page_size, mr_addr=mr_addr)
        return block_entry(listed, block.name, block.length, mapped)

    def total_word(self) -> bytes:
        """Return the word of the MEM_SIZE record."""
        total = sum(block.length for block in self.kept)
        return (total | int(RamSaveFlag.MEM_SIZE)).to_bytes(WORD, "big")

    def without_pages(self) -> Iterator[Splice]:
        """Yield the splices that remove every page record: PARTs are dropped, END keeps only the EOS record."""
        at = end = 0
        for section in self.stream.sections:
            if section.name != "ram" or section.type not in (Type.PART, Type.END):
                continue
            if section.type is Type.END:
                if section.body_length > WORD:
                    yield Splice(section.body_offset, section.body_length - WORD, b"")
                continue
            if section.offset != end:  # PARTs in a row are one splice: there may be millions
                if end > at:
                    yield Splice(at, end - at, b"")
                at = section.offset
            end = section.end
        if end > at:
            yield Splice(at, end - at, b"")


def block_entry(
    block: RamBlock, name: str | None = None, length: int | None = None, mapped: MappedRamHeader | None = None
) -> bytes:
    """Return a block's entry of the MEM_SIZE list, with another name or length if they are given."""
    name = block.idstr if name is None else name
    if not 1 <= len(name_bytes(name)) <= 255:
        raise UsageError(f"a RAM block name of {len(name_bytes(name))} bytes", expected="1 to 255")
    entry = RamBlockHeader(name, block.used_length if length is None else length).build()
    for number in (block.page_size, block.mr_addr):
        if number is not None:
            entry += number.to_bytes(WORD, "big")
    return entry if mapped is None else entry + mapped.build()
