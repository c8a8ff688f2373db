"""Add a field to a body or remove one, as another machine type sends the body.

QEMU sends some fields under a condition that both sides must share (``VMSTATE_..._TEST``). The wire format does not
mark whether such a field is present, so a loader with another condition misreads every byte after it. The functions
here insert or remove the field and update the sizes in the vmdesc.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qmigtool.devices.schema.shapes import find_field, find_struct
from qmigtool.errors import StreamError, UsageError
from qmigtool.parsers.vmdesc import Description, FieldDescription
from qmigtool.parsers.vmdescspans import MAX_NUMBER
from qmigtool.parsers.vmstate import INTEGERS, can_decode, encode_field, inside
from qmigtool.rewrite.body import BodyDraft, EntryDraft
from qmigtool.rewrite.fields import shown
from qmigtool.rewrite.values import brief, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from qmigtool.devices.schema.model import Schema
    from qmigtool.rewrite.draft import Draft
    from qmigtool.rewrite.sectiondraft import SectionDraft

__all__ = ["MAX_FIELD", "add_field", "drop_field", "put_in", "take_out"]

MAX_FIELD = 16 << 20  # bytes of a field that is inserted; the largest known are a display's palettes
_TYPE = re.compile(r"(?P<type>[^:\[\]]{1,255}?)(?::(?P<bytes>[0-9]{1,9}))?(?:\[(?P<count>[0-9]{1,9})\])?")
_EXPECTED = "as uint32, uint8[16], buffer:64, or the name of a known struct"
_TYPES = f"{', '.join((*INTEGERS, 'bool'))}; buffer:BYTES, or another type that is opaque bytes; a known struct"


def add_field(
    draft: Draft, path: str, kind: str | None = None, value: Any = None, after: str | None = None, why: str = ""
) -> None:
    """Insert the field ``path`` into the device, struct or subsection that contains it.

    ``kind`` is a type as the vmdesc names it: ``uint32``, ``bool``; ``uint8[16]`` for an array; ``buffer:64`` (or
    another type that is opaque) for that many bytes; the name of a struct that QEMU is known to send. Without it, type
    and place are those that QEMU is known to send (see :mod:`qmigtool.devices.schema`). The field follows ``after``
    (``""``: it is the first), else it goes to its known place, else to the end. Without ``value`` it is zero. Raises
    :class:`~qmigtool.errors.UsageError`.
    """
    section, rest = draft.find(path)
    body, name = _inside(section, rest, path)
    there = [entry.description.name for entry in body.entries]
    if name in there:
        raise UsageError(f"{section.label} has the field {rest!r} already")
    known = find_field(draft.stream.schema, body.name, name, there)
    if kind is None and known is None:
        raise UsageError(
            f"the type of a field {name!r} in {body.name!r} is not known", expected=f"its type, {_EXPECTED}"
        )
    described = known[0] if kind is None and known is not None else _described(draft.stream.schema, name, kind or "")
    if after is not None and after and after not in there:
        raise UsageError(f"{body.name!r} has no field {after!r}", expected="one of " + ", ".join(dict.fromkeys(there)))
    before = {after} if after is not None else {*known[1]} if known is not None else {*there}
    put_in(section, body.path, described, before)
    _check_readable(section, rest, described)
    if value is not None:
        try:
            field = section.device.field(rest)
            section.patch(field, encode(field, value))
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None
    draft.change(rest, None, None, shown(section.device.field(rest)), why, device=section.label)


def _check_readable(section: SectionDraft, path: str, described: FieldDescription) -> None:
    """Refuse a type whose bytes, as they were written, do not decode and encode to themselves."""
    field = section.device.field(path)
    try:
        if encode_field(field) == field.raw:
            return
        why = "it encodes to other bytes"
    except (StreamError, ValueError, OverflowError) as error:
        why = str(error)
    raise UsageError(
        f"a field of type {brief(described.type)} and {described.total} zero bytes cannot be read back: {why}",
        expected=_EXPECTED,
    )


def drop_field(draft: Draft, path: str, why: str = "") -> None:
    """Remove a field from the device, struct or subsection that contains it: a whole array, not an element of one."""
    section, rest = draft.find(path)
    body, name = _inside(section, rest, path)
    if all(entry.description.name != name for entry in body.entries):
        section.device.field(rest)  # raises, with similar names, if there is none
        raise UsageError(f"{path!r} is not a separate field", expected="a field or a whole array; --drop-subsection")
    old = shown(section.device.field(rest))
    draft.change(rest, draft.source_offset(section, rest), old, None, why, device=section.label)
    take_out(section, body.path, name)


def put_in(section: SectionDraft, path: str, described: FieldDescription, before: Collection[str | None]) -> None:
    """Insert a field of zeros into the body at ``path``, after the last field whose name is in ``before``."""

    def change(body: BodyDraft) -> None:
        names = [entry.description.name for entry in body.entries]
        at = 1 + max((index for index, name in enumerate(names) if name in before), default=-1)
        body.entries.insert(at, _entry(described))

    _at(section, path, change)


def take_out(section: SectionDraft, path: str, name: str) -> None:
    """Remove the field ``name`` from the body at ``path``."""

    def change(body: BodyDraft) -> None:
        body.entries = [entry for entry in body.entries if entry.description.name != name]

    _at(section, path, change)


def _at(section: SectionDraft, path: str, change: Callable[[BodyDraft], None]) -> None:
    def find(tree: BodyDraft) -> None:
        change(next(body for body in tree.walk() if body.path == path))

    section.reshape(find)


def _inside(section: SectionDraft, rest: str, path: str) -> tuple[BodyDraft, str]:
    """Return the innermost body on the way to a field, and the field's name in it."""
    if section.old_style:
        raise UsageError(f"{section.label} has no vmstate description and therefore no fields")
    _ = section.device.fields
    section.device.check_length()
    assert section.description is not None  # noqa: S101 - for the type checker: fields has checked it
    tree = BodyDraft.load(section.description, section.body)
    found = tree
    for body in tree.walk():
        if rest.startswith(f"{body.path}/") and len(body.path) > len(found.path):
            found = body
    name = rest[len(found.path) + 1 :] if found.path else rest
    if not name:
        raise UsageError(f"{path!r} is a whole device", expected="a field, for example cpu@0/env.mxcsr")
    return found, name


