"""One section of device state as it will be: bytes and their description, changed together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qmigtool.devices.device import Device
from qmigtool.errors import StreamError, UsageError
from qmigtool.parsers.records import SectionHeader, SectionType
from qmigtool.parsers.source import BufferSource
from qmigtool.parsers.vmdesc import Description, DeviceDescription
from qmigtool.rewrite.body import BodyDraft

if TYPE_CHECKING:
    from qmigtool.parsers.section import Section
    from qmigtool.parsers.vmstate import Field
    from qmigtool.x86.vcpu import VCpu

__all__ = ["SectionDraft"]


@dataclass(slots=True, eq=False)
class SectionDraft:
    """A section of device state; ``original`` is the device of the source, None for an added section.

    ``at`` is its offset, or where it is inserted. ``data`` is None while the body is as in the source.
    ``old_style``: the vmdesc describes it as one buffer (see :class:`~qmigtool.parsers.vmdesc.DeviceDescription`).
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
    vcpu: VCpu | None = None
    """Cache of :meth:`~qmigtool.rewrite.draft.Draft.vcpu`, the only user."""

    @property
    def device(self) -> Device:
        """The device as it will be; offsets of a body that was changed count from its start."""
        if self._device is None:
            if self.data is None and self.original is not None and self.section is self.original.section:
                self._device = self.original
            else:
                body = self.body
                place = replace(self.section, offset=0, body_offset=0, length=len(body), body_length=len(body))
                schema_name = self.original.schema_name if self.original is not None else None
                self._device = Device(place, self.description, BufferSource(body), schema_name)
        return self._device

    @property
    def label(self) -> str:
        """``name@instance``."""
        return f"{self.section.name}@{self.section.instance_id}"

    @property
    def last_name(self) -> str:
        """The idstr without the device path that may precede it."""
        return (self.section.name or "").rsplit("/", 1)[-1]

    @property
    def offset(self) -> int | None:
        """Where the source has the section; None for an added one."""
        return None if self.original is None else self.original.section.offset

    @property
    def body(self) -> bytes:
        """The bytes of the body as they will be."""
        if self.data is None:
            original = self.original
            assert original is not None  # noqa: S101 - for the type checker: an added section has data
            return original.body
        return self.data

    @property
    def touched(self) -> bool:
        """Whether it differs from the source, other than by being dropped."""
        return self.original is None or self.data is not None or self.section is not self.original.section

    def state(self) -> tuple[Any, ...]:
        """Return what edits can change, for :meth:`restore`."""
        return self.section, self.description, self.data, self.dropped

    def restore(self, state: tuple[Any, ...]) -> None:
        """Make it what it was."""
        self.section, self.description, self.data, self.dropped = state
        self._device = None

    def place(self, field: Field) -> int:
        """Return where a field of :attr:`device` starts in the body."""
        return field.offset - self.device.section.body_offset

    def patch(self, field: Field, raw: bytes) -> None:
        """Replace the bytes of a field by the same number of bytes."""
        if len(raw) != field.length:
            raise UsageError(f"{self.label}/{field.name} has {field.length} bytes, not {len(raw)}")
        at, body = self.place(field), self.body
        self.data = body[:at] + raw + body[at + field.length :]
        self._device = None

    def reshape(self, change: Callable[[BodyDraft], None]) -> None:
        """Decode the body, let ``change`` change it, and encode it again, with its description."""
        device = self.device
        _ = device.fields  # raises where the description does not fit the bytes
        device.check_length()  # ... nor may QEMU have described a field wrongly that can be read all the same
        assert self.description is not None  # noqa: S101 - for the type checker: fields has checked it
        tree = BodyDraft.load(self.description, self.body)
        if tree.encode() != self.body:
            # Encoding would silently change the bytes to match the description.
            raise StreamError(
                "the vmdesc describes other subsections than the body has", offset=self.offset, section=self.label
            )
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
        """Return the section's description for the vmdesc, or None if it is not known."""
        if self.description is None:
            return None
        section = self.section
        return DeviceDescription(section.name or "", section.instance_id or 0, self.description, self.old_style)
