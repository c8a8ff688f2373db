"""Devices: sections of device state with the description that decodes them, and paths into both."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from qmigtool.errors import QmigError, StreamError, UnsupportedError, UsageError
from qmigtool.parsers.vmdesc import Description, DeviceDescription, FieldDescription
from qmigtool.parsers.vmstate import Field, Kind, body_fields
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qmigtool.parsers.section import Section
    from qmigtool.parsers.vmstate import Bytes

__all__ = ["Device", "find"]

PIECE = 1 << 20  # bytes of two bodies that are compared at once


class Device:
    """One device section; ``name`` is its idstr. Fields are decoded on access.

    ``schema_name`` names the schema that decodes it if the stream has no vmdesc, and is None otherwise.
    """

    def __init__(
        self,
        section: Section,
        description: DeviceDescription | Description | None,
        source: Bytes,
        schema_name: str | None = None,
    ) -> None:
        self.section = section
        self.name = section.name or ""
        self.instance_id = section.instance_id or 0
        self.version_id = section.version_id or 0
        self._described = description
        self.schema_name = schema_name
        self._source = source
        self._fields: tuple[Field, ...] | None = None
        self._named: dict[str, Field] | None = None  # the first of each name: checks look up thousands of them

    def __repr__(self) -> str:
        return f"<Device {self.label}, {self.section.body_length} bytes at {self.section.body_offset:#x}>"

    @property
    def description(self) -> Description | None:
        """The description of the body, or None; made on access."""
        described = self._described
        return described.description if isinstance(described, DeviceDescription) else described

    @property
    def label(self) -> str:
        """``name@instance``, the start of a path."""
        return f"{self.name}@{self.instance_id}"

    @property
    def body(self) -> bytes:
        """The bytes of the section's body."""
        return bytes(self._source.view(self.section.body_offset, self.section.body_length))

    def same_body(self, other: Device) -> bool:
        """Compare the bodies, a piece at a time: neither has to be in memory completely."""
        length = self.section.body_length
        if length != other.section.body_length:
            return False
        for at in range(0, length, PIECE):
            size = min(PIECE, length - at)
            mine, theirs = (bytes(one._source.view(one.section.body_offset + at, size)) for one in (self, other))
            if mine != theirs:
                return False
        return True

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields and subsections of the body.

        Raises :class:`~qmigtool.errors.UnsupportedError` if they have no description, or a wrong one from QEMU
        (before 11, arrays of pointers with NULLs among them: s390x ``css``), and
        :class:`~qmigtool.errors.StreamError` if the bytes contradict the description.
        """
        section = self.section
        self._source.view(section.body_offset, 0)  # raises if the stream is closed
        if self._fields is None:
            if self.description is None:
                raise UnsupportedError("device state without a vmdesc", offset=section.body_offset, section=self.label)
            description = self._measured(self.description)
            try:
                self._fields = tuple(body_fields(self._source, description, section.body_offset))
            except QmigError as error:
                error.section = self.label
                raise
        return self._fields

    def ask(self) -> None:
        """Check that the budget allows all values of the device; raises :class:`~qmigtool.errors.BudgetError`."""
        count = 0 if self.description is None else self.description.objects
        current().ask("objects", count, f"it has {count} values", self.section.body_offset, self.label)

    def charge(self) -> None:
        """Charge all values of the device, one of many, to the budget; raises :class:`~qmigtool.errors.BudgetError`."""
        count = 0 if self.description is None else self.description.objects
        current().charge("objects", count, self.section.body_offset, self.label)

    def check_length(self) -> None:
        """Compare the section's length with the described one.

        Raises :class:`~qmigtool.errors.StreamError` if they differ, or :class:`~qmigtool.errors.UnsupportedError` if
        the description is of the kind that QEMU gets wrong.
        """
        description, section = self.description, self.section
        if description is None or description.size == section.body_length:
            return
        message = f"the vmdesc describes {description.size} bytes, the section has {section.body_length}"
        if any(map(_is_of_nothing, description.fields)):
            raise UnsupportedError(
                "a device that its vmdesc describes wrongly", message, offset=section.body_offset, section=self.label
            )
        raise StreamError(message, offset=section.body_offset, section=self.label)

    def _measured(self, description: Description) -> Description:
        """Return the description of the body, with its length: the rest gives that of one wrongly described array.

        Raises the errors of :meth:`check_length`.
        """
        missing = self.section.body_length - description.size
        wrong = [field for field in description.fields if _is_of_nothing(field)]
        if missing <= 0 or len(wrong) != 1:
            self.check_length()
            return description
        whole = FieldDescription(wrong[0].name, "buffer", wrong[0].total + missing, None, None, ())
        fields = tuple(whole if field is wrong[0] else field for field in description.fields)
        return Description.of(description.name, description.version, fields, description.subsections)

    def field(self, path: str) -> Field:
        """Return the field at ``path``, like ``env.regs[3]`` or ``cpu/avx512/env.opmask_regs[0]``.

        The end of a name is enough if only one field ends like that: ``xcr0``. :meth:`get` accepts whole names only.

        Raises :class:`~qmigtool.errors.UsageError` with similar names, or for a subsection that QEMU did not send.
        """
        try:
            return _walk(self.fields, path, self.label, short=True)
        except UsageError as error:
            self._explain(path, error)
            raise

    def _explain(self, path: str, error: UsageError) -> None:
        """Raise an error that says so where a path names a subsection that was not sent."""
        from qmigtool.devices.schema.vmsds import known_subsections  # its tables are read only for this

        vmsd = self.name if self.description is None else self.description.name
        for name in sorted(known_subsections(vmsd), key=len, reverse=True):
            short = name.removeprefix(f"{vmsd}/")
            if any(path == one or path.startswith(f"{one}/") for one in (name, short)) and not self.subsection(name):
                words = f"{self.label} has no subsection {name} in this stream: QEMU sends it only when it is needed"
                raise UsageError(words) from error

    def get(self, path: str) -> Field | None:
        """Return the field at ``path``, or None."""
        fields = self.fields
        if self._named is None:
            self._named = {field.name: field for field in reversed(fields)}
        found = self._named.get(path)
        if found is not None:
            return found
        try:
            return _walk(fields, path, self.label)
        except UsageError:
            return None

    def number(self, path: str) -> int | None:
        """Return the number at ``path``, or None if there is no such field.

        Raises :class:`~qmigtool.errors.StreamError` if the vmdesc gives it another type.
        """
        field = self.get(path)
        if field is None:
            return None
        value = field.value
        if not isinstance(value, int):
            raise StreamError(
                f"{path} is a {field.type} of {field.length} bytes",
                offset=field.offset,
                section=self.label,
                expected="a number",
            )
        return value

    def word(self, path: str) -> int | None:
        """Return the 64 bits of the register at ``path``, whatever sign its vmdesc gives it; else as :meth:`number`."""
        value = self.number(path)
        return None if value is None else value % (1 << 64)

    def subsection(self, name: str) -> Field | None:
        """Return the top-level subsection ``name``, like ``cpu/xss``, or None if it was not sent."""
        return next((f for f in self.fields if f.kind is Kind.SUBSECTION and f.name == name), None)


SHOWN = 8  # names of several candidates
_INDEX = re.compile(r"\[(\d{1,8})\](/|$)?")


def _is_of_nothing(field: FieldDescription) -> bool:
    """Whether QEMU before 10.0 may have described an array of pointers as one byte each, because the first one is NULL.

    The structs of the other pointers are in the body all the same (``css`` of s390_css).
    """
    return field.type == "struct" and field.struct is not None and not field.struct.fields


def _walk(fields: Sequence[Field], path: str, where: str, *, short: bool = False) -> Field:
    array = None
    # Names may contain "/", "." and "[0]", so the longest matching name wins, not the first separator.
    for field in sorted((f for f in fields if path.startswith(f.name)), key=lambda f: -len(f.name)):
        rest = path[len(field.name) :]
        if field.kind is Kind.ARRAY and not field.is_list and rest.startswith(f"/{field.name}["):
            rest = rest[1 + len(field.name) :]  # an element's own name starts with the array's
        while rest.startswith("[") and field.kind is Kind.ARRAY:
            match = _INDEX.match(rest)
            if match is None or int(match[1]) >= field.count:
                raise UsageError(f"{where}/{field.name} has no element {rest}", expected=f"[0] to [{field.count - 1}]")
            field = field.element(int(match[1]))
            rest = rest[match.end() :] if match[2] is None else "/" + rest[match.end() :]
        rest = "" if rest == "/" else rest
        if not rest:
            return field
        # The elements of an array are reached by index, without creating them.
        if rest.startswith("/") and (field.kind in (Kind.STRUCT, Kind.SUBSECTION) or field.is_list):
            return _walk(field.children, rest[1:], f"{where}/{field.name}", short=short)
        array = field if rest.startswith("/") and field.kind is Kind.ARRAY else array
    if not short:  # no similar names are reported
        raise UsageError(f"{where} has no field {path!r}")
    if array is not None:
        example = f"{array.name}[0]{path[len(array.name) :]}"
        raise UsageError(f"{where}/{array.name} is an array", expected=f"an index, as in {example}")
    found = _short(fields, path)
    if len(found) == 1:
        return _walk(fields, found[0], where, short=True)
    names = [field.name for field in fields]
    near = found or difflib.get_close_matches(path.split("/")[0], names, n=3, cutoff=0.5)
    lists = f"`qmigtool show FILE {where}` lists"
    hint = f"one {'of' if found else 'like'} {_several(near)}; {lists} them" if near else f"one that {lists}"
    raise UsageError(f"{where} has no field {path!r}", expected=hint)


def _short(fields: Sequence[Field], path: str) -> list[str]:
    """Return the paths that match a short name: ``xcr0`` is env.xcr0; ``env.cr`` any of env.cr[0], env.cr[2] ..."""
    head, slash, rest = path.partition("/")
    name = head.partition("[")[0]
    ends = [field.name for field in fields if field.name.endswith((f".{name}", f"/{name}"))]
    if len(ends) == 1:
        return [ends[0] + path[len(name) :]]
    # The parts of an array that QEMU describes one by one.
    parts = [field.name for field in fields if field.name.startswith((f"{head}[", f"{head}."))]
    return (ends or [part + slash + rest for part in parts]) if name else []


def _several(names: Sequence[str]) -> str:
    """Name some of several candidates."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def find(devices: Iterable[Device], path: str) -> tuple[Device, str]:
    """Split ``name[@instance][/field...]`` into a device and the path in it.

    Device names contain slashes, so the longest matching name wins; without ``@instance``, the first instance. The
    last part of a name is enough if only one device has it: ``virtio-net``.
    """
    devices = list(devices)
    for device in sorted(devices, key=lambda d: -len(d.name)):
        for prefix in (device.label, device.name):
            if path == prefix:
                return device, ""
            if path.startswith(prefix + "/"):
                return device, path[len(prefix) + 1 :]
    name, _, instance = path.split("/")[0].partition("@")
    # Short names: virtio-net is 0000:00:03.0/virtio-net, if there is only one.
    short = [
        d for d in devices if d.name.rpartition("/")[2] == name and (not instance or str(d.instance_id) == instance)
    ]
    if name and len(short) == 1:
        return short[0], path.partition("/")[2]
    if name and short:
        raise UsageError(
            f"{path.split('/')[0]!r} matches {len(short)} devices",
            expected="one of " + _several([d.label for d in short]),
        )
    if "*" in path:
        raise UsageError(f"{path!r} is a pattern", expected="the path of one device or field, such as cpu@1/env.xcr0")
    same = [device.label for device in devices if device.name == name]
    if same and instance:
        raise UsageError(f"no instance {instance} of device {name!r}", expected=_several(same))
    near = same or difflib.get_close_matches(
        name, {d.name for d in devices} | {d.name.rsplit("/", 1)[-1] for d in devices}, n=3
    )
    hint = f"one like {', '.join(near[:4])}" if near else "a device first, as in cpu/env.xcr0 or cpu@1/env.xcr0"
    hint += "; `qmigtool show FILE` lists them"
    raise UsageError(f"no device {name!r}", expected=hint)
