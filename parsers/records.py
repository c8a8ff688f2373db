"""The wire records of a migration stream, each declared once.

Numbers are big-endian. The names of constants are QEMU's own, so that a search finds them in both worlds. Sources:
``migration/savevm.c`` (framing), ``migration/ram.c`` (RAM flags, mapped-ram header), ``migration/savevm.c`` again for
``enum qemu_vm_cmd``; checked on real streams of QEMU 5.2 to 11.1.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from mmap import mmap
from typing import Annotated, Any

from qmigtool.parsers.record import (
    FOLLOWING,
    Blob,
    Fixed,
    ListOf,
    PageFlags,
    PageOffset,
    Record,
    Str8,
    When,
    be32,
    be64,
    record,
    str8,
    u8,
)

QEMU_VM_FILE_MAGIC = 0x5145564D  # "QEVM"
QEVM = QEMU_VM_FILE_MAGIC.to_bytes(4, "big")
"""The first bytes of a stream; :func:`is_plain_stream` looks for them."""
QEMU_VM_FILE_VERSION = 3
QEMU_VM_FILE_VERSION_COMPAT = 2  # obsolete since 2009; recognised to name it in the error

QEMU_VM_SECTION_FOOTER = 0x7E


def is_plain_stream(head: bytes | mmap) -> bool:
    """Return whether what begins with ``head`` (4 bytes are enough) is a stream, not compressed and in no container."""
    return head[: len(QEVM)] == QEVM


class SectionType(IntEnum):
    """The first byte of each item of a stream."""

    QEMU_VM_EOF = 0x00
    QEMU_VM_SECTION_START = 0x01
    QEMU_VM_SECTION_PART = 0x02
    QEMU_VM_SECTION_END = 0x03
    QEMU_VM_SECTION_FULL = 0x04
    QEMU_VM_SUBSECTION = 0x05  # only inside a body
    QEMU_VM_VMDESCRIPTION = 0x06  # only after EOF
    QEMU_VM_CONFIGURATION = 0x07  # only directly after the file header
    QEMU_VM_COMMAND = 0x08


class Command(IntEnum):
    """``enum qemu_vm_cmd``; 8 was ENABLE_COLO until QEMU 10.2 and is reserved since."""

    MIG_CMD_INVALID = 0
    MIG_CMD_OPEN_RETURN_PATH = 1
    MIG_CMD_PING = 2
    MIG_CMD_POSTCOPY_ADVISE = 3
    MIG_CMD_POSTCOPY_LISTEN = 4
    MIG_CMD_POSTCOPY_RUN = 5
    MIG_CMD_POSTCOPY_RAM_DISCARD = 6
    MIG_CMD_PACKAGED = 7
    MIG_CMD_ENABLE_COLO = 8
    MIG_CMD_POSTCOPY_RESUME = 9
    MIG_CMD_RECV_BITMAP = 10
    MIG_CMD_SWITCHOVER_START = 11


class RamSaveFlag(IntFlag):
    """``RAM_SAVE_FLAG_*``: the bits below the page size of a RAM record's first word."""

    FULL = 0x001  # never sent since 2009
    ZERO = 0x002  # a page of one byte value (0 as written); was called COMPRESS
    MEM_SIZE = 0x004
    PAGE = 0x008
    EOS = 0x010
    CONTINUE = 0x020  # same block as the previous page record
    XBZRLE = 0x040
    HOOK = 0x080  # RDMA only
    COMPRESS_PAGE = 0x100  # until 9.0
    MULTIFD_FLUSH = 0x200  # since 8.1


@record
class FileHeader(Record):
    """The first 8 bytes of a stream."""

    magic: Annotated[int, Fixed("I", default=QEMU_VM_FILE_MAGIC, constant="QEMU_VM_FILE_MAGIC")]
    version: Annotated[int, Fixed("I", default=QEMU_VM_FILE_VERSION, constant="QEMU_VM_FILE_VERSION")]


@record
class ItemType(Record):
    """The first byte of each item; :data:`ITEM_RECORDS` has the record that follows it."""

    section_type: Annotated[int, Fixed("B", SectionType)]


@record
class SectionHeader(Record):
    """After the type byte of START and FULL; also names a device for the whole stream."""

    section_id: be32
    idstr: str8
    instance_id: be32
    version_id: be32


@record
class SectionReference(Record):
    """After the type byte of PART and END: the id of an earlier START."""

    section_id: be32


@record
class SectionFooter(Record):
    """Ends START, PART, END and FULL unless ``migration.send-section-footer`` is off for the whole stream."""

    marker: Annotated[int, Fixed("B", default=QEMU_VM_SECTION_FOOTER, constant="QEMU_VM_SECTION_FOOTER")]
    section_id: be32


@record
class Subsection(Record):
    """The header of a subsection inside a body; ``marker`` is QEMU_VM_SUBSECTION. It has no footer."""

    marker: Annotated[int, Fixed("B", SectionType, SectionType.QEMU_VM_SUBSECTION)]
    idstr: str8
    version_id: be32


@record
class CommandHeader(Record):
    """After the type byte of a command; ``length`` bytes follow (and for PACKAGED, a payload after them)."""

    cmd: Annotated[int, Fixed("H", Command)]
    length: Annotated[int, Fixed("H", counts=FOLLOWING)]


