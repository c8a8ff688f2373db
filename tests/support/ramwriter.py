"""Writes what accompanies a stream or is in it, in memory: multifd channels, mapped-ram files, return paths.

Like `streamwriter`, independent of the parsers: the facts of QEMU's ``multifd.c``, ``ram.c`` and ``migration.c``,
written down a second time.
"""

import zlib
from collections.abc import Sequence

from tests.support.streamwriter import (
    PAGE,
    StreamWriter,
    be16,
    be32,
    be64,
    capabilities,
    eos,
    flush,
    mem_size,
    page,
    str8,
)

ZLIB, ZSTD, QPL, UADK, QATZIP = 0x02, 0x04, 0x08, 0x10, 0x20
SYNC, DEVICE_STATE = 0x01, 0x40


def greeting(channel: int = 0, uuid: bytes = bytes(16)) -> bytes:
    return be32(0x11223344) + be32(1) + uuid + bytes([channel]) + bytes(39)


def packet(
    normal: Sequence[int] = (),
    payload: bytes = b"",
    *,
    zero: Sequence[int] = (),
    flags: int = 0,
    block: str = "r",
    size: int | None = None,
    page_size: int = PAGE,
    count: int | None = None,
    zeros: int | None = None,
    magic: int = 0x11223344,
    version: int = 1,
) -> bytes:
    """One packet; ``size``, ``count`` and ``zeros`` tell another length or page count than there is."""
    slots = 512 * 1024 // page_size
    head = be32(magic) + be32(version) + be32(flags) + be32(slots)
    head += be32(len(normal) if count is None else count) + be32(len(payload) if size is None else size) + be64(7)
    head += be32(len(zero) if zeros is None else zeros) + be32(0) + bytes(24)
    head += block.encode().ljust(256, b"\0")
    offsets = [*normal, *zero]
    return head + b"".join(map(be64, offsets)) + bytes(8 * (slots - len(offsets))) + payload


def sync() -> bytes:
    return packet(flags=SYNC, block="")


def channel(syncs: int, *epochs: bytes, number: int = 0) -> bytes:
    """A whole channel: ``syncs`` epochs, each closed by its SYNC; what ``epochs`` does not have is empty."""
    return greeting(number) + b"".join((epochs[i] if i < len(epochs) else b"") + sync() for i in range(syncs))


def device_state(idstr: str, data: bytes, *, size: int | None = None) -> bytes:
    head = be32(0x11223344) + be32(1) + be32(DEVICE_STATE) + idstr.encode().ljust(256, b"\0") + be32(0)
    return head + be32(len(data) if size is None else size) + data


class Deflate:
    """One deflate stream over all payloads of a channel, flushed after each."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(1)

    def __call__(self, data: bytes) -> bytes:
        return self._deflate.compress(data) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def filled(value: int) -> bytes:
    """A page that no other value gives: the value as be64, over and over."""
    return be64(value) * (PAGE // 8)


def multifd_main(rounds: int, pages: int, *, flushes: bool = True, between: Sequence[bytes] = ()) -> StreamWriter:
    """The main channel of a multifd migration: ``rounds`` PARTs, each closed by a FLUSH (or, before 8.1, by EOS).

    START and END have one, too: every other channel has ``rounds + 2`` SYNC packets.
    """
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", pages * PAGE)]) + (flush() if flushes else b"") + eos())
    for i in range(rounds):
        own = between[i] if i < len(between) else b""
        w.part(1, own + (flush() if flushes else b"") + eos())
    w.end(1, (flush() if flushes else b"") + eos())
    return w


def mapped(
    pages: dict[int, bytes],
    count: int,
    *,
    big_endian: bool = False,
    origin: int = 0,
    bitmap: bytes | None = None,
    stale: dict[int, bytes] | None = None,
    **header: int,
) -> bytes:
    """A mapped-ram file with one block of ``count`` pages, of which ``pages`` are present.

    ``origin`` bytes of hole come first; ``stale`` pages are in the file without a bit; ``header`` overrides what the
    mapped-ram header says (version, page_size, bitmap_offset, pages_offset).
    """
    w = StreamWriter(config=capabilities("mapped-ram"))
    named = b"\x01" + be32(1) + str8("ram") + be32(0) + be32(4)
    front = bytes(w.data) + named + be64(count * PAGE | 4) + str8("r") + be64(count * PAGE)
    words = -(-count // 64)
    if bitmap is None:
        numbers = [sum(1 << i for i in range(64) if 64 * word + i in pages) for word in range(words)]
        bitmap = b"".join(number.to_bytes(8, "big" if big_endian else "little") for number in numbers)
    bitmap_at = origin + len(front) + 28
    pages_at = -(-(bitmap_at + len(bitmap)) // (1 << 20)) * (1 << 20)
    said = {"version": 1, "page_size": PAGE, "bitmap_offset": bitmap_at, "pages_offset": pages_at, **header}
    out = bytearray(front)
    out += be32(said["version"]) + be64(said["page_size"]) + be64(said["bitmap_offset"]) + be64(said["pages_offset"])
    out += bitmap + bytes(pages_at - bitmap_at - len(bitmap)) + bytes(count * PAGE)
    for number, data in {**(stale or {}), **pages}.items():
        at = pages_at - origin + number * PAGE
        out[at : at + PAGE] = data
    w.data = out
    w.data += eos() + b"\x7e" + be32(1)
    w.started[1] = ("ram", 0, 4)
    w.end(1, eos())
    return bytes(origin) + w.finish()


def message(type_: int, payload: bytes) -> bytes:
    return be16(type_) + be16(len(payload)) + payload


def request(start: int, length: int, block: str | None = None) -> bytes:
    """REQ_PAGES, or with a block REQ_PAGES_ID."""
    body = be64(start) + be32(length)
    return message(4, body) if block is None else message(3, body + str8(block))


def recv_bitmap(block: str, bitmap: bytes, *, size: int | None = None, mark: int = 0x0123456789ABCDEF) -> bytes:
    return message(5, str8(block)) + be64(len(bitmap) if size is None else size) + bitmap + be64(mark)


def discard(block: str, *ranges: tuple[int, int]) -> bytes:
    """The payload of POSTCOPY_RAM_DISCARD."""
    return bytes([0]) + str8(block) + bytes([0]) + b"".join(be64(a) + be64(b) for a, b in ranges)


def plain(*records: bytes, pages: int = 8) -> StreamWriter:
    """A stream of one block ``r``, with all records in one PART."""
    w = StreamWriter()
    w.start(1, "ram", 0, 4, mem_size([("r", pages * PAGE)]) + eos())
    w.part(1, b"".join(records) + eos())
    w.end(1, eos())
    return w


def named_page(number: int, value: int, block: str | None = "r") -> bytes:
    """PAGE record of ``filled(value)``."""
    return page(number * PAGE, filled(value), block)
