"""RAM records as the target loads them (``ram_load_precopy`` in ``migration/ram.c``).

The parser in :mod:`qmigtool.parsers.ram` reads ordinary pages, thousands at a time. Every other record is checked here
first, in QEMU's order: what the parser accepts and the target does not (a fill byte, a compressed page), and what the
parser refuses and the target would report with its own message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.errors import StreamError
from qmigtool.parsers.ram import ENCODING_FLAG_XBZRLE, RamBody
from qmigtool.parsers.ramruns import RunTable
from qmigtool.parsers.record import decode_name
from qmigtool.parsers.records import RamSaveFlag
from qmigtool.parsers.window import Window
from qmigtool.parsers.xbzrle import parse_xbzrle
from qmigtool.preflight.loader.words import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from qmigtool.preflight.loader.state import Load

__all__ = ["load_records"]

ZERO, PAGE, CONTINUE = int(RamSaveFlag.ZERO), int(RamSaveFlag.PAGE), int(RamSaveFlag.CONTINUE)
XBZRLE, COMPRESSED = int(RamSaveFlag.XBZRLE), int(RamSaveFlag.COMPRESS_PAGE)
EOS, MEM_SIZE, HOOK = int(RamSaveFlag.EOS), int(RamSaveFlag.MEM_SIZE), int(RamSaveFlag.HOOK)
FLUSH = int(RamSaveFlag.MULTIFD_FLUSH)

# The first versions that no longer accept, or do accept, a record.
NO_COMPRESSED, FLUSHED, NO_FILL, HOOKS_IGNORED = (9, 1), (8, 1), (8, 2), (8, 2)
LOOKS_FOR_END = (8, 2)
"""The first version that is known to check for the end of the file before it checks a record's flags."""


def load_records(load: Load, list_blocks: Callable[[Load, int], None]) -> None:
    """Load the records of one body up to and including EOS; ``list_blocks`` reads a MEM_SIZE list of so many bytes."""
    ram, cursor = load.ram, load.cursor
    window = Window(cursor.data[: cursor.end], final=True)
    body = RamBody(ram.state)
    mask = ram.page_size - 1
    while True:
        at = cursor.pos
        word = int.from_bytes(cursor.peek(8).ljust(8, b"\0"), "big")
        if cursor.left < 8 and load.since(LOOKS_FOR_END):
            raise _refuse(load, "record-cut", at, ret=-5)
        flags, addr = word & mask, word & ~mask
        kind = flags & ~CONTINUE
        judged = _judge(load, at, flags, addr)
        if judged is not None:
            cursor.skip(judged - at)
        elif kind in (PAGE, ZERO):
            _walk(load, window, body)
        elif kind == MEM_SIZE:
            cursor.skip(8)
            list_blocks(load, addr)
        elif kind == EOS:
            cursor.skip(8)
            return
        else:
            cursor.skip(8)
        if cursor.failed:
            raise _refuse(load, "ram-cut", at, ret=-5)


def _walk(load: Load, window: Window, body: RamBody) -> None:
    """Walk ordinary pages, and check the fill bytes of zero pages."""
    ram, cursor = load.ram, load.cursor
    ram.state.runs = RunTable(ram.page_size)
    try:
        cursor.pos, _ = body.advance(window, cursor.pos)
    except StreamError:  # the rest is a truncated page
        cursor.skip(8 + ram.page_size + 256)
        return
    finally:
        runs, ram.state.runs = ram.state.runs, None
    for run in runs:
        if run.fill and run.flags == ZERO and load.since(NO_FILL):
            raise _refuse(load, "record-fill", run.offset, fill=run.fill)
    cursor.passed()


def _judge(load: Load, at: int, flags: int, addr: int) -> int | None:
    """Refuse a record that QEMU refuses; return its end if the parser must not walk it."""
    cursor = load.cursor
    kind = flags & ~CONTINUE
    compressed = bool(flags & COMPRESSED) and not load.since(NO_COMPRESSED)
    named = flags & (ZERO | PAGE | XBZRLE | (COMPRESSED if compressed else 0))
    end = at + 8
    if compressed and load.has("compress") is None:
        load.suppose("compress", "compressed pages")
    elif compressed and not load.has("compress"):
        raise _refuse(load, "record-compressed", at)
    if named:
        end = _block(load, at, flags, addr)
    if kind in (ZERO, PAGE, MEM_SIZE, EOS):
        return None
    if kind == COMPRESSED and compressed:
        return end + 4 + int.from_bytes(cursor.peek(4, end - at), "big")
    if kind == XBZRLE:
        return _xbzrle(load, at, end, addr)
    if kind == FLUSH and load.since(FLUSHED):
        return end
    if kind == HOOK and load.since(HOOKS_IGNORED):
        return end
    if kind & HOOK and not load.since(HOOKS_IGNORED):
        raise _refuse(load, "record-hook", at)
    raise _refuse(load, "record-flags", at, flags=flags)


def _block(load: Load, at: int, flags: int, addr: int) -> int:
    """Find the block of a page; return the offset of its payload."""
    ram, cursor = load.ram, load.cursor
    end = at + 8
    if flags & CONTINUE:
        if ram.state.current is None:
            raise _refuse(load, "record-continue", at, at=addr)
        index = ram.state.current
    else:
        length = (cursor.peek(1, 8) or b"\0")[0]
        name = decode_name(cursor.peek(length, 9).partition(b"\0")[0])
        end += 1 + length
        found = ram.state.by_name.get(name)
        if found is None:
            raise _refuse(load, "record-block", at, block=name, at=addr)
        index = found
    if addr >= ram.state.blocks[index].used_length:
        raise _refuse(load, "record-offset", at, at=addr)
    if flags & ~CONTINUE not in (ZERO, PAGE):
        ram.state.current = index
    return end


def _xbzrle(load: Load, at: int, end: int, addr: int) -> int:
    """Check an XBZRLE record; return its end."""
    cursor, page_size = load.cursor, load.ram.page_size
    head = cursor.peek(3, end - at).ljust(3, b"\0")
    length = int.from_bytes(head[1:], "big")
    if head[0] != ENCODING_FLAG_XBZRLE:
        raise _refuse(load, "xbzrle-encoding", at, at=addr)
    if length > page_size:
        raise _refuse(load, "xbzrle-length", at, at=addr)
    data = cursor.peek(length, end + 3 - at)
    if len(data) == length:
        try:
            parse_xbzrle(data, page_size)
        except StreamError:
            raise _refuse(load, "xbzrle-data", at, at=addr) from None
    return end + 3 + length


def _refuse(load: Load, rule: str, offset: int, *, ret: int = -22, at: int = 0, **values: object) -> Refusal:
    """Return the refusal of a record; ``at`` is the offset in the block that QEMU prints."""
    return load.words.refusal(rule, offset, "ram", at=at, ram_version=4, ret=ret, **values)
