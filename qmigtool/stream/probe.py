"""Probes of a stream before it is read: where it starts, and its page size."""

from __future__ import annotations

from qmigtool.errors import QmigError, TruncatedError, UnsupportedError
from qmigtool.parsers.records import QEMU_VM_FILE_MAGIC, QEMU_VM_FILE_VERSION, FileHeader
from qmigtool.parsers.savevm import Reader
from qmigtool.parsers.section import Type
from qmigtool.parsers.source import BufferSource
from qmigtool.parsers.window import Window

__all__ = ["MAX_PREFIX", "PROBED", "Follower", "find_start", "probe_page_size"]

CHUNK = 1 << 20
MAX_PREFIX = 1 << 30
# x86 and most others; ARM; SPARC64, Alpha, OpenRISC; TriCore; Hexagon; AVR
PAGE_SIZES = (4096, 1024, 8192, 16384, 65536, 256)
PROBED = 16 << 20  # bytes looked at
MAX_FOLLOWED = 80 << 20  # bytes of one section that are buffered


def probe_page_size(source: BufferSource, start: int) -> int | None:
    """Find the page size of a stream that does not record it: with a wrong one, RAM soon has impossible flags.

    ``start`` is where the stream starts. Returns None if the stream records it (configuration/target-page-bits), or if
    no size fits.
    """
    for page_size in PAGE_SIZES:
        end = min(start + PROBED, source.holes[0][0] if source.holes else len(source.whole))
        probe = Reader(Window(source.whole[:end], final=True), page_size=page_size, start=start)
        try:
            for section in probe.sections():
                # All of RAM was read, or enough to decide.
                ended = section.type is Type.END and section.name == "ram"
                if ended or (section.type is Type.PART and section.length > page_size):
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
    """Return where the stream starts: 0, or after a hole (``migrate file:PATH,offset=N``)."""
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


class Follower:
    """Reads a stream while it is being assembled, to find where it breaks before all of it is written.

    ``failed`` is the error met while reading, or None. A section that cannot be measured this way (a device section
    without a footer) ends following without an error.
    """

    def __init__(self) -> None:
        self.failed: QmigError | None = None
        self._head: bytearray | None = bytearray()
        self._reader: Reader | None = None

    def feed(self, data: bytes | int) -> None:
        """Take the next bytes, or so many zeros."""
        if self._head is None and self._reader is None:
            return
        if isinstance(data, int):
            for left in range(data, 0, -CHUNK) if data <= MAX_PREFIX else ():
                self.feed(bytes(min(left, CHUNK)))
            if data > MAX_PREFIX:
                self._head = self._reader = None
            return
        if self._head is not None:
            self._head += data
            if len(self._head) < PROBED:
                return
            data = bytes(self._head)
            head, self._head = BufferSource(data), None
            start = find_start(head)
            self._reader = Reader(Window(), None, probe_page_size(head, start), start=start)
        self._read(data)

    def _read(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            return
        try:
            reader.feed(data)
            for _ in reader.sections():
                pass
        except UnsupportedError:
            self._reader = None
        except QmigError as error:
            self.failed, self._reader = error, None
        else:
            if len(reader.window.buf) > MAX_FOLLOWED:
                self._reader = None
