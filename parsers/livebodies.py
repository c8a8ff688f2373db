"""Bodies of live sections other than ``ram``: walked record by record, never held.

No vmdesc has them. Each class walks START, PART and END alike and remembers nothing between sections, because where a
record ends follows from the record alone. Sources: ``migration/block-dirty-bitmap.c``, ``migration/block.c`` (until
9.0), ``hw/ppc/spapr.c`` (htab), ``hw/s390x/s390-stattrib.c``, ``hw/vfio/migration.c``, Proxmox's patches (pbs-state).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qmigtool.errors import LimitError, StreamError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from qmigtool.parsers.bodies import SearchedBody
    from qmigtool.parsers.window import Window

__all__ = ["LIVE_BODIES", "live_body"]

# migration/block-dirty-bitmap.c
DIRTY_BITMAP_MIG_FLAG_EOS = 0x01
DIRTY_BITMAP_MIG_FLAG_ZEROES = 0x02
DIRTY_BITMAP_MIG_FLAG_BITMAP_NAME = 0x04
DIRTY_BITMAP_MIG_FLAG_DEVICE_NAME = 0x08
DIRTY_BITMAP_MIG_FLAG_START = 0x10
DIRTY_BITMAP_MIG_FLAG_COMPLETE = 0x20
DIRTY_BITMAP_MIG_FLAG_BITS = 0x40
DIRTY_BITMAP_MIG_EXTRA_FLAGS = 0x80  # would announce more flag bytes; never sent
MAX_BITS = 10 * 1024  # what QEMU accepts in one chunk

# migration/block.c
BLK_MIG_FLAG_DEVICE_BLOCK = 0x01
BLK_MIG_FLAG_EOS = 0x02
BLK_MIG_FLAG_PROGRESS = 0x04
BLK_MIG_FLAG_ZERO_BLOCK = 0x08
BLK_FLAG_BITS = 9
BLK_CHUNK = 1 << 20  # always a full MiB, also at a disk's end

# hw/ppc/spapr.c
HPTE_SIZE = 16
NO_HTAB = 0xFFFFFFFF

# hw/s390x/s390-stattrib.c
STATTR_FLAG_EOS = 0x01
STATTR_FLAG_MORE = 0x02
STATTR_FLAG_ERROR = 0x04
STATTR_FLAG_DONE = 0x08

# hw/vfio/migration.c
VFIO_TAG = 0xFFFFFFFFEF100000
VFIO_MIG_FLAG_END_OF_STATE = VFIO_TAG | 1
VFIO_MIG_FLAG_DEV_CONFIG_STATE = VFIO_TAG | 2
VFIO_MIG_FLAG_DEV_SETUP_STATE = VFIO_TAG | 3
VFIO_MIG_FLAG_DEV_DATA_STATE = VFIO_TAG | 4
VFIO_MIG_FLAG_DEV_INIT_DATA_SENT = VFIO_TAG | 5
VFIO_MIG_FLAG_CONFIG_LOAD_READY = VFIO_TAG | 6


class LiveBody(Protocol):
    """Reads one record at a time."""

    def __call__(self, window: Window, pos: int) -> tuple[int, bool]:
        """Read the record at ``pos``; return the offset behind it and whether the body ends there."""
        ...


class _Records:
    """A body that is a sequence of self-delimiting records."""

    measured = "records"

    def __init__(self, read: LiveBody) -> None:
        self._read = read

    def advance(self, window: Window, pos: int) -> tuple[int, bool]:
        """Read one record; a payload need not be in the window to be passed over."""
        return self._read(window, pos)


def dirty_bitmap(window: Window, pos: int) -> tuple[int, bool]:
    """Read one chunk of ``dirty-bitmap``."""
    flags = window.u8(pos, "dirty-bitmap flags")
    if flags & DIRTY_BITMAP_MIG_EXTRA_FLAGS:
        raise UnsupportedError("dirty-bitmap chunks with extra flag bytes", offset=pos)
    at = pos + 1
    for flag in (DIRTY_BITMAP_MIG_FLAG_DEVICE_NAME, DIRTY_BITMAP_MIG_FLAG_BITMAP_NAME):
        if flags & flag:
            at += 1 + window.u8(at, "a dirty-bitmap name")
    if flags & DIRTY_BITMAP_MIG_FLAG_EOS:
        return at, True
    if flags & DIRTY_BITMAP_MIG_FLAG_START:
        return at + 5, False  # be32 granularity (QEMU's comment says be64), u8 flags
    if flags & DIRTY_BITMAP_MIG_FLAG_COMPLETE:
        return at, False
    if not flags & DIRTY_BITMAP_MIG_FLAG_BITS:
        raise StreamError(f"dirty-bitmap flags {flags:#x}", offset=pos, expected="START, COMPLETE, BITS or EOS")
    at += 12  # be64 first sector, be32 sectors
    if not flags & DIRTY_BITMAP_MIG_FLAG_ZEROES:
        size = window.be64(at, "the size of dirty-bitmap data")
        if size > MAX_BITS:
            raise LimitError(f"{size} bytes of dirty-bitmap data", offset=at, expected=f"at most {MAX_BITS}")
        at += 8 + size
    return at, False


def block(window: Window, pos: int) -> tuple[int, bool]:
    """Read one record of ``block`` (disk migration, until QEMU 9.0)."""
    flags = window.be64(pos, "a block record") & (1 << BLK_FLAG_BITS) - 1
    at = pos + 8
    if flags & BLK_MIG_FLAG_DEVICE_BLOCK:
        at += 1 + window.u8(at, "a drive's name")
        return (at if flags & BLK_MIG_FLAG_ZERO_BLOCK else at + BLK_CHUNK), False
    if flags & BLK_MIG_FLAG_PROGRESS:
        return at, False
    if flags & BLK_MIG_FLAG_EOS:
        return at, True
    raise StreamError(f"block flags {flags:#x}", offset=pos, expected="DEVICE_BLOCK, PROGRESS or EOS")


def htab(window: Window, pos: int) -> tuple[int, bool]:
    """Read ``spapr/htab`` up to its first chunk: the hash table's shift, "no table", or 0 before chunks."""
    header = window.be32(pos, "an htab header")
    if header:
        return pos + 4, True
    at = pos + 4
    while True:
        index = window.be32(at, "an htab chunk")
        valid, invalid = window.be16(at + 4, "an htab chunk"), window.be16(at + 6, "an htab chunk")
        at += 8
        if not (index or valid or invalid):
            return at, True
        at += valid * HPTE_SIZE


