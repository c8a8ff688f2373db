"""Bodies of the ``ram`` section, version 4 (QEMU: ``migration/ram.c``).

Every body is a sequence of records that start with a be64 word: the low bits (below the page size) are
``RAM_SAVE_FLAG_*``, the rest a byte offset inside a RAMBlock. It ends with the EOS record. A page record either names
its block or says CONTINUE, which means the last block named on this channel, across sections.

:class:`RamState` is what one channel remembers between bodies; :class:`RamBody` walks one body.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qmigtool.errors import LimitError, StreamError, UnsupportedError
from qmigtool.parsers.ramruns import Run, RunTable, run_length
from qmigtool.parsers.record import decode_name
from qmigtool.parsers.records import MappedRamHeader, PostcopyAdvise, RamBlockHeader, RamSaveFlag

if TYPE_CHECKING:
    from qmigtool.parsers.window import Window

__all__ = ["RamBlock", "RamBody", "RamState"]

MAX_BLOCKS = 65_536  # a machine with every PCI slot full has hundreds
ENCODING_FLAG_XBZRLE = 0x1
WORD = 8

ZERO, PAGE, CONTINUE = RamSaveFlag.ZERO, RamSaveFlag.PAGE, RamSaveFlag.CONTINUE


@dataclass(frozen=True, slots=True)
class RamBlock:
    """A RAMBlock as the ``ram`` START section lists it; sizes in bytes.

    ``page_size`` is there when postcopy announced blocks of another page size, ``mr_addr`` (a guest-physical address)
    with the capability x-ignore-shared, ``mapped`` with the capability mapped-ram.
    """

    idstr: str
    used_length: int
    offset: int
    page_size: int | None = None
    mr_addr: int | None = None
    mapped: MappedRamHeader | None = None


@dataclass(slots=True)
class RamState:
    """What the records of one channel need to know from earlier ones."""

    page_size: int
    capabilities: frozenset[str] = frozenset()
    origin: int = 0  # where the stream starts in its file: mapped-ram offsets count from the file's start
    advise: PostcopyAdvise | None = None
    blocks: list[RamBlock] = field(default_factory=list)
    current: int | None = None
    runs: RunTable | None = None
    flushes: array[int] = field(default_factory=lambda: array("Q"))  # offsets of MULTIFD_FLUSH, if runs are kept
    pages: dict[tuple[int, int], int] = field(default_factory=dict)  # (block index, flags) -> pages
    problems: list[StreamError] = field(default_factory=list)
    by_name: dict[str, int] = field(default_factory=dict)

    def add_block(self, block: RamBlock) -> None:
        """Append a block of the MEM_SIZE list."""
        if block.idstr in self.by_name:
            raise StreamError(f"RAM block {block.idstr!r} is listed twice", offset=block.offset, section="ram")
        if len(self.blocks) >= MAX_BLOCKS:
            raise LimitError(f"more than {MAX_BLOCKS} RAM blocks", offset=block.offset, section="ram")
        self.by_name[block.idstr] = len(self.blocks)
        self.blocks.append(block)

    def discard(self, payload: bytes, offset: int) -> None:
        """Take in MIG_CMD_POSTCOPY_RAM_DISCARD: what was sent of these ranges is to be forgotten, it comes again.

        ``payload``: u8 version 0, str8 block, u8 0, then pairs of be64 start and be64 length in bytes.
        """
        name_end = 2 + payload[1] if len(payload) > 1 else 0
        ranges = payload[name_end + 1 :]
        index = self.by_name.get(decode_name(payload[2:name_end]))
        if index is None or payload[0] or len(ranges) % 16:
            raise StreamError(
                f"POSTCOPY_RAM_DISCARD of {len(payload)} bytes: {payload[:24].hex(' ')}",
                offset=offset,
                section="ram",
                expected="version 0, a listed RAM block, pairs of 16 bytes",
            )
        for at in range(0, len(ranges), 16):
            start, length = (int.from_bytes(ranges[at + i : at + i + 8], "big") for i in (0, 8))
            if start + length > self.blocks[index].used_length:
                raise StreamError(f"discarded range {start:#x}+{length:#x}", offset=offset, section="ram")
            self.add_run(Run(offset, 0, index, start, length // self.page_size, 0, 0, 0))

    def add_run(self, run: Run) -> None:
        """Count a run of pages, and keep it if runs are kept."""
        key = (run.block, run.flags)
        self.pages[key] = self.pages.get(key, 0) + run.pages
        if self.runs is not None:
            self.runs.add(run)


class RamBody:
    """Walks one START, PART or END body of the ``ram`` section, wherever its bytes are."""

    measured = "records"

    def __init__(self, state: RamState) -> None:
        self.state = state
        self._mask = state.page_size - 1
        self._list_left: int | None = None  # bytes of RAM whose blocks the MEM_SIZE list has yet to name

    def advance(self, window: Window, pos: int) -> tuple[int, bool]:
        """Walk records from ``pos`` while they are in the window.

        Returns the offset reached and whether the body ended there; raises
        :class:`~qmigtool.parsers.window.NeedMoreData` only if not one record could be walked.
        """
        if self._list_left is not None:
            return self._block(window, pos), False
        reached = self._runs(window, pos)
        if reached != pos:
            return reached, False
        word = window.be64(pos, "a RAM record")
        flags, addr = word & self._mask, word & ~self._mask
        if flags == RamSaveFlag.EOS:
            if addr:
                self._problem(f"the EOS record has an address, {addr:#x}", pos, "0")
            return pos + WORD, True
        if flags == RamSaveFlag.MEM_SIZE:
            self._list_left = addr
            return pos + WORD, False
        if flags == RamSaveFlag.MULTIFD_FLUSH:
            if self.state.runs is not None:
                self.state.flushes.append(pos)
            return pos + WORD, False
        if flags == RamSaveFlag.HOOK:
            raise UnsupportedError("RDMA (RAM_SAVE_FLAG_HOOK)", offset=pos, section="ram")
        return self._page(window, pos, flags, addr), False

    def _runs(self, window: Window, pos: int) -> int:
        """Walk as many CONTINUE pages as the window holds whole; return where it stopped."""
        state = self.state
        if state.current is None:
            return pos
        page_size = state.page_size
        used_length = state.blocks[state.current].used_length
        buf, base = window.buf, window.base
        at, size = pos - base, len(buf)
        while at + WORD <= size:
            word = int.from_bytes(buf[at : at + WORD], "big")
            flags = word & self._mask
            if flags == CONTINUE | PAGE:
                kind, head, payload = PAGE, WORD, page_size
            elif flags == CONTINUE | ZERO:
                kind, head, payload = ZERO, WORD + 1, 0
            else:
                break
            addr = word & ~self._mask
            limit = min((size - at) // (head + payload), -(-(used_length - addr) // page_size))
            if limit <= 0:  # the record is not whole yet, or lies outside its block: the slow way tells which
                break
            fill_at = WORD if kind is ZERO else None
            count = run_length(buf, at, head + payload, page_size, limit, fill_at)
            fill = buf[at + WORD] if kind is ZERO else 0
            state.add_run(Run(base + at, int(kind), state.current, addr, count, head, payload, fill))
            at += count * (head + payload)
        return base + at

    def _page(self, window: Window, pos: int, flags: int, addr: int) -> int:
        """Walk one page record of any kind, named or not."""
        state = self.state
        kind = flags & ~CONTINUE
        if kind not in _PAYLOAD:
            raise StreamError(
                f"no RAM record has the flags {flags:#x}",
                offset=pos,
                section="ram",
                expected="one of RAM_SAVE_FLAG_* (see migration/ram.c)",
            )
        at = pos + WORD
        index = state.current
        if not flags & CONTINUE:
            length = window.u8(at, "a RAM block name")
            name = decode_name(window.bytes(at + 1, length, "a RAM block name"))
            at += 1 + length
            index = state.by_name.get(name)
            if index is None:
                raise StreamError(
                    f"a page of RAM block {name!r}, which the block list does not have",
                    offset=pos,
                    section="ram",
                    expected=f"one of {len(state.blocks)} listed blocks",
                )
        if index is None:
            raise StreamError("CONTINUE before any block was named", offset=pos, section="ram", expected="a block name")
        block = state.blocks[index]
        if addr >= block.used_length:
            raise StreamError(
                f"page {addr:#x} lies outside RAM block {block.idstr!r}",
                offset=pos,
                section="ram",
                expected=f"an offset below {block.used_length:#x}",
            )
        head, payload = _PAYLOAD[kind](window, at, state.page_size)
        window.need(at, head + payload, f"a page of RAM block {block.idstr!r}")
        fill = window.u8(at, "a fill byte") if kind == ZERO else 0
        state.current = index
        state.add_run(Run(pos, kind, index, addr, 1, at + head - pos, payload, fill))
        return at + head + payload

    def _block(self, window: Window, pos: int) -> int:
        """Read one entry of the MEM_SIZE list; return the offset behind it and what belongs to it."""
        left = self._list_left
        if not left:
            self._list_left = None
            return pos
        state = self.state
        header, at = RamBlockHeader.parse(window, pos)
        if not 0 < header.used_length <= left:
            raise StreamError(
                f"RAM block {header.idstr!r} has {header.used_length:#x} bytes",
                offset=pos,
                section="ram",
                expected=f"1 to the {left:#x} bytes that the total leaves",
            )
        page_size = mr_addr = mapped = None
        if state.advise is not None:
            # Only a block whose page size differs has this word, and nothing says so: but neither a name (its first
            # byte is a length, never 0) nor a RAM word (its flags are never 0) can look like it.
            peek = window.be64(at, "a block's page size, a name or a RAM record")
            if peek & (peek - 1) == 0 and peek & self._mask == 0 and peek & state.advise.ram_pagesize_summary:
                page_size = peek
                at += WORD
        if "x-ignore-shared" in state.capabilities:
            mr_addr = window.be64(at, "a block's guest-physical address")
            at += WORD
        if "mapped-ram" in state.capabilities:
            mapped, at = MappedRamHeader.parse(window, at)
            at = self._mapped_end(mapped, at, header)
        state.add_block(RamBlock(header.idstr, header.used_length, pos, page_size, mr_addr, mapped))
        self._list_left = left - header.used_length
        return at

    def _mapped_end(self, mapped: MappedRamHeader, at: int, header: RamBlockHeader) -> int:
        """Return the offset behind a block's bitmap and pages; bitmap and pages both lie behind the header."""
        if mapped.version != 1:
            raise UnsupportedError(f"mapped-ram header version {mapped.version}", offset=at, section="ram")
        if mapped.bitmap_offset == mapped.pages_offset == 0:
            return at  # an ignored (shared) block: since QEMU 11.0 listed without an area
        bitmap = mapped.bitmap_offset - self.state.origin
        pages = mapped.pages_offset - self.state.origin
        if not (at <= bitmap < pages and mapped.pages_offset % self.state.page_size == 0):
            raise StreamError(
                f"the bitmap of RAM block {header.idstr!r} is said to be at {mapped.bitmap_offset:#x}, "
                f"its pages at {mapped.pages_offset:#x}",
                offset=at,
                section="ram",
                expected="a bitmap behind this header, and page-aligned pages behind the bitmap",
            )
        return pages + header.used_length

    def _problem(self, message: str, pos: int, expected: str) -> None:
        self.state.problems.append(StreamError(message, offset=pos, section="ram", expected=expected))


