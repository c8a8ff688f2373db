"""A qcow2 image's header and its internal snapshots (QEMU: ``docs/interop/qcow2.txt``).

The bytes of a snapshot's state are read by :mod:`.qcow2state`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qmigtool.errors import LimitError, StreamError, UnsupportedError

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["COMPRESSION_TYPE", "EXTENDED_L2", "QCOW2_MAGIC", "SECTION", "Qcow2", "Snapshot", "read_qcow2"]

QCOW2_MAGIC = b"QFI\xfb"
SECTION = "qcow2"
MAX_SNAPSHOTS = 65536  # QCOW_MAX_SNAPSHOTS
MAX_EXTRA = 1024
MAX_L1 = 32 << 20  # bytes of a table (QCOW_MAX_L1_SIZE)
CRYPT_METHODS = {1: "AES", 2: "LUKS"}
EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = 1 << 2, 1 << 3, 1 << 4  # incompatible features


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
    :class:`~qmigtool.errors.UnsupportedError` for an encrypted image, whose state is encrypted, too, and for one with
    its data in another file: QEMU makes no snapshot in such an image.
    """
    version, cluster_bits = _number(source, 4, 4), _number(source, 20, 4)
    if version not in (2, 3):
        raise UnsupportedError(f"qcow2 version {version}", offset=4)
    if not 9 <= cluster_bits <= 21:
        raise StreamError(f"clusters of 2**{cluster_bits} bytes", offset=20, section=SECTION, expected="2**9 to 2**21")
    if crypt := _number(source, 32, 4):
        method = CRYPT_METHODS.get(crypt, f"method {crypt}")
        raise UnsupportedError(
            f"a qcow2 image encrypted by {method}",
            offset=32,
            section=SECTION,
            expected="what QEMU saves of it: load the snapshot with its secret, and `migrate` to a file",
        )
    features = _number(source, 72, 8) if version == 3 else 0
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