def storage_attributes(window: Window, pos: int) -> tuple[int, bool]:
    """Read one record of ``s390-storage_attributes`` (version 0)."""
    flags = window.be64(pos, "a storage attribute record") & 0xFFF
    at = pos + 8
    if flags & STATTR_FLAG_EOS:
        return at, True
    if flags & STATTR_FLAG_MORE:
        return at + 8 + window.be64(at, "a count of storage attributes"), False
    if flags & (STATTR_FLAG_DONE | STATTR_FLAG_ERROR):
        return at, False
    raise StreamError(f"storage attribute flags {flags:#x}", offset=pos, expected="EOS, MORE, ERROR or DONE")


def pbs_state(window: Window, pos: int) -> tuple[int, bool]:
    """Read ``pbs-state`` (Proxmox): a length and opaque bytes."""
    return pos + 8 + window.be64(pos, "the length of pbs-state"), True


class VfioBody:
    """Walks a live section of a VFIO device; a device's config has no length and is searched through."""

    def __init__(self, search: SearchedBody | None) -> None:
        self._search = search
        self._searching = False
        self.measured = "records"

    def advance(self, window: Window, pos: int) -> tuple[int, bool]:
        """Read one tag and what belongs to it."""
        if self._searching and self._search is not None:
            return self._search.advance(window, pos)
        tag = window.be64(pos, "a VFIO tag")
        if tag in (
            VFIO_MIG_FLAG_END_OF_STATE,
            VFIO_MIG_FLAG_DEV_INIT_DATA_SENT,
            VFIO_MIG_FLAG_CONFIG_LOAD_READY,
        ):
            return pos + 8, True
        if tag == VFIO_MIG_FLAG_DEV_SETUP_STATE:
            return pos + 8, False
        if tag == VFIO_MIG_FLAG_DEV_DATA_STATE:
            return pos + 16 + window.be64(pos + 8, "the length of VFIO data"), False
        if tag == VFIO_MIG_FLAG_DEV_CONFIG_STATE:
            if self._search is None:
                raise UnsupportedError("VFIO config state without footers", offset=pos)
            self._searching = True
            self.measured = self._search.measured
            return pos, False
        raise StreamError(f"no VFIO tag is {tag:#x}", offset=pos, expected=f"{VFIO_TAG | 1:#x} to {VFIO_TAG | 6:#x}")


LIVE_BODIES: dict[str, LiveBody] = {
    "dirty-bitmap": dirty_bitmap,
    "block": block,
    "spapr/htab": htab,
    "s390-storage_attributes": storage_attributes,
    "pbs-state": pbs_state,
}
"""idstr of a live section -> how its records are read; ``ram`` has a module of its own."""


def live_body(idstr: str, search: Callable[[], SearchedBody | None]) -> _Records | VfioBody | SearchedBody | None:
    """Return the body of a live section; ``search`` makes the last resort, which is None without footers."""
    read = LIVE_BODIES.get(idstr)
    if read is not None:
        return _Records(read)
    if idstr.endswith("/vfio"):
        return VfioBody(search())
    return search()
