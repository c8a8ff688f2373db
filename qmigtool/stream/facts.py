"""The facts of an opened migration stream: what :class:`~qmigtool.stream.model.Stream` has without the ways to use it.

Two strategies reach the device state. *Tail-first* starts from the vmdesc at the end and does not read RAM; what it
finds is complete, and :meth:`Facts.prove` tells whether it belongs to this stream. *Forward* reads everything in order;
it is used for pipes and where tail-first fails. Both give the same devices. Where the bytes are broken, the sections
that can be read from the front and from the end are still shown, and :attr:`Facts.problems` reports the part between
them.
"""

from __future__ import annotations

import contextlib
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

from qmigtool.devices.device import Device, find
from qmigtool.devices.schema import Fit, fit
from qmigtool.devices.schema.model import built_in
from qmigtool.errors import BudgetError, QmigError, UsageError
from qmigtool.parsers.records import RamSaveFlag
from qmigtool.parsers.section import Type
from qmigtool.parsers.source import BufferSource
from qmigtool.stream.consistency import Descriptions, wrong_lengths
from qmigtool.stream.inputs import take_inputs
from qmigtool.stream.reading import make_reading
from qmigtool.stream.words import not_reached
from qmigtool.util.budget import current, ensured
from qmigtool.x86 import accelerator as accelerators
from qmigtool.x86.accelerator import Accelerator
from qmigtool.x86.vcpu import VCpu, is_x86

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qmigtool.devices.schema import Schema
    from qmigtool.parsers.configuration import Configuration
    from qmigtool.parsers.ramstate import RamBlock
    from qmigtool.parsers.records import SectionHeader
    from qmigtool.parsers.section import Section
    from qmigtool.parsers.source import Source
    from qmigtool.parsers.vmdesc import Vmdesc
    from qmigtool.parsers.vmstate import Field
    from qmigtool.ram.model import Ram
    from qmigtool.stream.sectionindex import SectionIndex
__all__ = ["Facts"]

MAX_FITTED, MAX_REMEMBERED = 1024, 1 << 16  # bodies whose fit is remembered, and bytes of one