def _zero(window: Window, at: int, page_size: int) -> tuple[int, int]:
    return 1, 0


def _normal(window: Window, at: int, page_size: int) -> tuple[int, int]:
    return 0, page_size


def _xbzrle(window: Window, at: int, page_size: int) -> tuple[int, int]:
    encoding = window.u8(at, "an XBZRLE header")
    length = window.be16(at + 1, "an XBZRLE header")
    if encoding != ENCODING_FLAG_XBZRLE or not 0 < length <= page_size:
        raise StreamError(
            f"an XBZRLE page with encoding {encoding} and {length} bytes",
            offset=at,
            section="ram",
            expected=f"encoding {ENCODING_FLAG_XBZRLE} and 1 to {page_size} bytes",
        )
    return 3, length


def _compressed(window: Window, at: int, page_size: int) -> tuple[int, int]:
    length = window.be32(at, "the length of a compressed page")
    # zlib's compressBound(): what deflate can grow a page to, and all that QEMU accepts
    bound = page_size + (page_size >> 12) + (page_size >> 14) + (page_size >> 25) + 13
    if not 0 < length <= bound:
        raise StreamError(
            f"a compressed page of {length} bytes", offset=at, section="ram", expected=f"1 to {bound} bytes"
        )
    return 4, length


# kind of page -> (bytes between the name and the payload, bytes of payload)
_PAYLOAD = {
    int(ZERO): _zero,
    int(PAGE): _normal,
    int(RamSaveFlag.XBZRLE): _xbzrle,
    int(RamSaveFlag.COMPRESS_PAGE): _compressed,
}
