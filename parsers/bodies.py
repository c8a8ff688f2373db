"""Section bodies whose end is not found by reading records, but from a description or by a search.

A body is anything with ``advance(window, pos) -> (reached, ended)``; :class:`~qmigtool.parsers.ram.RamBody` is another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from qmigtool.errors import LimitError, StreamError, TruncatedError, UnsupportedError
from qmigtool.parsers.records import QEMU_VM_FILE_MAGIC, QEMU_VM_SECTION_FOOTER, Command, SectionFooter, SectionType
from qmigtool.parsers.window import NeedMoreData

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from qmigtool.parsers.records import SectionHeader
    from qmigtool.parsers.window import Window

    # (header, bytes from the body's start on, whether a body may end after that many bytes) -> length, or None
    Measure = Callable[[SectionHeader, memoryview, Callable[[int], bool]], int | None]

__all__ = ["FOOTER_SIZE", "Body", "DescribedBody", "MeasuredBody", "SearchedBody", "footer_of", "headless", "plausible"]

MAX_ID = 1 << 20  # of a section; a machine has thousands, and four letters are more
MAX_SEARCH = 64 << 20  # the largest device state seen is a display's, of some MB
FOOTER_SIZE = 5
_CHUNK = 1 << 16


def footer_of(section_id: int) -> bytes:
    """Return the five bytes that end a section."""
    return SectionFooter(QEMU_VM_SECTION_FOOTER, section_id).build()


class Body(Protocol):
    """Walks a section body wherever its bytes are; ``measured`` is how its end is found."""

    @property
    def measured(self) -> str:
        """Where the end comes from: ``records``, ``vmdesc`` or ``footer search``."""
        ...

    def advance(self, window: Window, pos: int) -> tuple[int, bool]:
        """Continue from ``pos``; return the offset reached and whether the body ends there."""
        ...


class DescribedBody:
    """A body whose end is in the vmdesc; if there is no footer there, the description is wrong and ``search`` decides.

    Wrong descriptions occur: before QEMU 11, an array of pointers with NULLs among them (s390x ``css``) is described
    by its first element. ``search`` is None where the stream has no footers.
    """

    def __init__(self, end: int, footer: bytes, search: SearchedBody | None) -> None:
        self.end = end
        self._footer = footer
        self._search = search
        self.measured = "vmdesc"

    def advance(self, window: Window, pos: int) -> tuple[int, bool]:
        """Go to the end at once."""
        if self._search is None:
            window.need(pos, self.end - pos, "a device section that the vmdesc describes")
            return self.end, True
        if self.measured == "vmdesc":
            try:
                if window.view(self.end, len(self._footer), "a footer") == self._footer:
                    return self.end, True
            except TruncatedError:
                pass
            self.measured = self._search.measured
        return self._search.advance(window, pos)


class SearchedBody:
    """A body that ends at the first footer of its section after which the stream plausibly continues.

    The footer's five bytes can occur in a body by chance, so what follows is checked too: the end of the stream or
    of the package, EOF with a vmdesc, a section header with a printable name, a PART or END of a started section, or a
    known command. The last section may be followed by EOF and any bytes (padding, garbage, the rest of another
    stream); that is accepted if the search finds nothing better, or if ``fits`` confirms that a body of this
    section has this length.
    """

    measured = "footer search"

    def __init__(
        self,
        section_id: int,
        body_offset: int,
        started: Container[int],
        package_end: int | None = None,
        fits: Callable[[memoryview], bool] | None = None,
    ) -> None:
        self._needle = footer_of(section_id)
        self._body_offset = body_offset
        self._search_from = body_offset
        self._started = started
        self._package_end = package_end
        self._fits = fits
        self._last: int | None = None  # position of a footer followed by a bare EOF
        # The searched bytes are copied once, however many false footers they contain.
        self._chunk = b""
        self._chunk_at = body_offset

    def advance(self, window: Window, pos: int) -> tuple[int, bool]:
        """Continue the search; the position stays at the body's start until its end is found."""
        while True:
            try:
                at = self._find(window)
            except StreamError:
                if self._last is None:
                    raise
                return self._last, True
            behind = at + FOOTER_SIZE
            if self._plausible(window, behind):
                return self._last if self._last is not None and self._whole(window, self._last) else at, True
            if (
                self._last is None
                and self._package_end is None
                and window.u8(behind, "an item") == SectionType.QEMU_VM_EOF
            ):
                self._last = at
            self._search_from = at + 1

    def _find(self, window: Window) -> int:
        while True:
            at = self._search_from
            if at - self._body_offset > MAX_SEARCH:
                raise LimitError(
                    f"no footer in {MAX_SEARCH} bytes", offset=self._body_offset, expected=self._needle.hex(" ")
                )
            found = self._chunk.find(self._needle, at - self._chunk_at)
            if found >= 0:
                return self._chunk_at + found
            at = self._search_from = max(at, self._chunk_at + len(self._chunk) - FOOTER_SIZE + 1)
            if window.final and at + FOOTER_SIZE > window.end:
                raise self._cut(window)
            window.need(at, FOOTER_SIZE, "a device section")
            self._chunk = window.bytes(at, min(_CHUNK, window.end - at), "a device section")
            self._chunk_at = at

    def _cut(self, window: Window) -> TruncatedError:
        """Return the error of an input that ends before the footer, with the number of bytes present."""
        there = window.end - self._body_offset
        last = window.bytes(window.end - min(there, FOOTER_SIZE - 1), min(there, FOOTER_SIZE - 1), "a device section")
        begun = max(n for n in range(FOOTER_SIZE) if last.endswith(self._needle[:n]))
        of_it = f"of which the first {begun} may be present" if begun else "of which no byte is present"
        return TruncatedError(
            f"the stream ends here, {there} bytes into the body of a section",
            offset=window.end,
            expected=f"the footer {self._needle.hex(' ')} after the body, {of_it}",
        )

    def _whole(self, window: Window, end: int) -> bool:
        """Return whether the bytes before ``end`` are known to be a complete body of this section."""
        body = window.view(self._body_offset, end - self._body_offset, "a device section")
        return self._fits is not None and self._fits(body)

    def _plausible(self, window: Window, pos: int) -> bool:
        return pos == self._package_end or plausible(window, pos, self._started)


