"""RAM blocks of a stream that may hold the guest's memory: no remedy may drop or truncate them.

A name proves nothing: ``-object memory-backend-ram,id=...`` can have any name, and the block of a virtio-mem device is
named after a PCI address as a ROM is. A block belongs to a device only if a device that is known to have such a block
is present; and not even then if the memory size in the CMOS is not covered by the other blocks, or if the page tables
of a vCPU are in this block only.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from qmigtool.devices.blocknames import device_block
from qmigtool.errors import QmigError
from qmigtool.x86.registers import CR0, CR3

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qmigtool.stream.model import Stream

__all__ = ["guest_memory"]

CMOS, CMOS_EXTENDED, CMOS_ABOVE_16M, CMOS_ABOVE_4G = "mc146818rtc", 0x30, 0x34, 0x5B
MIB = 1 << 20
_PRESENT = 1
MAX_SETS = 4096  # of blocks whose sizes are added


def guest_memory(stream: Stream) -> frozenset[str]:
    """Return the names of the blocks that hold, or may hold, the guest's memory."""
    blocks = {block.idstr: block.used_length for block in stream.ram_blocks}
    certain = {name: size for name, size in blocks.items() if not device_block(name, size)}
    found = set(certain)
    others = {name: size for name, size in blocks.items() if name not in certain}
    if not others:
        return frozenset(found)
    told = _told_by_firmware(stream)
    if told is not None and not _adds_up(told, list(certain.values())):
        # The blocks that are certainly memory do not cover the memory size in the CMOS.
        missing = told - sum(certain.values())
        found |= {name for name, size in others.items() if size >= missing > 0} or set(others)
    if not certain and told is None:
        found |= {name for name, size in others.items() if size == max(others.values())}
    for root in _page_tables(stream):
        if not any(_is_table(stream, name, root) for name in certain):
            found |= {name for name in others if _is_table(stream, name, root)}
    return frozenset(found)


def _told_by_firmware(stream: Stream) -> int | None:
    """Return the size of memory in bytes that a PC's CMOS records for the firmware, or None."""
    device = next((one for one in stream.devices if one.name == CMOS), None)
    field = None if device is None or device.description is None else device.get("cmos_data")
    if field is None or field.length < CMOS_ABOVE_4G + 3:
        return None
    cmos = field.raw
    high = int.from_bytes(cmos[CMOS_ABOVE_4G : CMOS_ABOVE_4G + 3], "little") << 16
    low = int.from_bytes(cmos[CMOS_ABOVE_16M : CMOS_ABOVE_16M + 2], "little") << 16
    extended = int.from_bytes(cmos[CMOS_EXTENDED : CMOS_EXTENDED + 2], "little") << 10
    if low:
        return 16 * MIB + low + high
    return MIB + extended if extended else None


def _adds_up(total: int, sizes: list[int]) -> bool:
    """Whether some of the blocks add up to exactly so many bytes: the CMOS does not count hotplugged memory."""
    if sum(sizes) == total or total in sizes:
        return True
    tried = 0
    for count in range(2, len(sizes)):
        for some in combinations(sizes, count):
            tried += 1
            if sum(some) == total:
                return True
            if tried > MAX_SETS:
                return False
    return False


def _page_tables(stream: Stream) -> Iterator[int]:
    """Yield the physical address of the top-level page table of each x86 vCPU that has paging enabled."""
    for vcpu in stream.vcpus:
        cr0, cr3 = vcpu.device.number(CR0.path), vcpu.device.number(CR3.path)
        if cr0 is not None and cr3 is not None and cr0 & CR0["PG"]:
            yield cr3 & 0x000F_FFFF_FFFF_F000


def _is_table(stream: Stream, name: str, address: int) -> bool:
    """Whether a block, seen as memory from 0 on, has present entries in the page at ``address``."""
    size = next(block.used_length for block in stream.ram_blocks if block.idstr == name)
    if address + 0x1000 > size:
        return False
    try:
        page = stream.ram.read(name, address, 0x1000, absent="zero")
    except QmigError:
        return False
    return any(page[at] & _PRESENT for at in range(0, len(page), 8))
