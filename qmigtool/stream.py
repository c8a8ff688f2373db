"""A migration stream, opened: what a person imports.

There are two roads to the device state. *Tail-first* starts from the vmdesc at the end and never touches RAM; it is
taken when headers and footers prove it. *Forward* reads everything in order and is taken for pipes and for whatever
the other cannot prove. Both give the same devices. Where the bytes are broken, what can be read from the front and
what can be read from the back is shown all the same, and :attr:`Stream.problems` says what lies between.
"""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

from qmigtool import accelerator as accelerators
from qmigtool import cpu_x86
from qmigtool.consistency import Descriptions, disagreements, wrong_lengths
from qmigtool.device import Device, find
from qmigtool.errors import QmigError, StreamError, TruncatedError, UnsupportedError, UsageError
from qmigtool.parsers.bodies import FOOTER_SIZE
from qmigtool.parsers.container import recognise
from qmigtool.parsers.records import (
    QEMU_VM_SECTION_FOOTER,
    RamSaveFlag,
    SectionType,
)
from qmigtool.parsers.savevm import Reader, Section, Type
from qmigtool.parsers.source import BufferSource, FileSource, KeptSource, Source
from qmigtool.parsers.tail import LocatedVmdesc, TailWalk, find_vmdesc, walk_back
from qmigtool.parsers.vmdesc import parse_vmdesc
from qmigtool.parsers.window import Window
from qmigtool.probe import PROBED, find_start, probe_page_size
from qmigtool.schema import fit
from qmigtool.schema.model import built_in
from qmigtool.sectionindex import SectionIndex
from qmigtool.unwrap import Container, unwrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from qmigtool.accelerator import Accelerator
    from qmigtool.cpu_x86 import VCpu
    from qmigtool.parsers.configuration import Configuration
    from qmigtool.parsers.ram import RamBlock
    from qmigtool.parsers.records import SectionHeader
    from qmigtool.parsers.vmdesc import Vmdesc
    from qmigtool.parsers.vmstate import Field
    from qmigtool.ram import Ram
    from qmigtool.schema import Schema

__all__ = ["Stream"]

PIPE_CHUNK = 1 << 20
MAGIC_SIZE = 16  # bytes that tell what a file is


