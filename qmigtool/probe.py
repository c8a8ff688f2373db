"""Looks that are taken at a stream before it is read: where it starts, how large its pages are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.errors import QmigError, TruncatedError
from qmigtool.parsers.records import QEMU_VM_FILE_MAGIC, QEMU_VM_FILE_VERSION, FileHeader
from qmigtool.parsers.savevm import Reader, Type
from qmigtool.parsers.window import Window

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["PROBED", "find_start", "probe_page_size"]

CHUNK = 1 << 20
MAX_PREFIX = 1 << 30
# x86 and most others; ARM; SPARC64, Alpha, OpenRISC; TriCore; Hexagon; AVR
PAGE_SIZES = (4096, 1024, 8192, 16384, 65536, 256)
PROBED = 16 << 20  # bytes looked at


def probe_page_size(source: BufferSource, start: int) -> int | None:
    """Find the target page size of a stream that says it nowhere: with a wrong one, RAM soon has impossible flags.

    ``start`` is where the stream starts. Returns None if it does say it (configuration/target-page-bits), or if none
    fits.
    """
    for page_size in PAGE_SIZES:
        probe = Reader(Window(source.whole[: start + PROBED], final=True), page_size=page_size, start=start)
        try:
            for section in probe.sections():
                if section.type is Type.PART and section.length > page_size:
                    break
        except TruncatedError:
            pass
        except QmigError as error:
            if error.section == "ram":
                continue
        configuration = probe.configuration
        return None if configuration is not None and configuration.page_size else page_size
    return None


def find_start(source: BufferSource) -> int:
    """Return where the stream starts: 0, or behind a hole (``migrate file:PATH,offset=N``)."""
    magic = FileHeader(QEMU_VM_FILE_MAGIC, QEMU_VM_FILE_VERSION).build()
    whole = source.whole
    first = source.first_data() // CHUNK * CHUNK  # a hole need not be read
    for at in range(first, min(len(whole), first + MAX_PREFIX), CHUNK):
        chunk = bytes(whole[at : at + CHUNK])
        skipped = len(chunk) - len(chunk.lstrip(b"\0"))
        if skipped < len(chunk):
            found = at + skipped
            return found if bytes(whole[found : found + len(magic)]) == magic else 0
    return 0
