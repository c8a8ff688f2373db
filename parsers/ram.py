"""Bodies of the ``ram`` section, version 4 (QEMU: ``migration/ram.c``).

Every body is a sequence of records that start with a be64 word: the low bits (below the page size) are
``RAM_SAVE_FLAG_*``, the rest a byte offset in a RAM block. It ends with the EOS record. A page record either names
its block or has CONTINUE, which means the last block named on this channel, across sections.

:class:`RamBody` walks one body; :class:`~qmigtool.parsers.ramstate.RamState` is the channel's state between bodies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.errors import StreamError, UnsupportedError
from qmigtool.parsers.ramruns import run_length
from qmigtool.parsers.ramstate import RamBlock
from qmigtool.parsers.record import decode_name, encode_name
from qmigtool.parsers.records import MappedRamHeader, RamBlockHeader, RamSaveFlag
from qmigtool.parsers.window import BE64

if TYPE_CHECKING:
    from qmigtool.parsers.ramstate import RamState
    from qmigtool.parsers.window import Window

__all__ = ["CONTINUE", "WORD", "RamBody", "encode_page", "record_end"]

ENCODING_FLAG_XBZRLE = 0x1
WORD = 8

STRETCH = 8 << 20  # bytes walked at once: in between, walked pages can be released
KEPT_STRETCH = 2 << 20  # where runs are kept: between two stretches their memory is charged

# Plain numbers: an IntFlag's operators cost more than all other work on a page.
ZERO, PAGE, CONTINUE = int(RamSaveFlag.ZERO), int(RamSaveFlag.PAGE), int(RamSaveFlag.CONTINUE)
CONTINUE_ZERO, CONTINUE_PAGE = CONTINUE | ZERO, CONTINUE | PAGE


class RamBody:
    """Walks one START, PART or END body of the ``ram`` section, wherever its bytes are."""

    measured = "records"

    def __init__(self, state: RamState, *, pages_only: bool = False) -> None:
        self.state = state
        self._pages_only = pages_only  # the postcopy preempt channel, which has no records about all channels
        self._mask = state.page_size - 1
        self._list_left: int | None = None  # bytes of RAM whose blocks the MEM_SIZE list has not named yet

    def advance(self, window: Window, pos: int) -> tuple[int, bool]:
        """Walk records from ``pos`` while they are in the window.

        Returns the offset reached and whether the body ended there; raises
        :class:`~qmigtool.parsers.window.NeedMoreData` only if no record could be walked.
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
        if self._pages_only and flags in (RamSaveFlag.MEM_SIZE, RamSaveFlag.MULTIFD_FLUSH):
            raise StreamError(
                f"a {RamSaveFlag(flags).name} record where only pages are allowed",
                offset=pos,
                section="ram",
                expected="a page or EOS",
            )
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
        """Walk plain and zero pages that are completely in the window; return where it stopped.

        The loop for every page that differs from its neighbours: so it has no call and no object per page except
        those that keep the runs, if they are kept.
        """
        state = self.state
        block = state.current
        if block is None:
            return pos
        page_size, mask = state.page_size, self._mask
        used_length = state.blocks[block].used_length
        unpack, table = BE64.unpack_from, state.runs
        buf, base = window.buf, window.base
        at = pos - base
        size = min(len(buf), at + (STRETCH if table is None else KEPT_STRETCH))
        names, steps = state.by_raw_name, 0
        pages = {PAGE: 0, ZERO: 0}
        keep = None  # the first run goes through add(): it may continue one of an earlier call
        while at + WORD < size:
            word: int = unpack(buf, at)[0]
            flags = word & mask
            if flags == CONTINUE_PAGE:
                kind, head, payload, fill_at, fill = PAGE, WORD, page_size, None, 0
            elif flags == CONTINUE_ZERO:
                kind, head, payload, fill_at, fill = ZERO, WORD + 1, 0, WORD, buf[at + WORD]
            elif flags in (PAGE, ZERO):  # with its block's name: it is walked alone
                name_end = at + WORD + 1 + buf[at + WORD]
                named = names.get(bytes(buf[at + WORD + 1 : name_end]))
                kind, head, payload, fill_at, fill = flags, name_end - at, page_size, None, 0
                if kind == ZERO and name_end < size:
                    head, payload, fill = head + 1, 0, buf[name_end]
                if named is None or at + head + payload > size or word - flags >= state.blocks[named].used_length:
                    break
                if named != block:
                    state.count(block, pages)
                    pages = {PAGE: 0, ZERO: 0}
                    state.current = block = named
                    used_length = state.blocks[block].used_length
            else:
                break
            addr, stride = word - flags, head + payload
            after = at + stride
            if after > size or addr >= used_length:
                break  # not complete yet, or outside its block: the slow path decides
            steps += 1
            count = 1
            if flags == kind:
                keep = None  # it goes through add(), like the first one
            # One word decides that a run is a single page, the most frequent case in mixed memory.
            elif after + stride <= size and unpack(buf, after)[0] == word + page_size:
                limit = min((size - at) // stride, -(-(used_length - addr) // page_size))
                count = run_length(buf, at, stride, page_size, limit, fill_at)
            if keep is not None:
                keep((base + at, addr, count << 32 | payload, kind << 40 | block << 24 | head << 8 | fill))
            elif table is not None:
                table.add(base + at, kind, block, addr, count, head, payload, fill)
                keep = table.words.extend
            pages[kind] += count
            at += count * stride
        state.count(block, pages)
        state.steps += steps
        return base + at

    def _page(self, window: Window, pos: int, flags: int, addr: int) -> int:
        """Walk one page record of any kind, named or not."""
        state = self.state
        kind = flags & ~CONTINUE
        if kind not in _PAYLOAD:
            raise StreamError(
                f"unknown RAM record flags {flags:#x}",
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
                f"page {addr:#x} is outside RAM block {block.idstr!r}",
                offset=pos,
                section="ram",
                expected=f"an offset below {block.used_length:#x}",
            )
        head, payload = _PAYLOAD[kind](window, at, state.page_size)
        window.need(at, head + payload, f"a page of RAM block {block.idstr!r}")
        fill = window.u8(at, "a fill byte") if kind == ZERO else 0
        state.current = index
        state.add_page(pos, kind, index, addr, at + head - pos, payload, fill)
        return at + head + payload

    def _block(self, window: Window, pos: int) -> int:
        """Read one entry of the MEM_SIZE list; return the offset after it and its additional fields."""
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
            # Only a block with another page size has this word, without any mark: but neither a name (its first
            # byte is a length, never 0) nor a RAM word (its flags are never 0) can be confused with it.
            peek = window.be64(at, "a block's page size, a name or a RAM record")
            if peek & (peek - 1) == 0 and peek & self._mask == 0 and peek & state.advise.ram_pagesize_summary:
                page_size = peek
                at += WORD
        if "x-ignore-shared" in state.capabilities:
            mr_addr = window.be64(at, "a block's guest-physical address")
            at += WORD
        if "mapped-ram" in state.capabilities:
            mapped, at = MappedRamHeader.parse(window, at)
            end = self._mapped_end(mapped, at, header)
            at = window.skip(at, max(0, end - at), "a RAM block's bitmap and pages")
        state.add_block(RamBlock(header.idstr, header.used_length, pos, page_size, mr_addr, mapped))
        self._list_left = left - header.used_length
        return at

    def _mapped_end(self, mapped: MappedRamHeader, at: int, header: RamBlockHeader) -> int:
        """Return the offset after a block's bitmap and pages; both are after the header."""
        if mapped.version != 1:
            raise UnsupportedError(f"mapped-ram header version {mapped.version}", offset=at, section="ram")
        if mapped.bitmap_offset == mapped.pages_offset == 0:
            return at  # an ignored (shared) block: since QEMU 11.0 listed without an area
        bitmap = mapped.bitmap_offset - self.state.origin
        pages = mapped.pages_offset - self.state.origin
        if not (at <= bitmap < pages and mapped.pages_offset % self.state.page_size == 0):
            raise StreamError(
                f"the bitmap of RAM block {header.idstr!r} has the offset {mapped.bitmap_offset:#x}, "
                f"its pages at {mapped.pages_offset:#x}",
                offset=at,
                section="ram",
                expected="a bitmap after this header, and page-aligned pages after the bitmap",
            )
        return pages + header.used_length

    def _problem(self, message: str, pos: int, expected: str) -> None:
        self.state.note(StreamError(message, offset=pos, section="ram", expected=expected))


def record_end(window: Window, pos: int, state: RamState) -> tuple[int, int | None]:
    """Return where a page record ends, and the block that it names, None with CONTINUE; its page may not be there.

    Raises :class:`~qmigtool.errors.StreamError` if there is no page record, or if its header is not there.
    """
    flags = window.be64(pos, "a RAM record") & (state.page_size - 1)
    payload = _PAYLOAD.get(flags & ~CONTINUE)
    at, named = pos + WORD, None
    if not flags & CONTINUE:
        length = window.u8(at, "a RAM block name")
        named = state.by_raw_name.get(bytes(window.bytes(at + 1, length, "a RAM block name")))
        at += 1 + length
    if payload is None or (named is None and not flags & CONTINUE):
        raise StreamError(f"no page record with the flags {flags:#x}", offset=pos, section="ram")
    return at + sum(payload(window, at, state.page_size)), named


def encode_page(word: int, name: str | None, payload: bytes, fill: int = 0, page_size: int = 4096) -> bytes:
    """Return one page record: its word, the block's name unless CONTINUE is set, and the header of its kind.

    ``payload`` is the page, the XBZRLE pairs or the zlib stream; a ZERO record has ``fill`` instead.
    """
    kind = word & (page_size - 1) & ~CONTINUE
    raw = b"" if name is None else encode_name(name)
    head = word.to_bytes(WORD, "big") + (bytes([len(raw)]) + raw if name is not None else b"")
    if kind == ZERO:
        return head + bytes([fill])
    if kind == RamSaveFlag.XBZRLE:
        return head + bytes([ENCODING_FLAG_XBZRLE]) + len(payload).to_bytes(2, "big") + payload
    if kind == RamSaveFlag.COMPRESS_PAGE:
        return head + len(payload).to_bytes(4, "big") + payload
    return head + payload


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
    # zlib's compressBound(): the largest size of a deflated page, and the limit of QEMU
    bound = page_size + (page_size >> 12) + (page_size >> 14) + (page_size >> 25) + 13
    if not 0 < length <= bound:
        raise StreamError(
            f"a compressed page of {length} bytes", offset=at, section="ram", expected=f"1 to {bound} bytes"
        )
    return 4, length


# kind of page -> (bytes between the name and the payload, bytes of payload)
_PAYLOAD = {
    ZERO: _zero,
    PAGE: _normal,
    int(RamSaveFlag.XBZRLE): _xbzrle,
    int(RamSaveFlag.COMPRESS_PAGE): _compressed,
}