class Stream:
    """An opened stream; use :func:`qmigtool.open`, and close it or use it as a context manager.

    ``problems`` are the errors met so far, in the order they were met; reading :attr:`sections` may add some, because
    only that reads RAM. ``container`` says what the stream came in (:class:`~qmigtool.unwrap.Container`).
    """

    def __init__(
        self,
        source: BufferSource | BinaryIO,
        *,
        accelerator: str | None = None,
        forward: bool = False,
        channels: Sequence[BufferSource] = (),
        schema: Schema | None = None,
        keep_runs: bool = False,
        snapshot: str | None = None,
    ) -> None:
        self.problems: list[QmigError] = []
        self.container = Container()
        self._start: int | None = None  # of the stream in its source
        self._outer: tuple[BufferSource, ...] = ()  # what it was unwrapped from
        self._given_accelerator = accelerators.parse(accelerator)
        self._given_schema = schema
        self._channels = tuple(channels)
        self._keep_runs = keep_runs
        self._located: LocatedVmdesc | None = None
        self._walk: TailWalk | None = None
        self._index: SectionIndex | None = None
        self._probed_page_size: int | None = None
        self._early = SectionIndex()  # what comes before the first PART
        if isinstance(source, BufferSource):
            found = unwrap(source, snapshot)
            self.container, self._start, self._outer = found.container, found.start, found.outer
            self._channels += found.channels
            self.problems += found.problems
            self._source: Source = found.source
            try:
                self._open_seekable(found.source, forward=forward)
            except BaseException:
                found.close(source)
                raise
        else:
            self._source = KeptSource(getattr(source, "name", "<pipe>"))
            self._read_pipe(source, self._source)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Stream {self._source.name!r}, {self.machine or 'no machine type'}, read {self.road}>"

    def close(self) -> None:
        """Let go of the file and of the extra channels."""
        for source in (self._source, *self._channels, *self._outer):
            source.close()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors of the inputs, to tell them from outputs; none of what is in memory."""
        return tuple(
            one.fileno() for one in (self._source, *self._channels, *self._outer) if isinstance(one, FileSource)
        )

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def channels(self) -> int:
        """How many extra channels of the same migration there are, given or found in a capture."""
        return len(self._channels)

    @property
    def size(self) -> int | None:
        """The input's size in bytes; None if it ended before it could be known."""
        return self._source.size

    @property
    def source(self) -> Source:
        """Where the bytes are, by their offset in the stream."""
        return self._source

    @property
    def start(self) -> int:
        """Where the stream starts in :attr:`source`, in bytes: behind a save image's head, or a hole."""
        return self._start or 0

    @property
    def road(self) -> str:
        """``tail-first`` or ``forward``: how the device state was reached."""
        return "tail-first" if self._walk is not None else "forward"

    @property
    def configuration(self) -> Configuration | None:
        """The configuration section, or None if the stream has none."""
        return self._reader.configuration

    @property
    def machine(self) -> str | None:
        """The machine type, such as ``pc-q35-7.2``, or None."""
        return self.configuration.machine if self.configuration is not None else None

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The migration capabilities that the configuration section lists."""
        return self.configuration.capabilities if self.configuration is not None else ()

    @property
    def footers(self) -> bool:
        """Whether sections have footers; known once :attr:`sections` have been read."""
        return bool(self._reader.footers)

    @property
    def page_size(self) -> int:
        """The target page size in bytes."""
        return self._reader.ram.page_size

    @property
    def page_size_inferred(self) -> bool:
        """Whether nothing in the stream says the page size, so that it is the first one with which RAM reads well."""
        return self._probed_page_size is not None and self._located is None

    @property
    def ram_blocks(self) -> tuple[RamBlock, ...]:
        """The RAMBlocks in the order of the ``ram`` START section."""
        return tuple(self._reader.ram.blocks)

    @property
    def pages_held(self) -> tuple[int, int]:
        """(pages of guest memory that this input holds at most, pages in all); reads all of RAM's headers.

        The first is smaller where memory travelled on other channels (multifd, postcopy), or stayed where it was
        (shared memory, what virtio-mem has not plugged).
        """
        _ = self.sections
        return self._reader.ram.held()

    @property
    def vmdesc(self) -> Vmdesc | None:
        """The description at the end of the stream, or None."""
        return self._located.vmdesc if self._located is not None else None

    @property
    def vmdesc_text(self) -> bytes | None:
        """The JSON text of the vmdesc as it stands in the stream, or None."""
        located = self._located
        if located is None:
            return None
        return bytes(self._source.view(located.body_offset, located.end - located.body_offset))

    @property
    def error(self) -> QmigError | None:
        """The first problem, or None."""
        return self.problems[0] if self.problems else None

    @property
    def complete(self) -> bool:
        """Whether the stream could be read from its header to its EOF, and nothing was wrong with it."""
        ended = any(
            section.type is Type.EOF for section in self.sections
        )  # first: only this meets what is wrong in RAM
        return ended and not self.problems

    @property
    def sections(self) -> SectionIndex:
        """Every item of the stream in order; their spans cover every byte. Reads all of RAM's headers."""
        if self._index is None:
            self._index = SectionIndex(self._early)
            self._forward()
        return self._index

    @cached_property
    def devices(self) -> tuple[Device, ...]:
        """The sections of device state, in stream order; RAM and other live sections are not among them."""
        sections: Iterable[Section]
        if self._walk is not None:
            sections = [s for s in self._early if s.type is Type.FULL] + list(self._walk.sections)
        else:
            sections = [s for s in self.sections if s.type is Type.FULL and s.complete]
        descriptions = Descriptions(self.vmdesc) if self.vmdesc is not None else None
        return tuple(self._device(section, descriptions) for section in sections)

    def _device(self, section: Section, descriptions: Descriptions | None) -> Device:
        """Pair a section with its description: the stream's own, or else one that a schema finds."""
        name = section.name or ""
        description = descriptions.take(name, section.instance_id or 0) if descriptions is not None else None
        if description is not None:
            return Device(section, description, self._source)
        body = self._source.view(section.body_offset, section.body_length)
        fitted = fit(self.schema, name, section.version_id or 0, body, self.machine)
        if fitted is None:
            return Device(section, None, self._source)
        choice = ", one of several shapes that fit" if fitted.ambiguous else ""
        return Device(section, fitted.description, self._source, self.schema.name + choice)

    @cached_property
    def schema(self) -> Schema:
        """What describes devices where the stream itself does not: the given schema, or the one that is built in."""
        return self._given_schema or built_in()

    @property
    def borrowed(self) -> str | None:
        """The name of the schema by which devices are decoded that the stream does not describe, or None."""
        return self.schema.name if any(device.borrowed is not None for device in self.devices) else None

    @cached_property
    def ram(self) -> Ram:
        """Guest memory: which record wrote each page, and what it holds; see :mod:`qmigtool.ram`.

        Reads all of RAM's headers. Of a pipe only what was written is known (and only if it was opened with
        ``keep_runs``), not the contents.
        """
        # Imported here: numpy is not needed for device state.
        from qmigtool.ram.build import build_ram

        _ = self.sections  # reads to the end
        reader = self._reader
        if isinstance(self._source, BufferSource) and not self._keep_runs:
            reader = self._new_reader(self._source, keep_runs=True)
            with contextlib.suppress(QmigError):  # reading the sections reports it
                for _ in reader.sections():
                    pass
        ends = (s.body_offset + s.body_length - 8 for s in self.sections if s.name == "ram" and s.complete)
        configuration = self.configuration
        uuid = configuration.uuid if configuration is not None else None
        return build_ram(self._source, reader.ram, ends, self._channels, self.problems, uuid=uuid)

    @cached_property
    def accelerator(self) -> Accelerator:
        """Which accelerator saved the stream, with the evidence; see :mod:`qmigtool.accelerator`."""
        return self._given_accelerator or accelerators.infer(self.devices)

    @cached_property
    def vcpus(self) -> tuple[VCpu, ...]:
        """The x86 vCPUs by instance, as far as they can be decoded (:attr:`problems` names the others).

        Empty for another target.
        """
        found = []
        for device in sorted(self.devices, key=lambda device: device.instance_id):
            if device.name == "cpu" and (device.description is None or cpu_x86.is_x86(device)):
                try:
                    _ = device.fields
                except QmigError as error:
                    self.report(error)  # one that cannot be decoded does not take the others away
                else:
                    found.append(cpu_x86.VCpu(device, tcg=self.accelerator.name == "tcg"))
        return tuple(found)

    def report(self, error: QmigError) -> None:
        """Add an error to :attr:`problems`, unless it is there already."""
        if str(error) not in map(str, self.problems):
            self.problems.append(error)

    def device(self, path: str) -> Device:
        """Return a device by ``name`` or ``name@instance``; raises :class:`~qmigtool.errors.UsageError`."""
        device, rest = find(self.devices, path)
        if rest:
            raise UsageError(f"{path!r} leads into a device", expected=f"the device alone: {device.label}")
        return device

    def field(self, path: str) -> Field:
        """Return a field by ``name[@instance]/field/...``; raises :class:`~qmigtool.errors.UsageError`."""
        device, rest = find(self.devices, path)
        return device.field(rest)

    # -- the two roads ---------------------------------------------------------------------------------------------

    def _open_seekable(self, source: BufferSource, *, forward: bool) -> None:
        if self._start is None:
            self._start = find_start(source)
        try:
            self._located = find_vmdesc(source)
        except QmigError as error:
            self.problems.append(error)
        if self._located is None:
            self._probed_page_size = probe_page_size(source, self._start)
        self._reader = self._new_reader(source, keep_runs=self._keep_runs)
        self._unread = self._reader.sections()
        head_error = self._read_head(source)
        walk = walk_back(source, self._located) if self._located is not None else None
        self._back = walk
        if head_error is not None:
            if self._reader.pos == self._reader.start and (walk is None or not walk.sections):
                raise head_error  # neither end of it looks like a migration stream
            self._index = SectionIndex(self._early)
            self._stopped(head_error)
        elif walk is not None and not forward and self._proved(source, walk):
            self._walk = walk

    def _new_reader(self, source: BufferSource, *, keep_runs: bool = False) -> Reader:
        vmdesc = self.vmdesc
        return Reader(
            Window(source.whole, final=True, passed=source.passed),
            Descriptions(vmdesc).length if vmdesc is not None else None,
            vmdesc.page_size if vmdesc is not None else self._probed_page_size,
            self._measure,
            keep_runs,
            self._start or 0,
        )

    def _measure(self, header: SectionHeader, data: memoryview, ends: Callable[[int], bool]) -> int | None:
        """Tell the length of a device section from its bytes, for a stream with neither footers nor a vmdesc."""
        fitted = fit(self.schema, header.idstr, header.version_id, data, self.machine, ends=ends)
        return None if fitted is None else fitted.description.size

    def _read_head(self, source: BufferSource) -> QmigError | None:
        """Read what comes before the first PART or END: setup, where nothing is large."""
        later = (SectionType.QEMU_VM_SECTION_PART, SectionType.QEMU_VM_SECTION_END)
        try:
            for section in self._unread:
                self._early.append(section)
                pos = self._reader.pos
                if pos < len(source.whole) and section.type is not Type.TAIL and source.whole[pos] in later:
                    break
        except QmigError as error:
            return error
        return None

    def _proved(self, source: BufferSource, walk: TailWalk) -> bool:
        """Say whether what was found from the end joins what was read from the front."""
        early = [section for section in self._early if section.type is Type.FULL]
        if [(s.name, s.instance_id) for s in early] != [(d.idstr, d.instance_id) for d in walk.missing]:
            return False
        if not walk.sections:
            return False
        # Behind padding might lie a stream that was here before, and longer: a volume is not cut to what is written.
        if self._located is None or self._located.end != len(source.whole):
            return False
        # The last thing before device state is the END (or PART) of a live section.
        if walk.footers:
            marker, *raw = source.view(walk.start - FOOTER_SIZE, FOOTER_SIZE)
            return marker == QEMU_VM_SECTION_FOOTER and int.from_bytes(raw, "big") in self._reader.started
        return bytes(source.view(walk.start - 8, 8)) == int(RamSaveFlag.EOS).to_bytes(8, "big")

    def _forward(self) -> None:
        """Read on from where the head ended, to the end."""
        index = self._index
        assert index is not None  # noqa: S101 - for the type checker: the caller has just made it
        try:
            for section in self._unread:
                index.append(section)
        except QmigError as error:
            self._stopped(error)
        self._take_reader_problems()
        if not self.problems and not self._reader.done:
            self._stopped(TruncatedError("the stream ends here", offset=self._reader.window.end))
        self._check_end()

    def _check_end(self) -> None:
        """Compare what reading forward found with the vmdesc."""
        if not self.problems and self._located is not None and self._index is not None:
            self.problems += disagreements(self._index, self._located)
        if not self.problems:
            self.problems += wrong_lengths(self.devices)

    def _stopped(self, error: QmigError) -> None:
        """Note where reading forward stopped, and go on with what is known from the end."""
        self._take_reader_problems()
        self.problems.append(error)
        index = self._index
        partial = self._reader.partial()
        if index is None or partial is None:
            return
        behind = [s for s in self._back.sections if s.offset > partial.offset] if self._back is not None else []
        if behind and self._located is not None:
            located, end = self._located, self._located.offset
            partial = _cut(partial, behind[0].offset)
            behind.append(Section(Type.EOF, end - 1, 1, end, 0))
            text = located.body_offset
            behind.append(Section(Type.VMDESC, end, located.end - end, text, located.end - text))
            if located.end < self._reader.window.end:
                rest = self._reader.window.end - located.end
                behind.append(Section(Type.TAIL, located.end, rest, located.end, rest))
        index.append(partial)
        for section in behind:
            index.append(section)

    def _take_reader_problems(self) -> None:
        self.problems += self._reader.problems
        self._reader.problems = []

    def _read_pipe(self, pipe: BinaryIO, kept: KeptSource) -> None:
        """Read a pipe to its end: RAM passes by, everything else is kept."""
        self._back = None
        self._index = index = SectionIndex([])
        head = BufferSource(_read_up_to(pipe, PROBED))
        wrapped = recognise(bytes(head.whole[:MAGIC_SIZE]))
        if wrapped is not None:
            raise UnsupportedError(f"{wrapped.what} through a pipe", offset=0, expected="a file")
        self._start = find_start(head)
        self._probed_page_size = probe_page_size(head, self._start)
        reader = self._reader = Reader(
            Window(), None, self._probed_page_size, self._measure, self._keep_runs, self._start
        )
        chunk: bytes | memoryview = head.whole
        try:
            while True:
                if chunk:
                    reader.feed(chunk)
                else:
                    reader.close()
                for section in reader.sections():
                    index.append(section)
                    # Live sections (START, PART, END) and the tail pass by.
                    if section.type in (Type.FULL, Type.VMDESC):
                        kept.keep(section.offset, reader.window.bytes(section.offset, section.length, "a section"))
                    if section.type is Type.VMDESC:
                        self._keep_vmdesc(section)
                if not chunk:
                    break
                chunk = pipe.read(PIPE_CHUNK)
            self._take_reader_problems()
            if self.vmdesc is not None:
                reader.ram.page_size = self.vmdesc.page_size  # zero pages read well with many sizes; this one is told
            self._check_end()
        except QmigError as error:
            if not len(index):
                raise
            self._stopped(error)
        kept.size = reader.window.end if reader.done else None

    def _keep_vmdesc(self, section: Section) -> None:
        try:
            text = bytes(self._source.view(section.body_offset, section.body_length))
            self._located = LocatedVmdesc(parse_vmdesc(text, section.body_offset), section.offset, section.end)
        except StreamError as error:
            self.problems.append(error)


def _read_up_to(pipe: BinaryIO, count: int) -> bytes:
    """Read so much of a pipe, or all of it: a socket may give a byte at a time."""
    head = bytearray()
    while len(head) < count and (chunk := pipe.read(min(PIPE_CHUNK, count - len(head)))):
        head += chunk
    return bytes(head)


def _cut(partial: Section, end: int) -> Section:
    """Shorten the unreadable item to end where readable ones go on."""
    return Section(
        Type.UNREADABLE, partial.offset, end - partial.offset, partial.offset, end - partial.offset, complete=False
    )
