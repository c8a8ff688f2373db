"""Memory that virtio-mem has not plugged: the guest does not have it and QEMU never sends it, so it is not missing.

A virtio-mem device records which of its blocks are plugged in a bitmap that is part of its state: since
QEMU 8.0 in its own section before memory (``virtio-mem-device-early``), otherwise in the body of the device, which
no vmdesc describes. The stream does not record which RAM block is the device's; it has the size of its region.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from qmigtool.errors import QmigError

if TYPE_CHECKING:
    from qmigtool.parsers.ramstate import RamBlock

__all__ = ["Region", "find_regions"]

EARLY, DEVICE = "virtio-mem-device-early", "virtio-mem"
HEAD = 8 + 8 + 4  # region_size, block_size, node, as in the body of a device without an early section
TAIL = 8 + 8 + 8  # usable_region_size, size, requested_size
MIN_BLOCK = 1 << 12
MAX_BITS = 1 << 24  # blocks of a device; one of 1 TiB has 2^19 of 2 MiB


class Region(NamedTuple):
    """A device's region: its size, the path of the device, and the unplugged ranges (first byte, end)."""

    size: int
    path: str
    unplugged: tuple[tuple[int, int], ...]

    def fits(self, block: RamBlock) -> bool:
        """Whether a RAM block may be of this region."""
        return block.used_length == self.size


class _Device(Protocol):
    name: str

    def get(self, path: str) -> Any: ...


def find_regions(devices: Iterable[_Device], blocks: Sequence[RamBlock]) -> tuple[Region, ...]:
    """Return the regions of all virtio-mem devices whose state can be read."""
    sizes = {block.used_length for block in blocks}
    found = []
    for device in devices:
        path, _, name = device.name.rpartition("/")
        if name not in (EARLY, DEVICE):
            continue
        try:
            told = _early(device) if name == EARLY else _inside(device, sizes)
        except QmigError:
            continue  # reading the devices reports those that cannot be decoded
        if told is not None:
            size, unit, bitmap = told
            found.append(Region(size, path, tuple(_clear(bitmap, size, unit))))
    return tuple(found)


def _early(device: _Device) -> tuple[int, int, bytes] | None:
    fields = {name: _anywhere(device, name) for name in ("region_size", "block_size", "bitmap")}
    if None in fields.values():
        return None
    size, unit = fields["region_size"].value, fields["block_size"].value
    if not isinstance(size, int) or not isinstance(unit, int):
        return None
    return _checked(size, unit, bytes(fields["bitmap"].raw))


def _anywhere(device: Any, name: str) -> Any:
    """Find a field of the device, or in one of its fields: constants are in a nested description."""
    found = device.get(name)
    if found is not None:
        return found
    for outer in device.fields:
        for inner in outer.children if outer.kind != "leaf" else ():
            if inner.name == name:
                return inner
    return None


def _inside(device: _Device, sizes: Iterable[int]) -> tuple[int, int, bytes] | None:
    """Find the region in a body that is opaque: its numbers must agree with each other and with the bitmap."""
    field = device.get("virtio")
    if field is None:
        return None
    raw = bytes(field.raw)
    for size in sizes:
        needle, at = size.to_bytes(8, "big"), -1
        while (at := raw.find(needle, at + 1)) >= 0:
            unit = int.from_bytes(raw[at + 8 : at + 16], "big")
            behind = at + HEAD + TAIL
            usable, plugged, requested = (
                int.from_bytes(raw[at + HEAD + 8 * i : at + HEAD + 8 * i + 8], "big") for i in range(3)
            )
            if unit < MIN_BLOCK or size % unit or size // unit > MAX_BITS or not plugged <= usable <= size:
                continue
            bitmap = raw[behind : behind + -(-size // unit // 64) * 8]
            count = sum(byte.bit_count() for byte in bitmap)
            if requested <= size and count * unit == plugged:
                return _checked(size, unit, bitmap)
    return None


def _checked(size: int, unit: int, bitmap: bytes) -> tuple[int, int, bytes] | None:
    known = unit >= MIN_BLOCK and not size % unit and size // unit <= MAX_BITS
    return (size, unit, bitmap) if known and len(bitmap) * 8 >= size // unit else None


def _clear(bitmap: bytes, size: int, unit: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges whose bits are clear: bit i is bit i % 64 of the be64 word i // 64."""
    start: int | None = None
    count = size // unit
    for word in range(-(-count // 64)):
        bits = int.from_bytes(bitmap[8 * word : 8 * word + 8], "big")
        for bit in range(min(64, count - 64 * word)):
            at = (64 * word + bit) * unit
            if not bits >> bit & 1:
                start = at if start is None else start
            elif start is not None:
                yield start, at
                start = None
    if start is not None:
        yield start, size
