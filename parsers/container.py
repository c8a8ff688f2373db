"""Containers of a stream, recognised by their first bytes.

Sources: ``src/qemu/qemu_saveimage.h`` of libvirt, ``docs/interop/qcow2.txt`` of QEMU, the formats' own documents.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["MULTIFD", "SKIPPABLE", "ContainerKind", "Magic", "recognise"]

MULTIFD = "a multifd channel"
SKIPPABLE = b"\x2a\x4d\x18"
"""The last three bytes of the magic of a skippable frame of lz4 or zstd; the first is 0x50 to 0x5f."""


class ContainerKind(StrEnum):
    """How to get the stream out; ``OTHER`` is recognised but not supported."""

    SAVE_IMAGE = "libvirt"
    QCOW2 = "qcow2"
    PACKED = "packed"
    CAPTURE = "capture"
    OTHER = "other"


class Magic(NamedTuple):
    """A container: its first bytes, its name, and for a compressed file the program (none: skippable frames)."""

    magic: bytes
    what: str
    kind: ContainerKind
    packer: str = ""


MAGICS: tuple[Magic, ...] = (
    Magic(b"LibvirtQemudSave", "a libvirt save image", ContainerKind.SAVE_IMAGE),
    Magic(b"LibvirtQemudPart", "an unfinished libvirt save image", ContainerKind.SAVE_IMAGE),
    Magic(b"QFI\xfb", "a qcow2 image", ContainerKind.QCOW2),
    Magic(b"\x1f\x8b", "gzip compression", ContainerKind.PACKED, "gzip"),
    Magic(b"BZh", "bzip2 compression", ContainerKind.PACKED, "bzip2"),
    Magic(b"\xfd7zXZ\x00", "xz compression", ContainerKind.PACKED, "xz"),
    Magic(b"\x28\xb5\x2f\xfd", "zstd compression", ContainerKind.PACKED, "zstd"),
    Magic(b"\x04\x22\x4d\x18", "lz4 compression", ContainerKind.PACKED, "lz4"),
    Magic(b"\x89LZO\x00\r\n\x1a\n", "lzop compression", ContainerKind.PACKED, "lzop"),
    # Legacy frames: of the Linux kernel's image, and of `lz4 -l`.
    Magic(b"\x02\x21\x4c\x18", "the legacy format of lz4 (lz4 -l)", ContainerKind.OTHER),
    # A zstd or an lz4 file may begin with frames to be skipped (pzstd's do): what follows them says which it is.
    *(Magic(bytes([first]) + SKIPPABLE, "skippable frames", ContainerKind.PACKED) for first in range(0x50, 0x60)),
    Magic(b"\xa1\xb2\xc3\xd4", "a pcap capture", ContainerKind.CAPTURE),
    Magic(b"\xd4\xc3\xb2\xa1", "a pcap capture", ContainerKind.CAPTURE),
    Magic(b"\xa1\xb2\x3c\x4d", "a pcap capture", ContainerKind.CAPTURE),
    Magic(b"\x4d\x3c\xb2\xa1", "a pcap capture", ContainerKind.CAPTURE),
    Magic(b"\x0a\x0d\x0d\x0a", "a pcapng capture", ContainerKind.CAPTURE),
    Magic(b"\x11\x22\x33\x44\x00\x00\x00\x01", MULTIFD, ContainerKind.OTHER),
    Magic(b"LUKS\xba\xbe", "a LUKS container", ContainerKind.OTHER),
    Magic(b"QED\0", "a QED image", ContainerKind.OTHER),
    Magic(b"KDMV", "a VMDK image", ContainerKind.OTHER),
    Magic(b"vhdxfile", "a VHDX image", ContainerKind.OTHER),
    Magic(b"QCPR", "CPR state (cpr-transfer, cpr-exec)", ContainerKind.OTHER),
)


def recognise(head: bytes) -> Magic | None:
    """Return the container that starts with ``head`` (16 bytes are enough), or None if it is none."""
    return next((magic for magic in MAGICS if head.startswith(magic.magic)), None)
