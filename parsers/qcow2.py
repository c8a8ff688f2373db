"""Internal snapshots of a qcow2 image: finding the state that ``savevm`` wrote (QEMU: ``docs/interop/qcow2.txt``).

The state is in the image's own guest address space, after the disk, and is found through the *snapshot's* L1
table. Clusters that were never written read as zeros.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qmigtool.errors import LimitError, StreamError, TruncatedError, UnsupportedError

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["QCOW2_MAGIC", "Qcow2", "Snapshot", "read_qcow2", "state_pieces"]

QCOW2_MAGIC = b"QFI\xfb"
SECTION = "qcow2"
MAX_SNAPSHOTS = 65536  # QCOW_MAX_SNAPSHOTS
MAX_EXTRA = 1024
MAX_L1 = 32 << 20  # bytes of a table (QCOW_MAX_L1_SIZE)
OFFSET_MASK = 0x00FFFFFFFFFFFE00
COMPRESSED, ZERO = 1 << 62, 1
EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = 1 << 2, 1 << 3, 1 << 4  # incompatible features
SECTOR = 512


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An entry of the snapshot table; ``vm_state_size`` is 0 if there is only a disk.

    ``vm_state_offset`` is the guest offset at which the state starts, in bytes.
    """

    id: str
    name: str
    l1_offset: int
    l1_entries: int
    vm_state_size: int
    vm_state_offset: int