class Facts:
    """What an opened stream contains; :class:`~qmigtool.stream.model.Stream` is the public class.

    ``problems`` are the errors found so far, in order; reading :attr:`sections` may add some, because
    only that reads RAM. ``container`` describes the container (:class:`~qmigtool.stream.unwrapped.Container`).
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
        migration: int | None = None,
        spool: bool = False,
    ) -> None:
        self.problems: list[QmigError] = []
        self._given_accelerator = accelerators.parse(accelerator)
        self._given_schema = schema
        self._fitted: dict[tuple[str, int | None, bytes] | None, Fit | None] = {}
        self._forgotten = False  # device state of another stream was discarded
        self._read_to_end = False
        # The limits grow with the size of the inputs.
        self._occupied = sum(one.occupied for one in (source, *channels) if isinstance(one, BufferSource))
        with ensured() as budget:
            budget.admit(self._occupied)
            selected = {"snapshot": snapshot, "migration": None if migration is None else str(migration)}
            self._inputs = take_inputs(source, channels, selected, self.problems, spool=spool)
            try:
                self._reading = make_reading(self._inputs, self.problems, self._measure, keep_runs=keep_runs)
                self._reading.open(forward=forward)
            except BaseException:
                self._inputs.give_back()
                raise
            if self._inputs.pipe is not None:
                self._read_all()
        self.input = self._inputs.name
        """The name of the input that was opened, container or not."""
        self.container = self._inputs.container

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file descriptors of the inputs, to recognise an output that is an input; none for inputs in memory."""
        return self._inputs.descriptors

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def channels(self) -> int:
        """The number of extra channels of the same migration, given or found in a capture."""
        return len(self._inputs.channels)

    @property
    def channel_sources(self) -> tuple[BufferSource, ...]:
        """The bytes of each of :attr:`channels`."""
        return self._inputs.channels

    @property
    def container_sources(self) -> tuple[BufferSource, ...]:
        """The bytes of each container that the stream was taken out of, innermost last."""
        return self._inputs.outer

    @property
    def size(self) -> int | None:
        """The input's size in bytes; None if reading stopped before it was known."""
        return self._inputs.source.size

    @property
    def file_size(self) -> int | None:
        """The size in bytes of the input with its containers; None if reading stopped before it was known."""
        return self.size if self._inputs.pipe is not None else self._inputs.file_size

    @property
    def source(self) -> Source:
        """The bytes of the stream, by their offset in it."""
        return self._inputs.source

    @property
    def start(self) -> int:
        """Where the stream starts in :attr:`source`, in bytes: after a save image's header, or a hole."""
        return self._reading.start

    @property
    def strategy(self) -> str:
        """``tail-first`` or ``forward``: the strategy that reached the device state."""
        return "tail-first" if self._reading.tail_first else "forward"

    @property
    def configuration(self) -> Configuration | None:
        """The configuration section, or None if the stream has none."""
        return self._reading.reader.configuration

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
        return bool(self._reading.reader.footers)

    @property
    def page_size(self) -> int:
        """The target page size in bytes."""
        return self._reading.reader.ram.page_size

    @property
    def page_size_inferred(self) -> bool:
        """Whether the page size is inferred: the stream does not record it, and RAM reads without error with it."""
        return self._reading.probed_page_size is not None and self.vmdesc is None

    @property
    def ram_blocks(self) -> tuple[RamBlock, ...]:
        """The RAM blocks in the order of the ``ram`` START section."""
        return tuple(self._reading.reader.ram.blocks)

    @property
    def pages_held(self) -> tuple[int, int]:
        """(largest possible number of pages of guest memory in this input, total pages); reads all of RAM's headers.

        The first is smaller where memory was sent on other channels (multifd, postcopy) or stayed in place (shared
        memory). Memory that virtio-mem has not plugged is not guest memory; neither number counts it.
        """
        from qmigtool.ram.unplugged import find_regions

        _ = self.sections
        held, total = self._reading.reader.ram.held()
        if held == total:
            return held, total
        blocks = self.ram_blocks
        regions = find_regions(self.devices, blocks)
        fitting = [one for one in regions if any(one.fits(block) for block in blocks)]
        unplugged = sum(b // self.page_size - -(-a // self.page_size) for one in fitting for a, b in one.unplugged)
        return held, total - min(max(unplugged, 0), total - held)

    @property
    def shared_blocks(self) -> tuple[str, ...]:
        """The RAM blocks that are shared memory and not in the stream (x-ignore-shared); reads all of RAM's headers."""
        _ = self.sections
        state = self._reading.reader.ram
        return tuple(block.idstr for index, block in enumerate(state.blocks) if state.left_out(index))

    @property
    def whole_pages(self) -> int:
        """The number of page records with a whole page (RAM_SAVE_FLAG_PAGE); reads all of RAM's headers."""
        _ = self.sections
        counted = self._reading.reader.ram.pages
        return sum(pages for (_, flags), pages in counted.items() if flags == RamSaveFlag.PAGE)

    @property
    def vmdesc(self) -> Vmdesc | None:
        """The description at the end of the stream, or None."""
        located = self._reading.located
        return located.vmdesc if located is not None else None

    @property
    def vmdesc_text(self) -> bytes | None:
        """The JSON text of the vmdesc, byte for byte, or None."""
        located = self._reading.located
        if located is None:
            return None
        return bytes(self._inputs.source.view(located.body_offset, located.end - located.body_offset))

    @property
    def error(self) -> QmigError | None:
        """The first problem, or None."""
        return self.problems[0] if self.problems else None

    @property
    def stopped(self) -> QmigError | None:
        """The error at which reading stopped before the stream's end, if it is known yet and there is one."""
        return self._reading.stopped

    def may_have(self, name: str, instance_id: int) -> bool:
        """Whether a section that is not among :attr:`devices` may be in the part that was not reached.

        Where the vmdesc was found at the end, it lists the sections of that part.
        """
        if self.stopped is None:
            return False
        return self.vmdesc is None or (name, instance_id) in self._described

    @property
    def unreached(self) -> QmigError | None:
        """The error at which reading stopped, if the stream may have more device state than :attr:`devices`."""
        if self.stopped is None or self.vmdesc is None:
            return self.stopped
        there = {(device.name, device.instance_id) for device in self.devices}
        return self.stopped if self._described - there else None

    @property
    def _described(self) -> set[tuple[str, int]]:
        """The sections that the vmdesc lists."""
        return set() if self.vmdesc is None else {(one.idstr, one.instance_id) for one in self.vmdesc.devices}

    @property
    def lists_blocks(self) -> bool:
        """Whether the list of RAM blocks was read completely; reads all of RAM's headers."""
        return any(one.type is Type.START and one.name == "ram" and one.complete for one in self.sections)

    @property
    def complete(self) -> bool:
        """Whether the stream was read from its header to its EOF without any problem."""
        ended = any(section.type is Type.EOF for section in self.sections)  # first: only this finds the errors in RAM
        return ended and not self.problems

    @property
    def sections(self) -> SectionIndex:
        """Every item of the stream in order; their spans cover every byte; reads all of RAM's headers."""
        self._read_all()
        return self._reading.sections

    @cached_property
    def devices(self) -> tuple[Device, ...]:
        """The sections of device state, in stream order; RAM and other live sections are not among them."""
        if not self._reading.tail_first:
            self._read_all()
        sections = tuple(self._reading.full)
        descriptions = Descriptions(self.vmdesc) if self.vmdesc is not None else None
        with self._bounded():
            current().earn(sum(one.body_length for one in sections if one.name == "cpu"))
            return tuple(self._device(section, descriptions) for section in sections)

    def _device(self, section: Section, descriptions: Descriptions | None) -> Device:
        """Pair a section with its description: the stream's own, or else one fitted with a schema."""
        name = section.name or ""
        described = descriptions.take(name, section.instance_id or 0) if descriptions is not None else None
        if described is not None:
            return Device(section, described, self._inputs.source)
        fitted = self._fit(name, section)
        if fitted is None:
            return Device(section, None, self._inputs.source)
        choice = ", one of several shapes that fit" if fitted.ambiguous else ""
        return Device(section, fitted.description, self._inputs.source, self.schema.name + choice)

    def _fit(self, name: str, section: Section) -> Fit | None:
        """Fit the schema to a section; equal bytes only once, and nothing beyond the budget."""
        body = self._inputs.source.view(section.body_offset, section.body_length)
        key = (name, section.version_id, bytes(body)) if len(body) <= MAX_REMEMBERED else None
        if key in self._fitted:
            return self._fitted[key]
        try:
            found = fit(self.schema, name, section.version_id or 0, body, self.machine)
        except BudgetError as error:
            error.offset, error.section = section.offset, name
            if not any(isinstance(problem, BudgetError) for problem in self.problems):
                self.report(error)
            return None
        if key is not None and len(self._fitted) < MAX_FITTED:
            self._fitted[key] = found
        return found

    @cached_property
    def schema(self) -> Schema:
        """The schema for devices that the stream does not describe: the given one, or the built-in one."""
        return self._given_schema or built_in()

    @property
    def schema_name(self) -> str | None:
        """The name of the schema that decodes devices that the stream does not describe, or None."""
        return self.schema.name if any(device.schema_name is not None for device in self.devices) else None

    @cached_property
    def ram(self) -> Ram:
        """Guest memory: which record wrote each page, and its contents; see :mod:`qmigtool.ram`.

        Reads all of RAM's headers. For a pipe, only the records are known (and only if it was opened with
        ``keep_runs``), not the contents.
        """
        # Imported here: numpy is not needed for device state.
        from qmigtool.ram.build import build_ram
        from qmigtool.ram.unplugged import find_regions

        _ = self.sections  # reads to the end
        # Reading the sections reports errors; an exhausted budget is raised to the caller.
        with self._bounded():
            reader = self._reading.ram_reader()
        ends = (s.body_offset + s.body_length - 8 for s in self.sections if s.name == "ram" and s.complete)
        configuration = self.configuration
        uuid = configuration.uuid if configuration is not None else None
        return build_ram(
            self._inputs.source,
            reader.ram,
            ends,
            self._inputs.channels,
            self.problems,
            uuid=uuid,
            regions=find_regions(self.devices, reader.ram.blocks),
        )

    @cached_property
    def accelerator(self) -> Accelerator:
        """Which accelerator saved the stream, with the evidence; see :mod:`qmigtool.x86.accelerator`."""
        if self._given_accelerator is not None:
            return self._given_accelerator
        if not self.devices and self.stopped is not None:
            return Accelerator(accelerators.UNKNOWN, (f"the device state is {not_reached(self.stopped)}",))
        return accelerators.infer(self.devices)

    @cached_property
    def vcpus(self) -> tuple[VCpu, ...]:
        """The x86 vCPUs by instance that can be decoded (:attr:`problems` reports the others).

        Empty for other targets.
        """
        found = []
        for device in sorted(self.devices, key=lambda device: device.instance_id):
            if device.name == "cpu" and (device.description is None or is_x86(device)):
                try:
                    _ = device.fields
                except QmigError as error:
                    self.report(error)  # the other vCPUs can still be decoded
                else:
                    found.append(VCpu(device, tcg=self.accelerator.tcg))
        return tuple(found)

    def report(self, error: QmigError) -> None:
        """Add an error to :attr:`problems`, unless it is there already."""
        if not any(map(error.same, self.problems)):
            self.problems.append(error)

    def device(self, path: str) -> Device:
        """Return a device by ``name`` or ``name@instance``; raises :class:`~qmigtool.errors.UsageError`."""
        device, rest = find(self.devices, path)
        if rest:
            raise UsageError(f"{path!r} is a path into a device", expected=f"the device alone: {device.label}")
        return device

    def field(self, path: str) -> Field:
        """Return a field by ``name[@instance]/field/...``; raises :class:`~qmigtool.errors.UsageError`."""
        device, rest = find(self.devices, path)
        return device.field(rest)

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def proved(self) -> bool:
        """Whether :attr:`devices` are known to belong to this stream: reached from its front, over RAM's records.

        The sections found from the end of a file may be the rest of another stream that this one overwrote. That is not
        checked until :meth:`prove` is called or :attr:`sections` is read.
        """
        return self._reading.proved

    def prove(self, limit: int | None = None, runs: int | None = None) -> bool:
        """Walk RAM's records from the front to the device state found from the end; return :attr:`proved`.

        Walks at most ``limit`` bytes and about ``runs`` runs of equal records, by default all. Refuted sections and
        errors are added to :attr:`problems`; then :attr:`devices`, and everything decoded from them, come from the
        forward reading.
        """
        with self._bounded():
            self._reading.prove(limit, runs)
        self._settle()
        if not self._reading.tail_first:
            self._read_all()
        return self.proved

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        """Work within the current budget, or within one for inputs of this size."""
        with ensured(self._occupied):
            yield

    def _read_all(self) -> None:
        if not self._read_to_end:
            self._read_to_end = True
            with self._bounded():
                self._reading.read_all()
            self._settle()
            if not self.problems:
                self.problems += wrong_lengths(self.devices)

    def _settle(self) -> None:
        """Discard device state that turned out to belong to another stream."""
        if self._reading.given_up and not self._forgotten:
            self._forgotten = True
            for name in ("devices", "vcpus", "accelerator"):
                self.__dict__.pop(name, None)

    def _measure(self, header: SectionHeader, data: memoryview, ends: Callable[[int], bool]) -> int | None:
        """Find the length of a device section from its bytes, for a stream with neither footers nor a vmdesc."""
        fitted = fit(self.schema, header.idstr, header.version_id, data, self.machine, ends=ends)
        return None if fitted is None else fitted.description.size