@record
class VmDescriptionHeader(Record):
    """The type byte and length before the vmdesc JSON."""

    section_type: Annotated[int, Fixed("B", SectionType, SectionType.QEMU_VM_VMDESCRIPTION)]
    length: Annotated[int, Fixed("I", counts=FOLLOWING)]


@record
class Ping(Record):
    """Payload of MIG_CMD_PING: the number that the PONG of the return path repeats."""

    value: be32


@record
class PostcopyAdvise(Record):
    """Payload of MIG_CMD_POSTCOPY_ADVISE when postcopy-ram is on: the OR of all block page sizes, the target's."""

    ram_pagesize_summary: be64
    target_page_size: be64


@record
class PostcopyRamDiscard(Record):
    """Payload of MIG_CMD_POSTCOPY_RAM_DISCARD: ``ranges`` has pairs of start and length, in bytes of the RAM block."""

    version: u8
    idstr: str8
    end_of_name: u8
    ranges: Annotated[tuple[int, ...], ListOf(Fixed("Q"), None)]


@record
class PackageLength(Record):
    """Payload of MIG_CMD_PACKAGED: the bytes of the items after it that are one package."""

    package_length: be32


@record
class RecvBitmapRequest(Record):
    """Payload of MIG_CMD_RECV_BITMAP: the RAM block whose bitmap is asked for."""

    idstr: str8


ITEM_RECORDS: dict[SectionType, type[Record]] = {
    SectionType.QEMU_VM_SECTION_START: SectionHeader,
    SectionType.QEMU_VM_SECTION_PART: SectionReference,
    SectionType.QEMU_VM_SECTION_END: SectionReference,
    SectionType.QEMU_VM_SECTION_FULL: SectionHeader,
    SectionType.QEMU_VM_COMMAND: CommandHeader,
}
"""The record after an :class:`ItemType`; EOF has none, and the configuration has its own module."""

COMMAND_RECORDS: dict[Command, type[Record]] = {
    Command.MIG_CMD_PING: Ping,
    Command.MIG_CMD_POSTCOPY_ADVISE: PostcopyAdvise,
    Command.MIG_CMD_POSTCOPY_RAM_DISCARD: PostcopyRamDiscard,
    Command.MIG_CMD_PACKAGED: PackageLength,
    Command.MIG_CMD_RECV_BITMAP: RecvBitmapRequest,
}
"""The payload of a command; the others have none."""


@record
class RamBlockHeader(Record):
    """One RAM block of the MEM_SIZE list: ``used_length`` in bytes."""

    idstr: str8
    used_length: be64


@record
class RamBlockPageSize(Record):
    """Follows a RAM block's length after a POSTCOPY_ADVISE if the block has other pages than the target: in bytes."""

    block_page_size: be64


@record
class RamBlockAddress(Record):
    """Follows a RAM block's length when the capability x-ignore-shared is on: its guest-physical address."""

    mr_addr: be64


@record
class MappedRamHeader(Record):
    """Follows a RAMBlock's length when the capability mapped-ram is on; offsets are absolute in the file."""

    version: Annotated[int, Fixed("I", default=1, constant="MAPPED_RAM_HDR_VERSION")]
    page_size: Annotated[int, Fixed("Q", default=4096)]
    bitmap_offset: be64
    pages_offset: be64


PAGE_KINDS = (RamSaveFlag.ZERO, RamSaveFlag.PAGE, RamSaveFlag.XBZRLE, RamSaveFlag.COMPRESS_PAGE)
"""The flags of a record with a page, without CONTINUE."""


def _kind(ram: Any) -> int:
    return int(ram.flags) & ~int(RamSaveFlag.CONTINUE)


def _of_kind(kind: RamSaveFlag) -> Any:
    return lambda ram: _kind(ram) == kind


def _named(ram: Any) -> bool:
    return int(ram.flags) in PAGE_KINDS


_ENCODING = Fixed("B", default=1, constant="ENCODING_FLAG_XBZRLE")


@record
class RamRecord(Record):
    """A record of a ``ram`` body: a word, and what its flags announce.

    ``addr`` is a byte offset in a RAM block, or with MEM_SIZE the bytes of all of them, whose :class:`RamBlockHeader`
    records follow. A page without CONTINUE names its block. For another target page size use :meth:`variant`.
    """

    addr: Annotated[int, PageOffset()]
    flags: Annotated[int, PageFlags(RamSaveFlag, RamSaveFlag.EOS)]
    idstr: Annotated[str | None, When(_named, Str8())]
    fill: Annotated[int | None, When(_of_kind(RamSaveFlag.ZERO), Fixed("B"))]
    page: Annotated[bytes | None, When(_of_kind(RamSaveFlag.PAGE), Blob(lambda ram: ram.PAGE_SIZE))]
    encoding: Annotated[int | None, When(_of_kind(RamSaveFlag.XBZRLE), _ENCODING)]
    xbzrle_length: Annotated[int | None, When(_of_kind(RamSaveFlag.XBZRLE), Fixed("H", counts="xbzrle"))]
    xbzrle: Annotated[bytes | None, When(_of_kind(RamSaveFlag.XBZRLE), Blob(lambda ram: ram.xbzrle_length))]
    zlib_length: Annotated[int | None, When(_of_kind(RamSaveFlag.COMPRESS_PAGE), Fixed("I", counts="zlib"))]
    zlib: Annotated[bytes | None, When(_of_kind(RamSaveFlag.COMPRESS_PAGE), Blob(lambda ram: ram.zlib_length))]
