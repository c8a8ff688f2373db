"""Bodies of live sections other than ``ram``: walked record by record, never stored.

They are not in the vmdesc. START, PART and END are read alike, and no state is kept between sections, because the end
of a record follows from the record alone. Each record can be rebuilt from its numbers. Sources:
``migration/block-dirty-bitmap.c``, ``migration/block.c`` (until 9.0), ``hw/ppc/spapr.c`` (htab),
``hw/s390x/s390-stattrib.c``, ``hw/vfio/migration.c``, Proxmox's patches (pbs-state).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from qmigtool.errors import LimitError, StreamError, UnsupportedError
from qmigtool.parsers.record import Record, be16, be32, be64, decode_name, encode_name, record, u8

if TYPE_CHECKING:
    from qmigtool.parsers.bodies import Body, SearchedBody
    from qmigtool.parsers.window import Window

__all__ = ["LIVE_SECTIONS", "HtabBody", "LiveSection", "live_body", "live_section"]

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

# hw/s390x/s390-stattrib.c
STATTR_FLAG_BITS = 12
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


class LiveRecord(Protocol):
    """One record: its numbers, and the length of the payload that follows them."""

    @property
    def payload(self) -> int:
        """The length of the payload after the record."""
        ...

    def build(self) -> bytes:
        """Return the record's bytes, without the payload; undoes the reading."""
        ...


# (record, offset of its payload, whether the body ends after it)
Read = tuple[LiveRecord, int, bool]


@record
class DirtyBitmapStart(Record):
    """First occurrence of a bitmap; QEMU's comment says that the granularity is be64."""

    granularity: be32
    flags: u8  # 1 enabled, 2 persistent, 4 once autoload


@record
class DirtyBitmapBits(Record):
    """A range of sectors of 512 bytes."""

    first_sector: be64
    sectors: be32


class DirtyBitmapChunk(NamedTuple):
    """A chunk of ``dirty-bitmap``; with the name None it is that of the previous chunk, across sections."""

    flags: int
    node: str | None = None
    bitmap: str | None = None
    start: DirtyBitmapStart | None = None
    bits: DirtyBitmapBits | None = None
    size: int | None = None

    @property
    def payload(self) -> int:
        """Bytes of bitmap data."""
        return self.size or 0

    def build(self) -> bytes:
        """Return the chunk's bytes, without the bitmap data."""
        names = b"".join(_str8(name) for name in (self.node, self.bitmap) if name is not None)
        parts = b"".join(part.build() for part in (self.start, self.bits) if part is not None)
        size = b"" if self.size is None else self.size.to_bytes(8, "big")
        return bytes([self.flags]) + names + parts + size


def dirty_bitmap(window: Window, pos: int) -> Read:
    """Read one chunk of ``dirty-bitmap``."""
    flags = window.u8(pos, "dirty-bitmap flags")
    if flags & DIRTY_BITMAP_MIG_EXTRA_FLAGS:
        raise UnsupportedError("dirty-bitmap chunks with extra flag bytes", offset=pos)
    at = pos + 1
    names: list[str | None] = [None, None]
    for i, flag in enumerate((DIRTY_BITMAP_MIG_FLAG_DEVICE_NAME, DIRTY_BITMAP_MIG_FLAG_BITMAP_NAME)):
        if flags & flag:
            names[i], at = _name(window, at)
    chunk = DirtyBitmapChunk(flags, names[0], names[1])
    if flags & DIRTY_BITMAP_MIG_FLAG_EOS:
        return chunk, at, True
    if flags & DIRTY_BITMAP_MIG_FLAG_START:
        start, at = DirtyBitmapStart.parse(window, at)
        return chunk._replace(start=start), at, False
    if flags & DIRTY_BITMAP_MIG_FLAG_COMPLETE:
        return chunk, at, False
    if not flags & DIRTY_BITMAP_MIG_FLAG_BITS:
        raise StreamError(f"dirty-bitmap flags {flags:#x}", offset=pos, expected="START, COMPLETE, BITS or EOS")
    bits, at = DirtyBitmapBits.parse(window, at)
    chunk = chunk._replace(bits=bits)
    if not flags & DIRTY_BITMAP_MIG_FLAG_ZEROES:
        size = window.be64(at, "the size of dirty-bitmap data")
        if size > MAX_BITS:
            raise LimitError(f"{size} bytes of dirty-bitmap data", offset=at, expected=f"at most {MAX_BITS}")
        return chunk._replace(size=size), at + 8, False
    return chunk, at, False


