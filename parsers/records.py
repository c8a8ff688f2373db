"""The wire records of a migration stream, each declared once.

Numbers are big-endian. The names of constants are QEMU's own, so that a search finds them in both worlds. Sources:
``migration/savevm.c`` (framing), ``migration/ram.c`` (RAM flags, mapped-ram header), ``migration/savevm.c`` again for
``enum qemu_vm_cmd``; checked on real streams of QEMU 5.2 to 11.1.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from qmigtool.parsers.record import Record, be16, be32, be64, record, str8, u8

QEMU_VM_FILE_MAGIC = 0x5145564D  # "QEVM"
QEVM = QEMU_VM_FILE_MAGIC.to_bytes(4, "big")
"""The first bytes of a stream."""
QEMU_VM_FILE_VERSION = 3
QEMU_VM_FILE_VERSION_COMPAT = 2  # obsolete since 2009; recognised to name it in the error

QEMU_VM_SECTION_FOOTER = 0x7E


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

    magic: be32
    version: be32


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

    marker: u8
    section_id: be32


@record
class Subsection(Record):
    """The header of a subsection inside a body; ``marker`` is QEMU_VM_SUBSECTION. It has no footer."""

    marker: u8
    idstr: str8
    version_id: be32


@record
class CommandHeader(Record):
    """After the type byte of a command; ``length`` bytes follow (and for PACKAGED, a payload after them)."""

    cmd: be16
    length: be16


@record
class VmDescriptionHeader(Record):
    """The type byte and length before the vmdesc JSON."""

    section_type: u8
    length: be32


@record
class RamBlockHeader(Record):
    """One RAM block of the MEM_SIZE list: ``used_length`` in bytes."""

    idstr: str8
    used_length: be64


@record
class PostcopyAdvise(Record):
    """Payload of MIG_CMD_POSTCOPY_ADVISE when postcopy-ram is on: the OR of all block page sizes, the target's."""

    ram_pagesize_summary: be64
    target_page_size: be64


@record
class MappedRamHeader(Record):
    """Follows a RAMBlock's length when the capability mapped-ram is on; offsets are absolute in the file."""

    version: be32
    page_size: be64
    bitmap_offset: be64
    pages_offset: be64
