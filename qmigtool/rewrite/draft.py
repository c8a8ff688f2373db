"""A stream as it shall become: which of its parts were changed, and the splices that follow from that.

Edits change the draft; nothing is written, and the source is only read. Only what an edit touches is taken apart: a
device section becomes bytes and their description (:class:`SectionDraft`), all others stay where they are in the
source. When the draft is asked for its splices, whatever depends on lengths is made anew: the vmdesc, the length of a
postcopy package, the absolute offsets of mapped-ram.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qmigtool import cpu_x86
from qmigtool.device import Device, find
from qmigtool.errors import QmigError, UsageError
from qmigtool.parsers.bodies import footer_of
from qmigtool.parsers.records import SectionHeader, SectionType
from qmigtool.parsers.savevm import Section, Type
from qmigtool.parsers.source import BufferSource
from qmigtool.parsers.vmdesc import Description, DeviceDescription
from qmigtool.parsers.vmdesctext import describe, describe_device, find_parts, format_pairs, is_spaced
from qmigtool.rewrite.body import Body
from qmigtool.rewrite.changes import Change
from qmigtool.rewrite.memory import MemoryDraft
from qmigtool.rewrite.splice import Splice, differing, ordered, seekable_source

if TYPE_CHECKING:
    from qmigtool.cpu_x86 import VCpu
    from qmigtool.parsers.vmstate import Field
    from qmigtool.stream import Stream

__all__ = ["Draft", "SectionDraft"]

PACKAGED = "PACKAGED"


@dataclass(slots=True, eq=False)
class SectionDraft:
    """A section of device state; ``original`` is the device of the source, None for a section that is put in.

    ``at`` is where it stands, or where it is put in. ``data`` is None while the body is as in the source.
    ``old_style`` is whether its vmdesc has it as one buffer (see :class:`~qmigtool.parsers.vmdesc.DeviceDescription`).
    """

    original: Device | None
    section: Section
    description: Description | None
    at: int
    described: int | None  # its number in the vmdesc
    data: bytes | None = None
    old_style: bool = False
    dropped: bool = False
    _device: Device | None = None

    @property
    def device(self) -> Device:
        """The device as it will be; offsets of a body that was changed count from its start."""
        if self._device is None:
            if self.data is None and self.original is not None and self.section is self.original.section:
                self._device = self.original
            else:
                body = self.body
                place = replace(self.section, offset=0, body_offset=0, length=len(body), body_length=len(body))
                borrowed = self.original.borrowed if self.original is not None else None
                self._device = Device(place, self.description, BufferSource(body), borrowed)
        return self._device

    @property
    def label(self) -> str:
        """``name@instance``."""
        return f"{self.section.name}@{self.section.instance_id}"

    @property
    def offset(self) -> int | None:
        """Where the source has the section; None for one that is put in."""
        return None if self.original is None else self.original.section.offset

    @property
    def body(self) -> bytes:
        """The bytes of the body as they will be."""
        if self.data is None:
            original = self.original
            assert original is not None  # noqa: S101 - for the type checker: what is put in has data
            return original.body
        return self.data

    @property
    def touched(self) -> bool:
        """Whether anything but its absence differs from the source."""
        return self.original is None or self.data is not None or self.section is not self.original.section

    def place(self, field: Field) -> int:
        """Return where a field of :attr:`device` starts in the body."""
        return field.offset - self.device.section.body_offset

    def patch(self, field: Field, raw: bytes) -> None:
        """Replace the bytes of a field by as many others."""
        if len(raw) != field.length:
            raise UsageError(f"{self.label}/{field.name} has {field.length} bytes, not {len(raw)}")
        at, body = self.place(field), self.body
        self.data = body[:at] + raw + body[at + field.length :]
        self._device = None

    def reshape(self, change: Callable[[Body], None]) -> None:
        """Take the body apart, let ``change`` change it, and put it together again, with its description."""
        device = self.device
        _ = device.fields  # raises where the description does not fit the bytes
        assert self.description is not None  # noqa: S101 - for the type checker: fields has seen to it
        tree = Body.load(self.description, self.body)
        change(tree)
        self.data = tree.encode()
        self.description = tree.describe()
        self._device = None

    def rename(self, **header: Any) -> None:
        """Change ``name``, ``instance_id`` or ``version_id`` of the section's header."""
        self.section = replace(self.section, **header)
        self._device = None

    def header(self) -> bytes:
        """Return the section's header as it will be, type byte included."""
        section = self.section
        kind = SectionType.QEMU_VM_SECTION_FULL
        record = SectionHeader(
            section.section_id or 0, section.name or "", section.instance_id or 0, section.version_id or 0
        )
        try:
            return bytes([kind]) + record.build()
        except ValueError as error:
            raise UsageError(str(error)) from None

    def entry(self) -> DeviceDescription | None:
        """Return what the vmdesc has to say of the section, or None if nothing is known."""
        if self.description is None:
            return None
        section = self.section
        return DeviceDescription(section.name or "", section.instance_id or 0, self.description, self.old_style)