class BlockRecord(NamedTuple):
    """A record of ``block``: ``sector`` is a sector of 512 bytes, or a percentage with PROGRESS."""

    flags: int
    sector: int
    drive: str | None = None

    @property
    def payload(self) -> int:
        """Bytes of disk data."""
        return BLK_CHUNK if self.drive is not None and not self.flags & BLK_MIG_FLAG_ZERO_BLOCK else 0

    def build(self) -> bytes:
        """Return the record's bytes, without the disk data."""
        word = self.sector << BLK_FLAG_BITS | self.flags
        return word.to_bytes(8, "big") + (b"" if self.drive is None else _str8(self.drive))


def block(window: Window, pos: int) -> Read:
    """Read one record of ``block`` (disk migration, until QEMU 9.0)."""
    word = window.be64(pos, "a block record")
    found = BlockRecord(word & (1 << BLK_FLAG_BITS) - 1, word >> BLK_FLAG_BITS)
    if found.flags & BLK_MIG_FLAG_DEVICE_BLOCK:
        drive, at = _name(window, pos + 8)
        return found._replace(drive=drive), at, False
    if found.flags & BLK_MIG_FLAG_PROGRESS:
        return found, pos + 8, False
    if found.flags & BLK_MIG_FLAG_EOS:
        return found, pos + 8, True
    raise StreamError(f"block flags {found.flags:#x}", offset=pos, expected="DEVICE_BLOCK, PROGRESS or EOS")


@record
class HtabHeader(Record):
    """Starts a body of ``spapr/htab``: the hash table's shift, 0xffffffff for no table, 0 before chunks."""

    value: be32

    payload = 0


@record
class HtabChunk(Record):
    """Followed by ``valid`` entries of 16 bytes from ``index`` on; then ``invalid`` ones are not sent."""

    index: be32
    valid: be16
    invalid: be16

    @property
    def payload(self) -> int:
        """Bytes of hash table entries."""
        return self.valid * HPTE_SIZE


def htab_chunk(window: Window, pos: int) -> Read:
    """Read one chunk of ``spapr/htab``."""
    chunk, at = HtabChunk.parse(window, pos)
    return chunk, at, not (chunk.index or chunk.valid or chunk.invalid)


class HtabBody:
    """Walks a body of ``spapr/htab``, whose first record differs from the others."""

    measured = "records"

    def __init__(self) -> None:
        self._started = False

    def advance(self, window: Window, pos: int) -> tuple[int, bool]:
        """Read one record."""
        found, at, ended = self.read(window, pos)
        return window.skip(at, found.payload, "a payload"), ended

    def read(self, window: Window, pos: int) -> Read:
        """Return the record at ``pos``: the header the first time, then chunks."""
        if not self._started:
            header, at = HtabHeader.parse(window, pos)
            self._started = True
            return header, at, header.value != 0
        return htab_chunk(window, pos)


class StorageAttributes(NamedTuple):
    """A record of ``s390-storage_attributes``: ``pages`` attributes of a byte from guest frame ``gfn`` on."""

    flags: int
    gfn: int
    pages: int | None = None

    @property
    def payload(self) -> int:
        """Bytes of attributes."""
        return self.pages or 0

    def build(self) -> bytes:
        """Return the record's bytes, without the attributes."""
        pages = b"" if self.pages is None else self.pages.to_bytes(8, "big")
        return (self.gfn << STATTR_FLAG_BITS | self.flags).to_bytes(8, "big") + pages


def storage_attributes(window: Window, pos: int) -> Read:
    """Read one record of ``s390-storage_attributes`` (version 0)."""
    word = window.be64(pos, "a storage attribute record")
    found = StorageAttributes(word & (1 << STATTR_FLAG_BITS) - 1, word >> STATTR_FLAG_BITS)
    if found.flags & STATTR_FLAG_EOS:
        return found, pos + 8, True
    if found.flags & STATTR_FLAG_MORE:
        return found._replace(pages=window.be64(pos + 8, "a count of storage attributes")), pos + 16, False
    if found.flags & (STATTR_FLAG_DONE | STATTR_FLAG_ERROR):
        return found, pos + 8, False
    raise StreamError(f"storage attribute flags {found.flags:#x}", offset=pos, expected="EOS, MORE, ERROR or DONE")


@record
class PbsState(Record):
    """``pbs-state`` (Proxmox): opaque bytes."""

    size: be64

    @property
    def payload(self) -> int:
        """Bytes of state."""
        return self.size


def pbs_state(window: Window, pos: int) -> Read:
    """Read ``pbs-state``."""
    found, at = PbsState.parse(window, pos)
    return found, at, True


