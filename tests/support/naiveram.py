"""Guest memory of a stream, computed page by page in the plainest way; the oracle of qmigtool.ram.

Only the spans of sections come from qmigtool (other tests compare those with what was written); records, packets and
encodings are read here once more, one page at a time.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qmigtool.stream.model import Stream

Page = tuple[str, int]


@dataclass
class Write:
    """One record of one page."""

    channel: int
    encoding: str
    offset: int | None  # None where it is in a packed channel
    data: bytes | None  # None: DISCARD; XBZRLE: the delta


@dataclass
class Memory:
    """What became of each page."""

    page_size: int
    sizes: dict[str, int] = field(default_factory=dict)
    content: dict[Page, bytes] = field(default_factory=dict)
    history: dict[Page, list[Write]] = field(default_factory=dict)

    def write(self, page: Page, write: Write) -> None:
        assert page[1] * self.page_size < self.sizes[page[0]]
        self.history.setdefault(page, []).append(write)
        if write.data is None:
            self.content.pop(page, None)
        elif write.encoding == "xbzrle":
            self.content[page] = patch(self.content.get(page, bytes(self.page_size)), write.data)
        else:
            assert len(write.data) == self.page_size
            self.content[page] = write.data

    def block(self, name: str) -> bytes:
        zero = bytes(self.page_size)
        count = -(-self.sizes[name] // self.page_size)
        return b"".join(self.content.get((name, number), zero) for number in range(count))


def patch(page: bytes, delta: bytes) -> bytes:
    new = bytearray(page)
    at = out = 0

    def number() -> int:
        nonlocal at
        value = delta[at]
        at += 1
        if value & 0x80:
            value = (value & 0x7F) + 128 * delta[at]
            at += 1
        return value

    while at < len(delta):
        out += number()
        count = number()
        new[out : out + count] = delta[at : at + count]
        at += count
        out += count
    assert len(new) == len(page)
    return bytes(new)


def be(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


class Main:
    """The records of the main channel (or of a preempt channel), as (epoch, page, write)."""

    def __init__(self, memory: Memory, stream: Stream, data: bytes, *, walk: bool = True) -> None:
        self.memory = memory
        self.stream = stream
        self.data = data
        self.name = ""
        self.epoch = 0
        self.flushed = False
        self.flushes = False
        for _ in (
            self.read() if walk else ()
        ):  # once for nothing: with any FLUSH record in the stream, EOS ends no epoch
            pass
        self.name, self.epoch, self.flushes = "", 0, self.flushed

    def read(self) -> Iterator[tuple[int, Page, Write]]:
        for section in self.stream.sections:
            if section.name == "ram":
                yield from self.body(section.body_offset, section.body_offset + section.body_length, 0)
                self.epoch += not self.flushes
            elif section.name == "POSTCOPY_RAM_DISCARD":
                yield from self.discard(section.body_offset, section.end)

    def discard(self, at: int, end: int) -> Iterator[tuple[int, Page, Write]]:
        length = self.data[at + 1]
        name = self.data[at + 2 : at + 2 + length].decode()
        for pos in range(at + 3 + length, end, 16):
            start, size = be(self.data, pos, 8), be(self.data, pos + 8, 8)
            for number in range(start // self.memory.page_size, (start + size) // self.memory.page_size):
                yield self.epoch, (name, number), Write(0, "discard", at, None)

    def body(self, at: int, end: int, channel: int) -> Iterator[tuple[int, Page, Write]]:
        size, data = self.memory.page_size, self.data
        while at < end:
            start = at
            word = be(data, at, 8)
            flags, addr = word % size, word - word % size
            at += 8
            if flags == 0x10:
                continue
            if flags == 0x200:
                self.epoch += 1
                self.flushed = True
                continue
            if flags == 4:
                for block in self.stream.ram_blocks:  # listed; their areas of mapped-ram are read apart
                    if block.mapped is not None and block.mapped.pages_offset:
                        at = block.mapped.pages_offset + block.used_length
                at = end - 8
                continue
            if not flags & 0x20:
                self.name = data[at + 1 : at + 1 + data[at]].decode()
                at += 1 + data[at]
            kind = flags & ~0x20
            page = self.name, addr // size
            if kind == 2:
                yield self.epoch, page, Write(channel, "zero", start, data[at : at + 1] * size)
                at += 1
            elif kind == 8:
                yield self.epoch, page, Write(channel, "normal", start, data[at : at + size])
                at += size
            elif kind == 0x40:
                length = be(data, at + 1, 2)
                yield self.epoch, page, Write(channel, "xbzrle", start, data[at + 3 : at + 3 + length])
                at += 3 + length
            elif kind == 0x100:
                length = be(data, at, 4)
                unpacked = zlib.decompress(data[at + 4 : at + 4 + length])
                yield self.epoch, page, Write(channel, "compressed", start, unpacked)
                at += 4 + length
            else:
                raise AssertionError(f"flags {flags:#x} at {start:#x}")


def packets(data: bytes, channel: int, size: int) -> Iterator[tuple[int, Page, Write]]:
    """The pages of one multifd channel."""
    at, epoch = 64, 0
    inflate: Any = zlib.decompressobj()
    zstd: Any = None
    while at < len(data):
        flags, _, normal, length = struct.unpack_from(">4I", data, at + 8)
        zero = be(data, at + 32, 4)
        name = data[at + 64 : at + 320].split(b"\0")[0].decode()
        offsets = [be(data, at + 320 + 8 * i, 8) for i in range(normal + zero)]
        start, at = at, at + 320 + 8 * (512 * 1024 // size)
        if normal:
            payload = data[at : at + length]
            encoding = {0: "multifd", 2: "multifd_zlib", 4: "multifd_zstd"}[flags & 0x3E]
            if encoding == "multifd_zlib":
                payload = inflate.decompress(payload)
            elif encoding == "multifd_zstd":
                if zstd is None:
                    zstd = zstd_decompressor()
                payload = zstd.decompress(payload)
            for i in range(normal):
                one = payload[i * size : (i + 1) * size]
                where = at + i * size if encoding == "multifd" else None
                yield epoch, (name, offsets[i] // size), Write(channel, encoding, where, one)
            at += length
        for offset in offsets[normal:]:
            yield epoch, (name, offset // size), Write(channel, "multifd_zero", start, bytes(size))
        epoch += flags & 1


def zstd_decompressor() -> Any:
    try:
        from compression import zstd
    except ImportError:
        from backports import zstd
    return zstd.ZstdDecompressor()


def mapped_pages(stream: Stream, data: bytes, size: int) -> Iterator[tuple[Page, Write]]:
    for block in stream.ram_blocks:
        if block.mapped is None or not block.mapped.pages_offset:
            continue
        for number in range(block.used_length // size):
            bit = data[block.mapped.bitmap_offset + number // 8] >> number % 8 & 1
            at = block.mapped.pages_offset + number * size if bit else block.mapped.bitmap_offset
            found = data[at : at + size] if bit else bytes(size)
            yield (block.idstr, number), Write(0, "mapped" if bit else "mapped_zero", at, found)


def memory(stream: Stream, path: Path, channels: Sequence[Path]) -> Memory:
    """Read all of it."""
    data = path.read_bytes()
    out = Memory(stream.page_size, {block.idstr: block.used_length for block in stream.ram_blocks})
    main = Main(out, stream, data)
    writes = [(epoch, 0, page, write) for epoch, page, write in main.read()]
    for number, channel in enumerate(channels, start=1):
        raw = channel.read_bytes()
        if raw.startswith(b"\x11\x22\x33\x44"):
            writes += [(epoch, number, *rest) for epoch, *rest in packets(raw, number, out.page_size)]
        elif ".rp." not in channel.name:
            late = Main(out, stream, raw, walk=False)
            writes += [(main.epoch + 1, number, page, write) for _, page, write in late.body(0, len(raw), number)]
    for page, write in mapped_pages(stream, data, out.page_size):
        out.write(page, write)
    for _, _, page, write in sorted(writes, key=lambda item: item[:2]):
        out.write(page, write)
    return out


__all__ = ["Memory", "Write", "memory", "patch"]