class Draft:
    """What a rewrite works on; make one of a stream that is whole, change it, and take its :meth:`splices`.

    Raises the stream's first problem if it is not whole, and :class:`~qmigtool.errors.UnsupportedError` for one that
    came through a pipe. ``changes`` says what was changed, ``losses`` what state was lost by
    that, ``notes`` what the user should know beside.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.source = seekable_source(stream)
        self._index = stream.sections
        if stream.problems:
            raise stream.problems[0]
        self.changes: list[Change] = []
        self.notes: list[str] = []
        self.losses: list[str] = []
        self.checks: list[Callable[[], None]] = []  # what must hold of the result, when all edits are made
        self.configuration = stream.configuration
        self.accelerator = stream.accelerator.name
        self.memory = MemoryDraft(stream)
        self._dropped_commands: list[Section] = []
        self._sections = list(self._make_sections())

    def _make_sections(self) -> Iterator[SectionDraft]:
        numbers: dict[tuple[str, int], deque[int]] = {}
        entries = self.stream.vmdesc.devices if self.stream.vmdesc is not None else ()
        for place, entry in enumerate(entries):
            numbers.setdefault((entry.idstr, entry.instance_id), deque()).append(place)
        for device in self.stream.devices:
            left = numbers.get((device.name, device.instance_id))
            number = left.popleft() if left else None
            old_style = number is not None and entries[number].old_style
            yield SectionDraft(
                device, device.section, device.description, device.section.offset, number, old_style=old_style
            )

    # -- what is there -----------------------------------------------------------------------------------------------

    @property
    def sections(self) -> list[SectionDraft]:
        """The sections of device state as they will be, in order."""
        return [section for section in self._sections if not section.dropped]

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices as they will be."""
        return tuple(section.device for section in self.sections)

    def section(self, path: str) -> SectionDraft:
        """Return a section by ``name[@instance]``; raises :class:`~qmigtool.errors.UsageError`."""
        found, rest = self.find(path)
        if rest:
            raise UsageError(f"{path!r} leads into a device", expected=f"the section alone: {found.label}")
        return found

    def find(self, path: str) -> tuple[SectionDraft, str]:
        """Split a path into its section and the rest."""
        sections = self.sections
        device, rest = find([section.device for section in sections], path)
        return next(section for section in sections if section.device is device), rest

    def named(self, name: str) -> list[SectionDraft]:
        """Return the sections of one idstr, by instance."""
        found = [section for section in self.sections if section.section.name == name]
        return sorted(found, key=lambda section: section.section.instance_id or 0)

    @property
    def vcpus(self) -> tuple[VCpu, ...]:
        """The x86 vCPUs as they will be."""
        return tuple(self.vcpu(section) for section in self.named("cpu") if cpu_x86.is_x86(section.device))

    def vcpu(self, section: SectionDraft) -> VCpu:
        """Return the vCPU that a section ``cpu`` holds."""
        return cpu_x86.VCpu(section.device, tcg=self.accelerator == "tcg")

    def source_offset(self, section: SectionDraft, path: str) -> int | None:
        """Return where the source has a field, or None if it has none at that path."""
        if section.original is None:
            return None
        try:
            return section.original.field(path).offset
        except QmigError:
            return None

    def change(self, edit: str, where: str, offset: int | None, old: Any, new: Any, why: str = "") -> None:
        """Take note of a change."""
        self.changes.append(Change(edit, where, offset, old, new, why))

    # -- sections that come and go -----------------------------------------------------------------------------------

    def insert(
        self, name: str, instance_id: int, version_id: int, description: Description, data: bytes, after: SectionDraft
    ) -> SectionDraft:
        """Put a section of device state behind another one."""
        taken = {section.section_id or 0 for section in self._index if section.section_id is not None}
        taken |= {section.section.section_id or 0 for section in self._sections}
        at = after.at if after.original is None else after.original.section.end
        section = Section(
            Type.FULL, at, len(data), at, len(data), max(taken, default=0) + 1, name, instance_id, version_id
        )
        made = SectionDraft(None, section, description, at, None, data)
        self._sections.insert(self._sections.index(after) + 1, made)
        return made

    def commands(self, *names: str) -> list[Section]:
        """Return the commands of these names (without ``MIG_CMD_``) that are still there."""
        gone = {section.offset for section in self._dropped_commands}
        return [s for s in self._index if s.type is Type.COMMAND and s.name in names and s.offset not in gone]

    def drop_command(self, section: Section) -> None:
        """Leave a command out."""
        self._dropped_commands.append(section)

    # -- splices -----------------------------------------------------------------------------------------------------

    def splices(self) -> list[Splice]:
        """Return the splices that turn the source into what the draft says, in order; raises what a check raises."""
        for check in self.checks:
            check()
        found = [*self._configuration(), *self._commands(), *self._devices()]
        ram = next((s for s in self._index if s.type is Type.START and s.name == "ram"), None)
        if ram is not None:
            shift = sum(splice.growth for splice in found if splice.offset <= ram.offset)
            found += self.memory.splices(shift)
        found += self._packages(found)
        found += self._vmdesc()
        return ordered(found, len(self.source.whole))

    def _configuration(self) -> Iterator[Splice]:
        old, new = self.stream.configuration, self.configuration
        if new == old or new is None:
            return
        section = next(s for s in self._index if s.type is Type.CONFIGURATION)
        body = bytes(self.source.view(section.body_offset, section.body_length))
        yield from differing(section.body_offset, body, new.build())

    def _commands(self) -> Iterator[Splice]:
        for section in self._dropped_commands:
            yield Splice(section.offset, section.length, b"")

    def _devices(self) -> Iterator[Splice]:
        for draft in self._sections:
            original = draft.original
            footer = footer_of(draft.section.section_id or 0) if self.stream.footers else b""
            if original is None:
                if not draft.dropped:
                    yield Splice(draft.at, 0, draft.header() + draft.body + footer)
            elif draft.dropped:
                yield Splice(original.section.offset, original.section.length, b"")
            elif draft.touched:
                place = original.section
                head = bytes(self.source.view(place.offset, place.body_offset - place.offset))
                # START and FULL mean the same to the loader; what it is stays.
                yield from differing(place.offset, head, head[:1] + draft.header()[1:])
                yield from differing(place.body_offset, original.body, draft.body)

    def _packages(self, splices: list[Splice]) -> Iterator[Splice]:
        """Correct the length of a postcopy package by what grew inside it."""
        for command in self.commands(PACKAGED):
            length = int.from_bytes(self.source.view(command.body_offset, 4), "big")
            start = command.end
            growth = sum(s.growth for s in splices if start <= s.offset and s.offset + s.length <= start + length)
            if growth:
                yield from differing(
                    command.body_offset, length.to_bytes(4, "big"), (length + growth).to_bytes(4, "big")
                )

    def _vmdesc(self) -> Iterator[Splice]:
        text = self.stream.vmdesc_text
        section = next((s for s in self._index if s.type is Type.VMDESC), None)
        if text is None or section is None:
            return
        new = self._vmdesc_text(text)
        if new != text:
            yield from differing(section.offset + 1, len(text).to_bytes(4, "big"), len(new).to_bytes(4, "big"))
            yield from differing(section.body_offset, text, new)

    def _vmdesc_text(self, text: bytes) -> bytes:
        """Return the vmdesc's text with what was changed; everything else in it stays as it is."""
        parts, spaced = find_parts(text), is_spaced(text)
        devices: list[list[bytes]] = [[], *([text[start:end]] for start, end in parts.devices)]
        at = 0  # in the list: 0 is before the first
        for draft in self._sections:
            if draft.described is not None:
                at = draft.described + 1
                if draft.dropped:
                    devices[at] = devices[at][1:]
                    continue
            entry = draft.entry()
            if not draft.touched or draft.dropped or entry is None:
                continue
            written = format_pairs(describe_device(entry), spaced=spaced)
            if draft.described is not None:
                devices[at][:1] = [written]
            else:
                devices[at].append(written)
        out = bytearray()
        done = 0
        configuration = self._described_configuration()
        if parts.configuration is not None and configuration is not None:
            start, end = parts.configuration
            out += text[:start] + format_pairs(describe(configuration), spaced=spaced)
            done = end
        if parts.devices:
            first, last = parts.devices[0][0], parts.devices[-1][1]
            out += text[done:first] + b", ".join(one for each in devices for one in each)
            done = last
        return bytes(out) + text[done:]

    def _described_configuration(self) -> Description | None:
        """Return the vmdesc's ``configuration`` as it has to be; None if it stays."""
        vmdesc, new = self.stream.vmdesc, self.configuration
        if vmdesc is None or vmdesc.configuration is None or new is None or new == self.stream.configuration:
            return None
        return new.described(vmdesc.configuration)