def _described(schema: Schema, name: str, kind: str) -> FieldDescription:
    """Describe a field of a type as people write it."""
    match = _TYPE.fullmatch(kind)
    if match is None:
        raise UsageError(f"{brief(kind)} is not a field type", expected=_EXPECTED)
    type_, count = match["type"], None if match["count"] is None else int(match["count"])
    struct: Description | None = None
    if match["bytes"] is not None:
        size = int(match["bytes"])
        if not can_decode(type_, size):
            raise UsageError(f"a field of type {brief(type_)} and {size} bytes cannot be read", expected=_TYPES)
    elif type_ in INTEGERS:
        size = INTEGERS[type_].size
    elif type_ == "bool":
        size = 1
    else:
        struct = find_struct(schema, type_)
        if struct is None:
            raise UsageError(f"{brief(type_)} is not a known type or struct", expected=_TYPES)
        type_, size = "struct", struct.size
    described = FieldDescription(name, type_, size, count, struct, ())
    if count == 0 or not 0 < described.total <= min(MAX_FIELD, MAX_NUMBER):
        raise UsageError(f"a field of {described.total} bytes", expected=f"1 to {MAX_FIELD}")
    return described


def _entry(described: FieldDescription) -> EntryDraft:
    """Return an entry of zeros."""
    data, inner = bytes(described.total), inside(described)
    if inner is None:
        return EntryDraft(described, data)
    count = 1 if described.array_len is None else described.array_len
    return EntryDraft(described, [BodyDraft.load(inner, data, index * described.size) for index in range(count)])
