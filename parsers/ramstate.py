"""The state of one RAM channel between its records: blocks, the current block, counts, runs.

:class:`RamState` is what the records of a channel need from earlier ones, and what their walk
(:class:`~qmigtool.parsers.ram.RamBody`) leaves: pages counted by kind, runs if they are kept, and the problems that did
not stop it.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from qmigtool.errors import LimitError, StreamError
from qmigtool.parsers.ramruns import MAX_PAGES, RunTable
from qmigtool.parsers.record import decode_name, encode_name
from qmigtool.parsers.records import MappedRamHeader, PostcopyAdvise, RamSaveFlag

__all__ = ["LOST", "RamBlock", "RamState"]

LOST = 0x800  # in the place of a record's flags: pages that a hole may have written

MAX_BLOCKS = 65_536  # a machine with every PCI slot full has hundreds
MAX_PROBLEMS = 100  # reported one by one: a hostile stream has one in every ten bytes
SLOW = 8  # steps of a record that is walked by calls: an XBZRLE or compressed page, the first of a section

# Plain numbers: an IntFlag's operators cost more than all other work on a page.
PAGE_KINDS = tuple(
    int(flag) for flag in (RamSaveFlag.ZERO, RamSaveFlag.PAGE, RamSaveFlag.XBZRLE, RamSaveFlag.COMPRESS_PAGE)
)


@dataclass(frozen=True, slots=True)
class RamBlock:
    """A RAM block as the ``ram`` START section lists it; sizes in bytes.

    ``page_size`` is set when postcopy announced blocks of another page size, ``mr_addr`` (a guest-physical address)
    with the capability x-ignore-shared, ``mapped`` with the capability mapped-ram.
    """

    idstr: str
    used_length: int
    offset: int
    page_size: int | None = None
    mr_addr: int | None = None
    mapped: MappedRamHeader | None = None


@dataclass(slots=True)
class _Left:
    """The state of a block after a DISCARD: at most ``pages``, with ``walked`` sent and ``discarded`` discarded."""

    pages: int
    walked: int
    discarded: int = 0


@dataclass(slots=True)
class RamState:
    """The state that the records of one channel need from earlier ones."""

    page_size: int
    capabilities: frozenset[str] = frozenset()
    origin: int = 0  # where the stream starts in its file: mapped-ram offsets count from the file's start
    advise: PostcopyAdvise | None = None
    blocks: list[RamBlock] = field(default_factory=list)
    current: int | None = None
    runs: RunTable | None = None
    flushes: array[int] = field(default_factory=lambda: array("Q"))  # offsets of MULTIFD_FLUSH, if runs are kept
    pages: dict[tuple[int, int], int] = field(default_factory=dict)  # (block index, flags) -> pages
    problems: list[StreamError] = field(default_factory=list)  # the owner may remove them
    by_name: dict[str, int] = field(default_factory=dict)
    by_raw_name: dict[bytes, int] = field(default_factory=dict)  # the same, by the name's bytes on the wire
    steps: int = 0  # the cost of walking so far: a run of any length is one
    _left: dict[int, _Left] = field(default_factory=dict)
    _noted: int = 0
    _more: StreamError | None = None

    def add_block(self, block: RamBlock) -> None:
        """Append a block of the MEM_SIZE list."""
        if block.idstr in self.by_name:
            raise StreamError(f"RAM block {block.idstr!r} is listed twice", offset=block.offset, section="ram")
        if len(self.blocks) >= MAX_BLOCKS:
            raise LimitError(f"more than {MAX_BLOCKS} RAM blocks", offset=block.offset, section="ram")
        self.by_name[block.idstr] = self.by_raw_name[encode_name(block.idstr)] = len(self.blocks)
        self.blocks.append(block)

    def note(self, problem: StreamError) -> None:
        """Add an error that does not stop reading to ``problems``; after MAX_PROBLEMS, one that counts the others."""
        self._noted += 1
        if self._noted <= MAX_PROBLEMS:
            self.problems.append(problem)
            return
        if self._more is None:
            self._more = StreamError("", section="ram")
            self.problems.append(self._more)
        # Changed in place: it may have been removed already.
        self._more.message = f"and {self._noted - MAX_PROBLEMS} more problems in RAM records"

    def discard(self, payload: bytes, offset: int) -> None:
        """Apply MIG_CMD_POSTCOPY_RAM_DISCARD: these ranges are discarded and sent again.

        ``payload``: u8 version 0, str8 block, u8 0, then pairs of be64 start and be64 length in bytes. Errors
        in it are recorded, not raised: the framing is intact, and the following items can be read.
        """
        name_end = 2 + payload[1] if len(payload) > 1 else 0
        ranges = payload[name_end + 1 :]
        index = self.by_name.get(decode_name(payload[2:name_end]))
        if index is None or payload[:1] != b"\0" or payload[name_end : name_end + 1] != b"\0" or len(ranges) % 16:
            self.note(
                StreamError(
                    f"POSTCOPY_RAM_DISCARD of {len(payload)} bytes: {payload[:24].hex(' ')}",
                    offset=offset,
                    section="ram",
                    expected="version 0, a listed RAM block, pairs of 16 bytes",
                )
            )
            return
        for at in range(0, len(ranges), 16):
            start, length = (int.from_bytes(ranges[at + i : at + i + 8], "big") for i in (0, 8))
            if start + length > self.blocks[index].used_length or (start | length) & (self.page_size - 1):
                self.note(
                    StreamError(
                        f"discarded range {start:#x}+{length:#x}",
                        offset=offset,
                        section="ram",
                        expected=f"whole pages below {self.blocks[index].used_length:#x}",
                    )
                )
                return
            pages = length // self.page_size
            if pages > MAX_PAGES:
                self.note(
                    LimitError(
                        f"{pages} pages discarded at once",
                        offset=offset,
                        section="ram",
                        expected=f"at most {MAX_PAGES}",
                    )
                )
                return
            self._forget(index, pages)
            if self.runs is not None and pages:
                self.runs.add(offset, 0, index, start, pages, 0, 0, 0)

    def lose(self, offset: int, block: int, addr: int) -> None:
        """Record that a page was sent in a hole of the stream at ``offset``: what it has now is unknown."""
        self._forget(block, 1)
        if self.runs is not None:
            self.runs.add(offset, LOST, block, addr, 1, 0, 0, 0)

    def lose_all(self, offset: int) -> None:
        """Record that any page may have been sent again in a hole of the stream at ``offset``."""
        for index, block in enumerate(self.blocks):
            if self.left_out(index) or self._mapped(block):
                continue
            pages = min(self._pages_of(index), MAX_PAGES)
            self._forget(index, pages)
            if self.runs is not None:
                self.runs.add(offset, LOST, index, 0, pages, 0, 0, 0)

    def held(self) -> tuple[int, int]:
        """Return the maximum number of pages in this channel, and the total number of pages.

        The counts are enough, no runs are needed: a page sent twice may hide one that was never sent, so the
        first number may be too large. If it is below the second, pages are certainly missing: they are in another
        channel (multifd, postcopy preempt), or the stream is truncated. Shared blocks that are not in the stream
        (x-ignore-shared) are in neither number.
        """
        held = total = 0
        for index, block in enumerate(self.blocks):
            if self.left_out(index):
                continue
            pages = self._pages_of(index)
            total += pages
            held += pages if self._mapped(block) else self._most(index, self._walked(index))
        return held, total

    def left_out(self, index: int) -> bool:
        """Return whether a block is shared memory that is not in the stream (x-ignore-shared)."""
        block = self.blocks[index]
        return block.mr_addr is not None and not self._walked(index) and not self._mapped(block)

    @staticmethod
    def _mapped(block: RamBlock) -> bool:
        return block.mapped is not None and block.mapped.pages_offset != 0

    def _forget(self, index: int, pages: int) -> None:
        """Lower the block's maximum: all pages that are not discarded may have been sent, but no more than were."""
        walked = self._walked(index)
        left = self._left.get(index)
        if left is None or left.walked != walked:
            left = self._left[index] = _Left(self._most(index, walked), walked)
        left.discarded += pages
        left.pages = max(0, min(left.pages, self._pages_of(index) - left.discarded))

    def _most(self, index: int, walked: int) -> int:
        left = self._left.get(index)
        sent = walked if left is None else left.pages + walked - left.walked
        return min(sent, self._pages_of(index))

    def _pages_of(self, index: int) -> int:
        return -(-self.blocks[index].used_length // self.page_size)

    def _walked(self, index: int) -> int:
        """Return the pages walked of a block, counting repeated ones."""
        return sum(self.pages.get((index, kind), 0) for kind in PAGE_KINDS)

    def count(self, block: int, pages: dict[int, int]) -> None:
        """Count pages of a block, by their kind."""
        for kind, found in pages.items():
            if found:
                self.pages[block, kind] = self.pages.get((block, kind), 0) + found

    def add_page(self, offset: int, kind: int, block: int, addr: int, head: int, payload: int, fill: int) -> None:
        """Count one record, and keep it if runs are kept."""
        self.pages[block, kind] = self.pages.get((block, kind), 0) + 1
        self.steps += SLOW
        if self.runs is not None:
            self.runs.add(offset, kind, block, addr, 1, head, payload, fill)
