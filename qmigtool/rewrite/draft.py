"""A stream as it will be: which of its parts were changed, and the splices that follow from that.

Edits change the draft; nothing is written, and the source is only read. Only sections that an edit touches are decoded,
into bytes and their description (:class:`SectionDraft`); all others stay where they are in the source. :meth:`splices`
computes everything that depends on lengths: the vmdesc, the length of a postcopy package, the absolute offsets of
mapped-ram.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qmigtool.devices.device import Device, find
from qmigtool.errors import QmigError, StreamError, UnsupportedError, UsageError
from qmigtool.findings import Finding, Severity
from qmigtool.parsers.saveimage import SaveFormat
from qmigtool.parsers.section import Section, Type
from qmigtool.rewrite.changes import Change
from qmigtool.rewrite.memory import MemoryDraft
from qmigtool.rewrite.sectiondraft import SectionDraft
from qmigtool.rewrite.splice import seekable_source
from qmigtool.x86.accelerator import UNKNOWN
from qmigtool.x86.traits import TCG
from qmigtool.x86.vcpu import VCpu, is_x86

if TYPE_CHECKING:
    from qmigtool.parsers.vmdesc import Description
    from qmigtool.stream.model import Stream
    from qmigtool.stream.unwrapped import Container

__all__ = ["Draft", "taken_off"]


def taken_off(stream: Stream) -> list[str]:
    """Return a note of the container and compression of the source, which the output does not have."""
    container = stream.container
    if container.in_place:
        return []
    told = f"the output does not have the source's wrapping: {', '.join(container.removed)}"
    kind = _wrapped_again(container)
    return [told + (f" (`qmigtool wrap --as {kind}` puts it into one)" if kind else "")]


def _wrapped_again(container: Container) -> str | None:
    """Return what ``wrap`` makes of a bare stream that came out of this container, where that is the same again."""
    if container.header is not None:  # one that another compression was taken off is a save image still
        plain = container.header.format in (SaveFormat.RAW, SaveFormat.SPARSE)
        return None if plain else "libvirt --like FILE"
    if container.removed == ("qcow2",):
        return "qcow2 --like FILE"
    return container.compression if container.removed == (container.compression,) and container.name == "raw" else None


class Draft:
    """The result of a rewrite before it is written: made from a complete stream, changed, turned into :meth:`splices`.

    Raises the stream's first problem if it is not complete, and :class:`~qmigtool.errors.UnsupportedError` for one that
    came through a pipe. ``changes`` lists what was changed, ``losses`` the state that was lost by that, ``notes`` what
    else the user should know: findings, whose rule is that of a conversion, or empty.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.source = seekable_source(stream)
        self._index = stream.sections
        if stream.problems:
            raise stream.problems[0]
        self.changes: list[Change] = []
        self.notes = [Finding("", Severity.NOTE, text) for text in taken_off(stream)]
        self.losses: list[Finding] = []
        self.checks: list[Callable[[], None]] = []  # run on the result, when all edits are made
        self.configuration = stream.configuration
        self.footers = stream.footers
        self.save_format: SaveFormat | None = None  # new value in the header of a libvirt save image; None: unchanged
        self.bare = False  # what is around the stream in its source is left out
        self.accelerator = stream.accelerator.name
        self.memory = MemoryDraft(stream)
        self.dropped_commands: list[Section] = []
        found = [section.offset for section in self._index if section.type is Type.FULL]
        if found != [device.section.offset for device in stream.devices]:
            # Device state that only one of the two strategies finds: edits would miss it.
            raise StreamError("the stream has device state that the vmdesc does not list", section="vmdesc")
        self.all_sections = list(self._make_sections())  # also those that are dropped
        self._edit = ("", "")  # the name and the reason of the current edit

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

    # -- contents ----------------------------------------------------------------------------------------------------

    @property
    def sections(self) -> list[SectionDraft]:
        """The sections of device state as they will be, in order."""
        return [section for section in self.all_sections if not section.dropped]

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices as they will be."""
        return tuple(section.device for section in self.sections)

    def section(self, path: str) -> SectionDraft:
        """Return a section by ``name[@instance]``; raises :class:`~qmigtool.errors.UsageError`."""
        found, rest = self.find(path)
        if rest:
            raise UsageError(f"{path!r} is a path into a device", expected=f"the section alone: {found.label}")
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

    def x86_cpus(self) -> list[SectionDraft]:
        """Return the sections of x86 vCPUs; raises :class:`~qmigtool.errors.UnsupportedError` if there are none."""
        found = [section for section in self.named("cpu") if is_x86(section.device)]
        if not found:
            raise UnsupportedError("XSAVE state of a machine that is not x86", "no x86 vCPU in this stream")
        return found

    @property
    def vcpus(self) -> tuple[VCpu, ...]:
        """The x86 vCPUs as they will be."""
        return tuple(map(self.vcpu, self.x86_cpus()))

    @property
    def tcg(self) -> bool | None:
        """Whether the state is in TCG's form; None if that is not known."""
        return self.stream.accelerator.tcg if self.accelerator == UNKNOWN else self.accelerator == TCG.name

    def vcpu(self, section: SectionDraft) -> VCpu:
        """Return the vCPU of a section ``cpu``; the same object until an edit changes it."""
        vcpu, tcg = section.vcpu, self.tcg
        if vcpu is None or vcpu.device is not section.device or vcpu.tcg != tcg:
            vcpu = section.vcpu = VCpu(section.device, tcg=tcg)
        return vcpu

    def source_offset(self, section: SectionDraft, path: str) -> int | None:
        """Return where the source has a field, or None if it has none at that path."""
        if section.original is None:
            return None
        try:
            return section.original.field(path).offset
        except QmigError:
            return None

    # -- edits -------------------------------------------------------------------------------------------------------

    @contextmanager
    def edit(self, name: str, why: str = "") -> Iterator[None]:
        """Make an edit: changes inside the context have its name and reason, and are made completely or not at all.

        Edits nest: an inner edit without a reason inherits this one.
        """
        outer, state = self._edit, self._state()
        self._edit = name, why or outer[1]
        try:
            yield
        except BaseException:
            self._restore(state)
            raise
        finally:
            self._edit = outer

    def change(
        self, path: str, offset: int | None, old: Any, new: Any, why: str = "", *, device: str | None = None
    ) -> None:
        """Record a change made by the current edit; ``device`` is the label of the section that contains the path."""
        name, reason = self._edit
        self.changes.append(
            Change(device=device, path=path, offset=offset, a=old, b=new, rule=name, reason=why or reason)
        )

    def note(self, text: str, *, rule: str = "") -> None:
        """Add a note for the user, once; ``rule`` names the conversion rule that adds it."""
        found = Finding(rule, Severity.NOTE, text)
        if found not in self.notes:
            self.notes.append(found)

    def lose(
        self,
        text: str,
        *,
        device: str | None = None,
        path: str = "",
        offset: int | None = None,
        values: Mapping[str, Any] | None = None,
        rule: str = "",
    ) -> None:
        """Record state that is lost; ``rule`` names the conversion rule that drops it."""
        lost = Finding(rule, Severity.ERROR, text, device=device, path=path, offset=offset, values=values or {})
        self.losses.append(lost)

    def _state(self) -> tuple[Any, ...]:
        """Return everything that an edit can change."""
        lists = [list(one) for one in self._lists]
        sections = [section.state() for section in self.all_sections]
        framing = self.configuration, self.footers, self.save_format
        return lists, sections, framing, self.accelerator, self.memory.state()

    def _restore(self, state: tuple[Any, ...]) -> None:
        lists, sections, framing, self.accelerator, memory = state
        self.configuration, self.footers, self.save_format = framing
        for mine, old in zip(self._lists, lists, strict=True):
            mine[:] = old
        for section, old in zip(self.all_sections, sections, strict=True):
            section.restore(old)
        self.memory.restore(memory)

    @property
    def _lists(self) -> tuple[list[Any], ...]:
        return (
            self.changes,
            self.notes,
            self.losses,
            self.checks,
            self.dropped_commands,
            self.all_sections,
        )

    # -- sections that are added and dropped -------------------------------------------------------------------------

    def insert(
        self, name: str, instance_id: int, version_id: int, description: Description, data: bytes, after: SectionDraft
    ) -> SectionDraft:
        """Insert a section of device state after another one."""
        taken = {section.section_id or 0 for section in self._index if section.section_id is not None}
        taken |= {section.section.section_id or 0 for section in self.all_sections}
        at = after.at if after.original is None else after.original.section.end
        section = Section(
            Type.FULL, at, len(data), at, len(data), max(taken, default=0) + 1, name, instance_id, version_id
        )
        made = SectionDraft(None, section, description, at, None, data)
        self.all_sections.insert(self.all_sections.index(after) + 1, made)
        return made

    def commands(self, *names: str) -> list[Section]:
        """Return the commands of these names (without ``MIG_CMD_``) that were not dropped."""
        gone = {section.offset for section in self.dropped_commands}
        return [s for s in self._index if s.type is Type.COMMAND and s.name in names and s.offset not in gone]

    def drop_command(self, section: Section) -> None:
        """Drop a command."""
        self.dropped_commands.append(section)