class VfioRecord(NamedTuple):
    """A tag of a VFIO section, and the length of the data after it if it is DEV_DATA_STATE."""

    tag: int
    size: int | None = None

    @property
    def payload(self) -> int:
        """Bytes of device data."""
        return self.size or 0

    def build(self) -> bytes:
        """Return the tag's bytes, without the data."""
        return self.tag.to_bytes(8, "big") + (b"" if self.size is None else self.size.to_bytes(8, "big"))


def vfio(window: Window, pos: int) -> Read:
    """Read one tag of a VFIO section; the data after DEV_CONFIG_STATE has no length."""
    tag = window.be64(pos, "a VFIO tag")
    if tag == VFIO_MIG_FLAG_DEV_DATA_STATE:
        return VfioRecord(tag, window.be64(pos + 8, "the length of VFIO data")), pos + 16, False
    if tag in (VFIO_MIG_FLAG_DEV_SETUP_STATE, VFIO_MIG_FLAG_DEV_CONFIG_STATE):
        return VfioRecord(tag), pos + 8, False
    if tag not in (VFIO_MIG_FLAG_END_OF_STATE, VFIO_MIG_FLAG_DEV_INIT_DATA_SENT, VFIO_MIG_FLAG_CONFIG_LOAD_READY):
        raise StreamError(f"{tag:#x} is not a VFIO tag", offset=pos, expected=f"{VFIO_TAG | 1:#x} to {VFIO_TAG | 6:#x}")
    return VfioRecord(tag), pos + 8, True


class VfioBody:
    """Walks a live section of a VFIO device; a device's config has no length, so its end is searched for."""

    def __init__(self, search: SearchedBody | None) -> None:
        self._search = search
        self._searching = False
        self.measured = "records"

    def advance(self, window: Window, pos: int) -> tuple[int, bool]:
        """Read one tag and its data."""
        if self._searching and self._search is not None:
            return self._search.advance(window, pos)
        found, at, ended = vfio(window, pos)
        if isinstance(found, VfioRecord) and found.tag == VFIO_MIG_FLAG_DEV_CONFIG_STATE:
            if self._search is None:
                raise UnsupportedError("VFIO config state without footers", offset=pos)
            self._searching = True
            self.measured = self._search.measured
            return pos, False
        return window.skip(at, found.payload, "a payload"), ended


class RecordsBody:
    """A body that is a sequence of records of one kind; a payload need not be in the window to be skipped."""

    measured = "records"

    def __init__(self, read: Callable[[Window, int], Read]) -> None:
        self._read = read

    def advance(self, window: Window, pos: int) -> tuple[int, bool]:
        """Read one record."""
        found, at, ended = self._read(window, pos)
        return window.skip(at, found.payload, "a payload"), ended


def _name(window: Window, pos: int) -> tuple[str, int]:
    length = window.u8(pos, "a name")
    return decode_name(window.bytes(pos + 1, length, "a name")), pos + 1 + length


def _str8(name: str) -> bytes:
    raw = encode_name(name)
    return bytes([len(raw)]) + raw


class LiveSection(NamedTuple):
    """A live section that can be read: ``read`` reads one of its records.

    ``idstr`` is its name; one that starts with a slash is the end of the name. ``holds`` describes the user's data in
    it. ``body`` makes a body that is not only such records, from the search for its footer, which is None without
    footers.
    """

    idstr: str
    read: Callable[[Window, int], Read]
    holds: str = ""
    body: Callable[[SearchedBody | None], Body] | None = None


LIVE_SECTIONS: tuple[LiveSection, ...] = (
    LiveSection("block", block, "contents of disks"),
    LiveSection("dirty-bitmap", dirty_bitmap, "names and bitmaps of disks"),
    LiveSection("pbs-state", pbs_state, "backup state"),
    LiveSection("s390-storage_attributes", storage_attributes),
    LiveSection("spapr/htab", htab_chunk, body=lambda _: HtabBody()),
    LiveSection("/vfio", vfio, body=VfioBody),
)
"""The live sections that can be read by their records; ``ram`` has its own module."""


def live_section(idstr: str) -> LiveSection | None:
    """Return how a live section is read; None if that is not known."""
    return next(
        (one for one in LIVE_SECTIONS if idstr == one.idstr or (one.idstr[0] == "/" and idstr.endswith(one.idstr))),
        None,
    )


def live_body(idstr: str, search: Callable[[], SearchedBody | None]) -> Body | None:
    """Return the body of a live section; ``search`` makes the search for its footer, which is None without footers."""
    section = live_section(idstr)
    if section is None:
        return search()
    return RecordsBody(section.read) if section.body is None else section.body(search())
