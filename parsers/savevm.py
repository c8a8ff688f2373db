"""The framing of a migration stream (QEMU: ``migration/savevm.c``), read forward.

Sans-IO: a :class:`Reader` is fed bytes, whole or in pieces of any size, and yields the spans of the stream
(:class:`~qmigtool.parsers.section.Section`); it opens no files. The strategy: a state is a method; a method reads one
item at ``self.pos`` or raises :class:`~qmigtool.parsers.window.NeedMoreData` and is called again with more bytes. Only
``ram`` bodies keep their position inside an item, because only they are large.

A device section does not contain its length. It comes from the vmdesc if that is known beforehand
(``lengths``), otherwise from a search for the footer that ends the section.

Any exception but :class:`~qmigtool.errors.QmigError` that leaves a Reader is a defect of qmigtool.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from qmigtool.errors import LimitError, QmigError, StreamError, UnsupportedError
from qmigtool.parsers.bodies import FOOTER_SIZE, DescribedBody, MeasuredBody, SearchedBody, footer_of, headless
from qmigtool.parsers.commands import read_command
from qmigtool.parsers.configuration import Configuration, parse_configuration
from qmigtool.parsers.livebodies import live_body
from qmigtool.parsers.ram import RamBody
from qmigtool.parsers.ramruns import RunTable
from qmigtool.parsers.ramstate import RamState
from qmigtool.parsers.records import (
    QEMU_VM_FILE_MAGIC,
    QEMU_VM_FILE_VERSION,
    QEMU_VM_FILE_VERSION_COMPAT,
    QEMU_VM_SECTION_FOOTER,
    Command,
    FileHeader,
    PostcopyAdvise,
    SectionHeader,
    SectionReference,
    SectionType,
    VmDescriptionHeader,
)
from qmigtool.parsers.section import Section, Type
from qmigtool.parsers.window import NeedMoreData, Window
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from qmigtool.parsers.bodies import Body, Measure

__all__ = ["MAX_VMDESC", "Reader"]

MAX_VMDESC = 64 << 20  # a pc with 64 vCPUs has 0.6 MB
DEFAULT_PAGE_SIZE = 4096
# Values of the budget: a section with a header (a machine with 4096 vCPUs has 8200) costs as much as 40 values, any
# item, such as a PART or a command, as much as 2: it takes 35 bytes of memory and 15 us, and a stream of QEMU 10.0
# with a dirty bitmap has 30,720 pairs of empty PARTs.
ITEM_OBJECTS, SECTION_OBJECTS = 2, 38


@dataclass(slots=True)
class OpenSection:
    """The section being read."""

    type: Type
    offset: int
    body_offset: int
    body: Body
    header: SectionHeader
    complete: bool = True  # False behind a hole


@dataclass(slots=True)
class Reader:
    """Reads a stream forward; see the docstring of this module.

    ``lengths(idstr, instance_id)`` returns the body length of the next device section of that name, or None.
    ``page_size`` is the target page size if it is known from elsewhere (the vmdesc). ``measure`` finds the length of a
    device section from its bytes, if the stream has neither a vmdesc nor footers. ``start`` is where the stream
    starts, if not at 0; at or after ``limit``, :meth:`sections` stops until it is called with a later one,
    and so where RAM has had ``most_runs`` runs of records.
    """

    window: Window
    lengths: Callable[[str, int], int | None] | None = None
    page_size: int | None = None
    measure: Measure | None = None
    keep_runs: bool = False

    start: int = 0
    limit: int | None = None
    most_runs: int | None = None
    pos: int = 0
    configuration: Configuration | None = None
    footers: bool | None = None
    ram: RamState = field(default_factory=lambda: RamState(DEFAULT_PAGE_SIZE))
    started: dict[int, SectionHeader] = field(default_factory=dict)
    problems: list[QmigError] = field(default_factory=list)
    done: bool = False
    _state: Callable[[], Section | None] | None = None
    _open: OpenSection | None = None
    _item: int = 0  # the start of the item being read
    _package_end: int | None = None
    _ended: set[int] = field(default_factory=set)  # ids of live sections that had their END

    def feed(self, data: Buffer) -> None:
        """Feed the next bytes; those of finished sections are dropped."""
        # Live bodies and the tail are consumed on arrival; everything else is kept until it is complete and yielded.
        open_ = self._open
        consumed = self._state == self._tail if open_ is None else open_.type is not Type.FULL
        keep = self.pos if consumed else self._item
        self.window.feed(data, keep=keep)

    def close(self) -> None:
        """End the input: no bytes will follow."""
        self.window.close()

    def sections(self) -> Iterator[Section]:
        """Yield every section that is complete in the bytes so far.

        A section's bytes are in the window until the next :meth:`feed`. Raises
        :class:`~qmigtool.errors.StreamError`, or :class:`~qmigtool.errors.UnsupportedError` for legal input that
        cannot be read; after that the reader cannot continue.
        """
        if self._state is None:
            self._state = self._prefix
        budget = current()
        while not self.done and not self._paused():
            try:
                section = self._state()
            except NeedMoreData:
                return
            except QmigError as error:
                if error.section is None and self._open is not None:
                    error.section = self._open.header.idstr
                raise
            if section is not None:
                self._item = self.pos
                budget.charge("objects", ITEM_OBJECTS, section.offset, section.name)
                yield section

    def _paused(self) -> bool:
        """Return whether a limit is reached; the caller may raise it."""
        if self.most_runs is not None and self.ram.steps >= self.most_runs:
            return True
        return self.limit is not None and self.pos >= self.limit

    def partial(self) -> Section | None:
        """Return the item that an error or the end of the input interrupted, up to the end of the window."""
        if self._item >= self.window.end:
            return None
        open_ = self._open
        if open_ is None:
            return Section(Type.UNREADABLE, self._item, self.window.end - self._item, self._item, 0, complete=False)
        return Section(
            open_.type,
            self._item,
            self.window.end - self._item,
            open_.body_offset,
            self.window.end - open_.body_offset,
            open_.header.section_id,
            open_.header.idstr,
            open_.header.instance_id,
            open_.header.version_id,
            complete=False,
        )

    # -- states: one method per place in the grammar ------------------------------------------------------------

    def _prefix(self) -> Section | None:
        self._state = self._file_header
        start, self.pos = self.pos, self.start
        return Section(Type.PREFIX, start, self.pos - start, start, self.pos - start) if self.pos > start else None

    def _file_header(self) -> Section:
        header, end = FileHeader.parse(self.window, self.pos)
        if header.magic != QEMU_VM_FILE_MAGIC:
            raise StreamError(
                f"this is not a migration stream: it starts with {header.magic:#010x}",
                offset=self.pos,
                expected=f"{QEMU_VM_FILE_MAGIC:#010x} ('QEVM')",
            )
        if header.version == QEMU_VM_FILE_VERSION_COMPAT:
            raise UnsupportedError("stream version 2 (obsolete since QEMU 0.11)", offset=self.pos + 4)
        if header.version != QEMU_VM_FILE_VERSION:
            raise StreamError(
                f"stream version {header.version}", offset=self.pos + 4, expected=str(QEMU_VM_FILE_VERSION)
            )
        self._state = self._maybe_configuration
        return self._plain(Type.HEADER, end, self.pos)

    def _maybe_configuration(self) -> Section | None:
        if not self.window.at_end(self.pos) and (
            self.window.u8(self.pos, "an item") == SectionType.QEMU_VM_CONFIGURATION
        ):
            self.configuration, end = parse_configuration(self.window, self.pos + 1)
            section = self._plain(Type.CONFIGURATION, end, self.pos + 1)
        else:
            section = None
        config = self.configuration
        page_size = config.page_size if config is not None and config.page_size else self.page_size
        self.ram.page_size = page_size or DEFAULT_PAGE_SIZE
        self.ram.capabilities = frozenset(config.capabilities) if config is not None else frozenset()
        if self.keep_runs:
            self.ram.runs = RunTable(self.ram.page_size)
        self._state = self._next_item
        return section

    def _next_item(self) -> Section | None:
        if self.pos == self._package_end:
            self._package_end = None
        kind = self.window.u8(self.pos, "the next item (the stream has no EOF byte yet)")
        reader = self._ITEMS.get(kind)
        if reader is None or (kind == SectionType.QEMU_VM_EOF and self._package_end is not None):
            raise StreamError(
                f"no item starts with {kind:#04x}",
                offset=self.pos,
                expected="START (1), PART (2), END (3), FULL (4), COMMAND (8) or EOF (0)"
                + ("" if self.footers else "; the first section had no footer, so none is expected"),
            )
        return reader(self)

    def _eof(self) -> Section:
        self._state = self._after_eof
        return self._plain(Type.EOF, self.pos + 1, self.pos + 1)

    def _start(self) -> None:
        header, body = SectionHeader.parse(self.window, self.pos + 1)
        self.started[header.section_id] = header
        self._open_section(Type.START, header, body)

    def _full(self) -> None:
        header, body = SectionHeader.parse(self.window, self.pos + 1)
        self._open_section(Type.FULL, header, body)

    def _part(self) -> None:
        self._reference(Type.PART)

    def _end(self) -> None:
        self._reference(Type.END)

    def _reference(self, type_: Type) -> None:
        reference, body = SectionReference.parse(self.window, self.pos + 1)
        header = self.started.get(reference.section_id)
        if header is None:
            raise StreamError(
                f"{type_.upper()} of section {reference.section_id}, which was never started",
                offset=self.pos,
                expected=f"one of the ids {sorted(self.started)}",
            )
        self._open_section(type_, header, body)

    def _command(self) -> Section:
        command, payload, data = read_command(self.window, self.pos)
        end = payload + len(data)
        self._inside_package(end, command.name)
        if command is Command.MIG_CMD_POSTCOPY_ADVISE and data:
            self.ram.advise, _ = PostcopyAdvise.parse(Window(data, final=True), 0)
        elif command is Command.MIG_CMD_POSTCOPY_RAM_DISCARD:
            self.ram.discard(data, payload)
            self._take_ram_problems()
        elif command is Command.MIG_CMD_PACKAGED:
            if self._package_end is not None:
                raise StreamError("a package inside a package", offset=self.pos, expected="none")
            self._package_end = end + int.from_bytes(data, "big")
        return self._plain(Type.COMMAND, end, payload, name=command.name.removeprefix("MIG_CMD_"))

    def _open_section(self, type_: Type, header: SectionHeader, body_offset: int) -> None:
        if type_ in (Type.START, Type.FULL):
            current().charge("objects", SECTION_OBJECTS, self.pos, header.idstr)
        self._open = OpenSection(type_, self.pos, body_offset, self._body(type_, header, body_offset), header)
        self.pos = body_offset
        self._state = self._in_body

    def _body(self, type_: Type, header: SectionHeader, body_offset: int) -> Body:
        # START and FULL mean the same to the loader for a device, so the name decides.
        if type_ is not Type.FULL and header.idstr == "ram":
            if header.version_id != 4:
                raise UnsupportedError(f"ram section version {header.version_id}", offset=self.pos, section="ram")
            return RamBody(self.ram)
        if type_ is not Type.FULL:
            # The vmdesc has FULL sections only; a device may also have a live section of the same name (VFIO does).
            body = live_body(header.idstr, lambda: self._search(header, body_offset))
            if body is None:
                raise UnsupportedError(
                    f"the live section {header.idstr!r} without footers", offset=self.pos, section=header.idstr
                )
            return body
        search = self._search(header, body_offset)
        length = self.lengths(header.idstr, header.instance_id) if self.lengths is not None else None
        if length is not None:
            return DescribedBody(body_offset + length, footer_of(header.section_id), search)
        if search is not None:
            return search
        if self.measure is None:
            raise UnsupportedError(
                "device state with neither footers nor a vmdesc", offset=self.pos, section=header.idstr
            )
        return MeasuredBody(header, self.measure, self.started)

    def _search(self, header: SectionHeader, body_offset: int) -> SearchedBody | None:
        """Create the search for a section's footer; None if there are no footers."""
        if self.footers is False:
            return None
        measure = self.measure

        def fits(body: memoryview) -> bool:
            return measure is not None and measure(header, body, lambda length: length == len(body)) is not None

        return SearchedBody(header.section_id, body_offset, self.started, self._package_end, fits)

    def _in_body(self) -> Section | None:
        open_ = self._open
        assert open_ is not None  # noqa: S101 - for the type checker: this state is entered with a section
        if self.window.passed is not None:
            self.window.passed(self.pos)
        current().tick(self.pos, open_.header.idstr)
        self.pos, ended = open_.body.advance(self.window, self.pos)
        if ended:
            self._state = self._footer
        return None

    def _footer(self) -> Section:
        open_ = self._open
        assert open_ is not None  # noqa: S101 - as above
        header, body_end = open_.header, self.pos
        if self.footers is None:
            # Decided once: footers are a property of the stream, not of a section.
            self.window.need(self.pos, 1, "a section footer or the next item")
            self.footers = self.window.u8(self.pos, "a footer") == QEMU_VM_SECTION_FOOTER
        end = body_end
        if self.footers:
            end = body_end + FOOTER_SIZE
            raw = self.window.bytes(body_end, FOOTER_SIZE, "a section footer")
            footer = footer_of(header.section_id)
            if raw != footer:
                raise StreamError(
                    f"no footer of section {header.section_id} here, but {raw.hex(' ')}",
                    offset=body_end,
                    section=header.idstr,
                    expected=footer.hex(" "),
                )
        self._take_ram_problems()
        if open_.type is Type.END:
            self._ended.add(header.section_id)
        self._open = None
        self.pos = end
        self._state = self._next_item
        self._inside_package(end, header.idstr)
        return Section(
            open_.type,
            open_.offset,
            end - open_.offset,
            open_.body_offset,
            body_end - open_.body_offset,
            header.section_id,
            header.idstr,
            header.instance_id,
            header.version_id,
            open_.body.measured,
            open_.complete,
        )

    def _take_ram_problems(self) -> None:
        """Take over the problems that did not stop reading RAM."""
        self.problems += self.ram.problems
        self.ram.problems = []

    def _inside_package(self, end: int, name: str) -> None:
        if self._package_end is not None and end > self._package_end:
            raise StreamError(
                "the item runs past the end of its package",
                offset=end,
                section=name,
                expected=f"an end at or before {self._package_end:#x}",
            )

    def _after_eof(self) -> Section | None:
        # The state changes only when the next item is known: until then, this is called again with more bytes.
        if self.window.at_end(self.pos) or (self.window.u8(self.pos, "a vmdesc") != SectionType.QEMU_VM_VMDESCRIPTION):
            self._check_eof()
            self._state = self._tail
            return None
        header, body = VmDescriptionHeader.parse(self.window, self.pos)
        if self.window.u8(body, "the vmdesc") != ord("{"):
            self._state = self._tail
            return None
        if header.length > MAX_VMDESC:
            raise LimitError(
                f"a vmdesc of {header.length} bytes", offset=self.pos + 1, expected=f"at most {MAX_VMDESC}"
            )
        self.window.need(body, header.length, "the vmdesc")
        self._state = self._tail
        return self._plain(Type.VMDESC, body + header.length, body)

    def _check_eof(self) -> None:
        """Record a problem if the EOF byte may be the damaged type byte of a section."""
        if not headless(self.window, self.pos, self.started.keys() - self._ended):
            return
        self.problems.append(
            StreamError(
                "the stream ends here, but the rest of a section follows",
                offset=self.pos - 1,
                expected="a section type instead of EOF, or other bytes after it",
            )
        )

    def _tail(self) -> Section | None:
        self.pos = max(self.pos, self.window.end)
        self.window.at_end(self.pos)
        self.done = True
        if self.pos == self._item:
            return None
        return Section(Type.TAIL, self._item, self.pos - self._item, self._item, self.pos - self._item)

    def _plain(self, type_: Type, end: int, body_offset: int, *, name: str | None = None) -> Section:
        """Make the section of an item that was read at once."""
        start, self.pos = self.pos, end
        return Section(type_, start, end - start, body_offset, end - body_offset, name=name)

    _ITEMS: ClassVar[dict[int, Callable[[Reader], Section | None]]] = {
        SectionType.QEMU_VM_EOF: _eof,
        SectionType.QEMU_VM_SECTION_START: _start,
        SectionType.QEMU_VM_SECTION_PART: _part,
        SectionType.QEMU_VM_SECTION_END: _end,
        SectionType.QEMU_VM_SECTION_FULL: _full,
        SectionType.QEMU_VM_COMMAND: _command,
    }
