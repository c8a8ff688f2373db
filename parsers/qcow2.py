"""A qcow2 image's header and its internal snapshots (QEMU: ``docs/interop/qcow2.txt``).

The bytes of a snapshot's state are read by :mod:`.qcow2state`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Annotated, Any

from qmigtool.errors import LimitError, StreamError, UnsupportedError
from qmigtool.parsers.record import Blob, Fixed, Record, When, be32, be64, record
from qmigtool.parsers.window import Window

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["COMPRESSION_TYPE", "EXTENDED_L2", "MAX_L1", "QCOW2_MAGIC", "SECTION", "Qcow2", "Snapshot", "read_qcow2"]

QCOW2_MAGIC = b"QFI\xfb"
SECTION = "qcow2"
MAX_SNAPSHOTS = 65536  # QCOW_MAX_SNAPSHOTS
MAX_EXTRA = 1024
MAX_L1 = 32 << 20  # bytes of a table (QCOW_MAX_L1_SIZE)
CRYPT_METHODS = {1: "AES", 2: "LUKS"}
EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = 1 << 2, 1 << 3, 1 << 4  # incompatible features


class Qcow2Feature(IntFlag):
    """``QCOW2_INCOMPAT_*``: a reader that does not know one of them cannot read the image."""

    DIRTY = 0x01
    CORRUPT = 0x02
    DATA_FILE = 0x04
    COMPRESSION = 0x08
    EXTL2 = 0x10


def _version_3(header: Any) -> bool:
    return bool(header.version >= 3)


def _extra(more: int) -> Any:
    return lambda entry: entry.extra_data_size >= more


@record
class Qcow2Header(Record):
    """The header of an image; version 2 has no ``incompatible_features`` and what follows them."""

    magic: Annotated[bytes, Blob(4)]
    version: Annotated[int, Fixed("I", default=3)]
    backing_file_offset: be64
    backing_file_size: be32
    cluster_bits: Annotated[int, Fixed("I", default=16)]
    size: be64
    crypt_method: be32
    l1_size: be32
    l1_table_offset: be64
    refcount_table_offset: be64
    refcount_table_clusters: be32
    nb_snapshots: be32
    snapshots_offset: be64
    incompatible_features: Annotated[int | None, When(_version_3, Fixed("Q", Qcow2Feature))]
    compatible_features: Annotated[int | None, When(_version_3, Fixed("Q"))]
    autoclear_features: Annotated[int | None, When(_version_3, Fixed("Q"))]
    refcount_order: Annotated[int | None, When(_version_3, Fixed("I", default=4))]
    header_length: Annotated[int | None, When(_version_3, Fixed("I", default=104))]


@record
class Qcow2Snapshot(Record):
    """An entry of the snapshot table; the next one starts at a multiple of 8 bytes."""

    l1_table_offset: be64
    l1_size: be32
    id_str_size: Annotated[int, Fixed("H", counts="id_str")]
    name_size: Annotated[int, Fixed("H", counts="snapshot_name")]
    date_sec: be32
    date_nsec: be32
    vm_clock_nsec: be64
    vm_state_size: be32
    extra_data_size: Annotated[int, Fixed("I", default=24)]
    vm_state_size_large: Annotated[int | None, When(_extra(8), Fixed("Q"))]
    disk_size: Annotated[int | None, When(_extra(16), Fixed("Q"))]
    icount: Annotated[int | None, When(_extra(24), Fixed("Q", default=0xFFFFFFFFFFFFFFFF))]
    extra_data: Annotated[bytes, Blob(lambda entry: entry.extra_data_size - min(entry.extra_data_size // 8, 3) * 8)]
    id_str: Annotated[bytes, Blob(lambda entry: entry.id_str_size)]
    snapshot_name: Annotated[bytes, Blob(lambda entry: entry.name_size)]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An entry of the snapshot table; ``vm_state_size`` is 0 if there is only a disk.

    ``vm_state_offset`` is the guest offset at which the state starts, ``offset`` where the entry is, both in bytes.
    """

    id: str
    name: str
    l1_offset: int
    l1_entries: int
    vm_state_size: int
    vm_state_offset: int
    offset: int = 0


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
    :class:`~qmigtool.errors.UnsupportedError` for an encrypted image, whose state is encrypted, too, and for one with
    its data in another file: QEMU makes no snapshot in such an image.
    """
    version = _number(source, 4, 4)
    if version not in (2, 3):
        raise UnsupportedError(f"qcow2 version {version}", offset=4)
    header, _ = Qcow2Header.parse(Window(source.whole, final=True), 0)
    cluster_bits = header.cluster_bits
    if not 9 <= cluster_bits <= 21:
        raise StreamError(f"clusters of 2**{cluster_bits} bytes", offset=20, section=SECTION, expected="2**9 to 2**21")
    if crypt := header.crypt_method:
        method = CRYPT_METHODS.get(crypt, f"method {crypt}")
        raise UnsupportedError(
            f"a qcow2 image encrypted by {method}",
            offset=32,
            section=SECTION,
            expected="what QEMU saves of it: load the snapshot with its secret, and `migrate` to a file",
        )
    features = header.incompatible_features or 0
    unknown = features & ~0x1F
    if unknown:
        raise UnsupportedError(f"qcow2 images with incompatible features {unknown:#x}", offset=72)
    if features & EXTERNAL_DATA:
        raise UnsupportedError(
            "a qcow2 image with an external data file",
            "this qcow2 image has its data in another file, which is not opened: QEMU makes no snapshot in such images",
            offset=72,
            section=SECTION,
        )
    image = Qcow2(version, cluster_bits, header.size, features, ())
    count = header.nb_snapshots
    if count > MAX_SNAPSHOTS:
        raise LimitError(f"{count} snapshots", offset=60, section=SECTION, expected=f"at most {MAX_SNAPSHOTS}")
    found = tuple(_snapshots(source, image, header.snapshots_offset, count))
    return Qcow2(version, cluster_bits, image.size, features, found)


def _number(source: BufferSource, offset: int, size: int) -> int:
    return int.from_bytes(source.view(offset, size), "big")


def _snapshots(source: BufferSource, image: Qcow2, at: int, count: int) -> Iterator[Snapshot]:
    window = Window(source.whole, final=True)
    for _ in range(count):
        if _number(source, at + 36, 4) > MAX_EXTRA or _number(source, at + 8, 4) * 8 > MAX_L1:
            raise LimitError("a snapshot's tables are too large", offset=at, section=SECTION)
        entry, end = Qcow2Snapshot.parse(window, at)
        disk = image.size if entry.disk_size is None else entry.disk_size
        # The state starts where the next L2 table would: the disk size is rounded up to what one table describes.
        step = image.cluster_size * (image.cluster_size // image.l2_entry_size)
        yield Snapshot(
            entry.id_str.decode("utf-8", "backslashreplace"),
            entry.snapshot_name.decode("utf-8", "backslashreplace"),
            entry.l1_table_offset,
            entry.l1_size,
            entry.vm_state_size if entry.vm_state_size_large is None else entry.vm_state_size_large,
            -(-disk // step) * step,
            at,
        )
        at = (end + 7) // 8 * 8
