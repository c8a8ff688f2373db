"""Guest memory after the RAM section is loaded: devices read it while they load.

The bytes come from the stream and all given channels. A guest-physical address can be resolved only in main memory,
and only if that is one block and its split at 4 GiB is known: from the CMOS of an x86 machine (hw/i386/pc.c,
``pc_cmos_init``), or from the board (``BASES``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from qmigtool.devices.blocknames import BASES
from qmigtool.errors import QmigError
from qmigtool.parsers.source import BufferSource
from qmigtool.stream.model import Stream

if TYPE_CHECKING:
    from qmigtool.parsers.vmdesc import Description

__all__ = ["GuestMemory"]

GIB4 = 1 << 32
MIB16 = 16 << 20
MIB1 = 1 << 20
CMOS_LOW = 0x30  # two bytes: memory from 1 MiB on, up to 64 MiB, in KiB
CMOS_HIGH = 0x34  # two bytes: memory from 16 MiB to the hole below 4 GiB, in units of 64 KiB


class GuestMemory:
    """The memory of one stream, by block or by guest-physical address."""

    def __init__(self, stream: Callable[[], Stream]) -> None:
        self._opened = stream

    @classmethod
    def of(cls, source: BufferSource) -> GuestMemory:
        """Return the memory of a plain stream's bytes, which are read on demand."""
        return cls(cache(lambda: Stream(BufferSource(source.whole, str(source.name)))))

    @property
    def _stream(self) -> Stream:
        return self._opened()

    def read(self, block: str, offset: int, length: int) -> bytes | None:
        """Return bytes of a block, or None if the stream and its channels do not contain them."""
        try:
            return self._stream.ram.read(block, offset, length)
        except QmigError:
            return None

    def description(self, idstr: str, instance: int) -> Description | None:
        """Return the description of a device in the stream's own vmdesc, or None if there is none."""
        try:
            found = self._stream.device(f"{idstr}@{instance}").description
        except QmigError:
            return None
        return None if self._stream.schema_name else found

    def place(self, address: int, length: int, blocks: list[str]) -> tuple[str, int] | None:
        """Return the block and the offset of guest-physical memory; None if that is not known.

        ``blocks`` are those that can be main memory.
        """
        if len(blocks) != 1:
            return None
        size = next((one.used_length for one in self._stream.ram_blocks if one.idstr == blocks[0]), 0)
        base = BASES.get(blocks[0])
        if base is not None:
            offset = address - base
        else:
            split = self._split()
            if split is None or address + length > split > address or split <= address < GIB4:
                return None
            offset = address if address < split else address - GIB4 + split
        return (blocks[0], offset) if 0 <= offset <= size - length else None

    def _split(self) -> int | None:
        """Return the size of main memory below 4 GiB in bytes, from the CMOS of the machine."""
        try:
            field = self._stream.field("mc146818rtc@0/cmos_data")
        except QmigError:
            return None
        low, high = (int.from_bytes(field.raw[at : at + 2], "little") for at in (CMOS_LOW, CMOS_HIGH))
        if high:
            return MIB16 + (high << 16)
        return MIB1 + (low << 10) if low else None
