"""Streams of any size, made fast: a real sample's head, device state and vmdesc around RAM that is made up.

The sample's own RAM sections stay where they are; the synthetic PARTs come before them, as an earlier round of the same
migration would. ``pc.ram`` is declared with the new size, nothing else is changed, so what reads the one reads the
other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

import qmigtool
from qmigtool.parsers.records import RamSaveFlag, SectionType
from qmigtool.parsers.section import Section, Type
from tests.support.paths import SAMPLES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Kinds = NDArray[np.bool_]

SAMPLE = SAMPLES / "pc-7.2.mig"
BLOCK = "pc.ram"
PAGE_SIZE = 4096
PART_PAGES = 8192  # 32 MiB: what 50 ms of an iteration send at some 5 Gbit/s
NORMAL_SIZE, ZERO_SIZE = 8 + PAGE_SIZE, 8 + 1


class Pattern(StrEnum):
    """How zero and normal pages follow each other."""

    NORMAL = "all normal"
    ZERO = "all zero"
    MIX = "mixture"
    """Zero and normal runs in turn, their lengths lognormal (median 8 pages, mean 25): many short ones, few long. An
    assumption; the samples are like that in kind, but too small to measure."""
    ALTERNATING = "alternating"
    """The worst case for anything that works run by run."""

    def zeros(self, pages: int, rng: np.random.Generator) -> Kinds:
        """Say of each page whether it is a zero page."""
        match self:
            case Pattern.NORMAL:
                return np.zeros(pages, dtype=np.bool_)
            case Pattern.ZERO:
                return np.ones(pages, dtype=np.bool_)
            case Pattern.ALTERNATING:
                return np.arange(pages) % 2 == 1
            case Pattern.MIX:
                lengths = np.ceil(rng.lognormal(np.log(8), 1.5, size=pages)).astype(np.int64)
                runs = int(np.searchsorted(lengths.cumsum(), pages)) + 1
                return np.repeat(np.arange(runs) % 2 == 1, lengths[:runs])[:pages]


@dataclass(frozen=True, slots=True)
class Frame:
    """The sample around the synthetic RAM: ``head`` up to and with the ``ram`` START, ``tail`` all that follows it."""

    head: bytes
    tail: bytes
    section_id: int

    @classmethod
    def of_sample(cls, ram: int, sample: Path = SAMPLE) -> Frame:
        """Take a sample apart, and declare its ``pc.ram`` with ``ram`` bytes."""
        data = sample.read_bytes()
        with qmigtool.open(data) as stream:
            start = _ram_start(stream.sections)
            block = next(block for block in stream.ram_blocks if block.idstr == BLOCK)
            total = sum(other.used_length for other in stream.ram_blocks) - block.used_length + ram
        if ram < block.used_length or ram % PAGE_SIZE:
            raise ValueError(f"{ram} bytes of RAM: whole pages, and at least the sample's {block.used_length}, please")
        head = bytearray(data[: start.end])
        head[start.body_offset : start.body_offset + 8] = (total | RamSaveFlag.MEM_SIZE).to_bytes(8, "big")
        length_at = block.offset + 1 + len(BLOCK)
        head[length_at : length_at + 8] = ram.to_bytes(8, "big")
        assert start.section_id is not None
        return cls(bytes(head), data[start.end :], start.section_id)


def _ram_start(sections: Iterator[Section]) -> Section:
    return next(section for section in sections if section.type is Type.START and section.name == "ram")


def pieces(frame: Frame, ram: int, pattern: Pattern, *, seed: int = 1) -> Iterator[bytes | memoryview]:
    """Yield the stream in pieces. A piece is overwritten by the next one: use it at once.

    Pages are random bytes, the same ones in every PART.
    """
    rng = np.random.default_rng(seed)
    pages = ram // PAGE_SIZE
    zeros = pattern.zeros(pages, rng)
    pool = rng.integers(0, 256, size=PART_PAGES * NORMAL_SIZE, dtype=np.uint8)
    section_id = frame.section_id.to_bytes(4, "big")
    eos = int(RamSaveFlag.EOS).to_bytes(8, "big")
    name = bytes([len(BLOCK)]) + BLOCK.encode()
    yield frame.head
    for first in range(0, pages, PART_PAGES):
        kinds = zeros[first : first + PART_PAGES]
        yield bytes([SectionType.QEMU_VM_SECTION_PART]) + section_id
        records = _records(pool, kinds, first)
        if first == 0:
            # The first page record of a stream names its block; the others say CONTINUE.
            word = int.from_bytes(records[:8], "big") & ~int(RamSaveFlag.CONTINUE)
            yield word.to_bytes(8, "big") + name
            records = records[8:]
        yield records
        yield eos + b"\x7e" + section_id
    yield frame.tail


def _records(pool: NDArray[np.uint8], zeros: Kinds, first: int) -> memoryview:
    """Write the records of some pages into ``pool``: only what is not payload is touched."""
    sizes = np.where(zeros, ZERO_SIZE, NORMAL_SIZE)
    ends = sizes.cumsum()
    offsets = ends - sizes
    addresses = (np.arange(first, first + len(zeros)) * PAGE_SIZE).astype(np.uint64)
    flags = np.where(zeros, RamSaveFlag.ZERO, RamSaveFlag.PAGE).astype(np.uint64) | np.uint64(RamSaveFlag.CONTINUE)
    words = (addresses | flags).astype(">u8").view(np.uint8).reshape(-1, 8)
    pool[offsets[:, None] + np.arange(8)] = words
    pool[offsets[zeros] + 8] = 0
    return memoryview(pool)[: ends[-1]]


def build(ram: int, pattern: Pattern, *, sample: Path = SAMPLE) -> bytes:
    """Make a stream with ``ram`` bytes of ``pc.ram`` in memory."""
    return b"".join(bytes(piece) for piece in pieces(Frame.of_sample(ram, sample), ram, pattern))


def write(file: BinaryIO, ram: int, pattern: Pattern, *, sample: Path = SAMPLE) -> int:
    """Write a stream with ``ram`` bytes of ``pc.ram`` to ``file``; return its size."""
    return sum(file.write(piece) for piece in pieces(Frame.of_sample(ram, sample), ram, pattern))