class MeasuredBody:
    """A body without footer or description: only its bytes show where it ends.

    ``measure`` proposes an end, and ``ends(length)`` returns whether the stream plausibly continues there.
    """

    measured = "schema"

    def __init__(self, header: SectionHeader, measure: Measure, started: Container[int]) -> None:
        self._header = header
        self._measure = measure
        self._started = started

    def advance(self, window: Window, pos: int) -> tuple[int, bool]:
        """Find the end; needs the rest of the stream."""
        if not window.final:
            raise NeedMoreData
        data = window.view(pos, min(window.end - pos, MAX_SEARCH), "a device section")
        length = self._measure(self._header, data, lambda at: plausible(window, pos + at, self._started))
        if length is None:
            raise UnsupportedError(
                "device state with neither footers nor a vmdesc",
                f"the length of section {self._header.idstr!r} is unknown: no footers, no vmdesc, no schema that fits",
                offset=pos,
                section=self._header.idstr,
            )
        return pos + length, True


def plausible(window: Window, pos: int, started: Container[int]) -> bool:
    """Return whether the stream plausibly continues (or ends) at ``pos``."""
    if window.at_end(pos):
        return True
    try:
        return _item_at(window, pos, started)
    except TruncatedError:
        return False


def _item_at(window: Window, pos: int, started: Container[int]) -> bool:
    kind = window.u8(pos, "an item")
    if kind == SectionType.QEMU_VM_EOF:
        return (
            window.at_end(pos + 1)
            or (
                window.u8(pos + 1, "a vmdesc") == SectionType.QEMU_VM_VMDESCRIPTION
                and window.u8(pos + 6, "a vmdesc") == ord("{")
            )
            or window.be32(pos + 1, "another stream") == QEMU_VM_FILE_MAGIC
        )
    if kind in (SectionType.QEMU_VM_SECTION_START, SectionType.QEMU_VM_SECTION_FULL):
        return _named(window, pos + 1)
    if kind in (SectionType.QEMU_VM_SECTION_PART, SectionType.QEMU_VM_SECTION_END):
        return window.be32(pos + 1, "a section id") in started
    if kind == SectionType.QEMU_VM_COMMAND:
        return Command.MIG_CMD_INVALID < window.be16(pos + 1, "a command") <= Command.MIG_CMD_SWITCHOVER_START
    return False


def headless(window: Window, pos: int, unfinished: Container[int]) -> bool:
    """Return whether a section is at ``pos`` except for its type byte; ``unfinished`` are live ones without an END."""
    try:
        section_id = window.be32(pos, "a section id")
        return section_id in unfinished or (section_id < MAX_ID and _named(window, pos))
    except TruncatedError:
        return False


def _named(window: Window, pos: int) -> bool:
    """Return whether a section's id, printable name, instance and version may be at ``pos``."""
    length = window.u8(pos + 4, "a name")
    name = window.bytes(pos + 5, length, "a name")
    window.need(pos + 5 + length, 8, "a section header")
    return length > 0 and all(0x20 <= byte < 0x7F for byte in name)