@dataclass(frozen=True, slots=True)
class Qcow2:
    """An image's header, as far as its snapshots need it; sizes in bytes."""

    version: int
    cluster_bits: int
    size: int
    features: int
    snapshots: tuple[Snapshot, ...]

    @property
    def cluster_size(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_entry_size(self) -> int:
        """Bytes of an entry of an L2 table."""
        return 16 if self.features & EXTENDED_L2 else 8


def read_qcow2(source: BufferSource) -> Qcow2:
    """Read the header and the snapshot table.

    Raises :class:`~qmigtool.errors.StreamError` or a subclass if they break the format, and
    :class:`~qmigtool.errors.UnsupportedError` for an encrypted image.
    """
    version, cluster_bits = _number(source, 4, 4), _number(source, 20, 4)
    if version not in (2, 3):
        raise UnsupportedError(f"qcow2 version {version}", offset=4)
    if not 9 <= cluster_bits <= 21:
        raise StreamError(f"clusters of 2**{cluster_bits} bytes", offset=20, section=SECTION, expected="2**9 to 2**21")
    if _number(source, 32, 4):
        raise UnsupportedError("an encrypted qcow2 image", offset=32)
    features = _number(source, 72, 8) if version == 3 else 0
    unknown = features & ~0x1F
    if unknown:
        raise UnsupportedError(f"qcow2 images with incompatible features {unknown:#x}", offset=72)
    image = Qcow2(version, cluster_bits, _number(source, 24, 8), features, ())
    count = _number(source, 60, 4)
    if count > MAX_SNAPSHOTS:
        raise LimitError(f"{count} snapshots", offset=60, section=SECTION, expected=f"at most {MAX_SNAPSHOTS}")
    found = tuple(_snapshots(source, image, _number(source, 64, 8), count))
    return Qcow2(version, cluster_bits, image.size, features, found)


def _number(source: BufferSource, offset: int, size: int) -> int:
    return int.from_bytes(source.view(offset, size), "big")


def _snapshots(source: BufferSource, image: Qcow2, at: int, count: int) -> Iterator[Snapshot]:
    for _ in range(count):
        l1_offset, l1_entries = _number(source, at, 8), _number(source, at + 8, 4)
        id_length, name_length = _number(source, at + 12, 2), _number(source, at + 14, 2)
        state_size, extra = _number(source, at + 32, 4), _number(source, at + 36, 4)
        if extra > MAX_EXTRA or l1_entries * 8 > MAX_L1:
            raise LimitError("a snapshot's tables are too large", offset=at, section=SECTION)
        more = at + 40
        if extra >= 8:
            state_size = _number(source, more, 8)
        disk = _number(source, more + 8, 8) if extra >= 16 else image.size
        text = bytes(source.view(more + extra, id_length + name_length))
        # The state starts where the next L2 table would: the disk size is rounded up to what one table describes.
        step = image.cluster_size * (image.cluster_size // image.l2_entry_size)
        yield Snapshot(
            text[:id_length].decode("utf-8", "backslashreplace"),
            text[id_length:].decode("utf-8", "backslashreplace"),
            l1_offset,
            l1_entries,
            state_size,
            -(-disk // step) * step,
        )
        at = (more + extra + id_length + name_length + 7) // 8 * 8


def state_pieces(source: BufferSource, image: Qcow2, snapshot: Snapshot) -> Iterator[bytes | int]:
    """Yield the state of a snapshot cluster by cluster: bytes, or a number of zero bytes.

    ``vm_state_size`` counts the transferred bytes, which for a mapped-ram stream is not its end: so everything that
    the L1 table describes is yielded, up to the last cluster that was written.
    """
    size = image.cluster_size
    per_table = size // image.l2_entry_size
    first = snapshot.vm_state_offset // (size * per_table)
    tables = struct.unpack(f">{snapshot.l1_entries}Q", source.view(snapshot.l1_offset, 8 * snapshot.l1_entries))
    # Within one snapshot no cluster is shared: one that is used twice only makes a small file look large.
    seen: set[int] = set()
    zeros = 0
    for entry in tables[first:]:
        table = entry & OFFSET_MASK
        entries = bytes(source.view(_once(table, seen), size)) if table else b""
        if not any(entries):
            zeros += size * per_table
            continue
        for at in range(0, size, image.l2_entry_size):
            cluster = _cluster(source, image, int.from_bytes(entries[at : at + 8], "big"), seen)
            if cluster is None:
                zeros += size
                continue
            if zeros:
                yield zeros
                zeros = 0
            yield cluster


def _once(offset: int, seen: set[int]) -> int:
    if offset in seen:
        raise StreamError("a cluster is used twice in one snapshot", offset=offset, section=SECTION)
    seen.add(offset)
    return offset


def _cluster(source: BufferSource, image: Qcow2, entry: int, seen: set[int]) -> bytes | None:
    """Return a cluster's bytes, or None if it reads as zeros."""
    size = image.cluster_size
    if entry & COMPRESSED:
        return _unpacked(source, image, entry, seen)
    offset = entry & OFFSET_MASK
    if not offset or entry & ZERO:
        return None
    _once(offset, seen)
    if image.features & EXTENDED_L2:
        raise UnsupportedError("qcow2 images with subclusters", offset=offset)
    if image.features & EXTERNAL_DATA:
        raise UnsupportedError("qcow2 images with an external data file", offset=offset)
    # The last cluster of an image may be truncated after the last written byte.
    there = bytes(source.whole[offset : offset + size])
    if not there:
        raise TruncatedError("a cluster is after the end of the image", offset=offset, section=SECTION)
    return there + bytes(size - len(there))


def _unpacked(source: BufferSource, image: Qcow2, entry: int, seen: set[int]) -> bytes:
    if image.features & COMPRESSION_TYPE:
        raise UnsupportedError("qcow2 clusters compressed by zstd")
    shift = 62 - (image.cluster_bits - 8)
    offset = _once(entry & (1 << shift) - 1, seen)
    sectors = (entry >> shift & (1 << (62 - shift)) - 1) + 1
    length = sectors * SECTOR - offset % SECTOR
    packed = bytes(source.whole[offset : offset + length])
    try:
        data = zlib.decompressobj(wbits=-12).decompress(packed, image.cluster_size)
    except zlib.error as error:
        raise StreamError(f"a damaged cluster: {error}", offset=offset, section=SECTION) from None
    return data + bytes(image.cluster_size - len(data))
