"""The header of a libvirt save image (``virsh save``; libvirt: ``src/qemu/qemu_saveimage.h``).

Six words in the byte order of the host that wrote them, then the domain's XML, a cookie and padding, then the stream,
compressed as the header says. With the format ``sparse`` QEMU wrote a mapped-ram stream whose offsets count from the
start of the whole image.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated

from qmigtool.errors import LimitError, StreamError, UnsupportedError
from qmigtool.parsers.record import Blob, Fixed, Record, record
from qmigtool.parsers.window import Window

if TYPE_CHECKING:
    from qmigtool.parsers.vmstate import Bytes

__all__ = [
    "FORMAT_OFFSET",
    "HEAD_SIZE",
    "MAX_DATA",
    "SAVE_IMAGE_MAGIC",
    "SAVE_IMAGE_PARTIAL",
    "SECTION",
    "SaveFormat",
    "SaveImage",
    "SaveImageHeader",
    "data_length",
    "format_word",
    "read_save_image",
]

SAVE_IMAGE_MAGIC = b"LibvirtQemudSave"
SAVE_IMAGE_PARTIAL = b"LibvirtQemudPart"
HEAD_SIZE = 92
FORMAT_OFFSET = 28
MAX_DATA = 64 << 20  # of XML; a domain's has some 10 KiB, and 64 KiB to grow
SECTION = "libvirt save image"


class SaveFormat(IntEnum):
    """The compression of the stream after the header (``virQEMUSaveFormat``)."""

    RAW = 0
    GZIP = 1
    BZIP2 = 2
    XZ = 3
    LZOP = 4
    ZSTD = 5
    SPARSE = 6


@record
class SaveImageHeader(Record):
    """The first 92 bytes (``virQEMUSaveHeader``); integers in the byte order of the host that wrote them.

    ``data_length`` bytes follow: the XML, and the cookie from ``cookie_offset`` on, if that is not 0.
    """

    magic: Annotated[bytes, Blob(16)]
    version: Annotated[int, Fixed("I", default=2, order="host")]
    data_length: Annotated[int, Fixed("I", order="host")]
    was_running: Annotated[int, Fixed("I", order="host")]
    format: Annotated[int, Fixed("I", SaveFormat, order="host")]
    cookie_offset: Annotated[int, Fixed("I", order="host")]
    unused: Annotated[bytes, Blob(56)]


@dataclass(frozen=True, slots=True)
class SaveImage:
    """The header: ``stream_offset`` is where the stream starts in the image, in bytes; ``xml`` and ``cookie`` are raw.

    ``complete`` is False for an image that libvirt did not finish. Version 1 has no formats.
    """

    version: int
    complete: bool
    was_running: bool
    format: SaveFormat
    stream_offset: int
    xml: bytes
    cookie: bytes | None


def read_save_image(source: Bytes) -> SaveImage:
    """Read the header; raises :class:`~qmigtool.errors.StreamError` or a subclass if it breaks the format."""
    head = bytes(source.view(0, HEAD_SIZE))
    header = _header(head)
    version, length, form, cookie_offset = header.version, header.data_length, header.format, header.cookie_offset
    if version not in (1, 2):
        raise StreamError(f"version {version}", offset=16, section=SECTION, expected="1 or 2")
    data_length(source)
    if version == 1:
        form, cookie_offset = 0, 0
    if form not in set(SaveFormat):
        raise UnsupportedError(f"the save image format {form}", offset=28, section=SECTION)
    if cookie_offset > length:
        raise StreamError(f"a cookie at {cookie_offset}", offset=32, section=SECTION, expected=f"inside {length} bytes")
    data = bytes(source.view(HEAD_SIZE, length))
    cookie = data[cookie_offset:].split(b"\0", 1)[0] if cookie_offset else None
    return SaveImage(
        version,
        head.startswith(SAVE_IMAGE_MAGIC),
        bool(header.was_running),
        SaveFormat(form),
        HEAD_SIZE + length,
        data.split(b"\0", 1)[0],
        cookie,
    )


def data_length(source: Bytes) -> int:
    """Return the length of what is between the first 92 bytes and the stream; :class:`~qmigtool.errors.StreamError`."""
    found = _header(bytes(source.view(0, HEAD_SIZE))).data_length
    if found > MAX_DATA:
        raise LimitError(f"{found} bytes of XML", offset=20, section=SECTION, expected=f"at most {MAX_DATA}")
    return found


def _header(head: bytes) -> SaveImageHeader:
    return SaveImageHeader.variant(BYTE_ORDER=byte_order(head)).parse(Window(head, final=True), 0)[0]


def byte_order(head: bytes) -> str:
    """Return the byte order of the header in these bytes, as in the struct module."""
    # The other byte order: a version is a small number.
    return ">" if struct.unpack_from("<I", head, 16)[0] > 0xFFFF else "<"


def format_word(source: Bytes, form: SaveFormat) -> bytes:
    """Return the word at :data:`FORMAT_OFFSET` with the stream's compression, in the byte order of the header."""
    return struct.pack(f"{byte_order(bytes(source.view(0, HEAD_SIZE)))}I", form)
