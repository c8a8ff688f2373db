"""Edits of structure: add, drop or rename sections and subsections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qmigtool.devices.schema.shapes import find_shape, place_of
from qmigtool.errors import UsageError
from qmigtool.parsers.vmdesc import Description, FieldDescription
from qmigtool.parsers.vmstate import Kind
from qmigtool.rewrite.body import BodyDraft
from qmigtool.rewrite.values import brief, encode, name_bytes

if TYPE_CHECKING:
    from qmigtool.rewrite.draft import Draft
    from qmigtool.rewrite.sectiondraft import SectionDraft

__all__ = [
    "add_section",
    "add_subsection",
    "drop_section",
    "drop_subsection",
    "rename_section",
    "rename_subsection",
    "set_version",
]


def _split(draft: Draft, path: str) -> tuple[SectionDraft, str]:
    """Split the path of a subsection into its section and the path inside."""
    section, rest = draft.find(path)
    if not rest or section.device.field(rest).kind is not Kind.SUBSECTION:
        raise UsageError(f"{path!r} is not a subsection", expected="one, for example cpu@0/cpu/avx512")
    return section, rest


def _edit(section: SectionDraft, path: str, change: Callable[[list[BodyDraft], int], None]) -> None:
    """Change the list of subsections that contains the one at ``path``."""

    def find(tree: BodyDraft) -> None:
        for body in tree.walk():
            for index, sub in enumerate(body.subsections):
                if sub.path == path:
                    change(body.subsections, index)
                    return
        raise UsageError(f"{section.label} has no subsection {path!r}")

    section.reshape(find)


def drop_subsection(draft: Draft, path: str, why: str = "") -> None:
    """Drop a subsection; in the loader its fields are zero, or keep their reset values."""
    section, rest = _split(draft, path)
    field = section.device.field(rest)
    draft.change(rest, draft.source_offset(section, rest), field.raw, None, why, device=section.label)

    def drop(subsections: list[BodyDraft], index: int) -> None:
        del subsections[index]

    _edit(section, rest, drop)


def rename_subsection(draft: Draft, path: str, name: str) -> None:
    """Rename a subsection. A loader expects it to start with the name of its parent."""
    section, rest = _split(draft, path)
    _check_name(name)
    old = section.device.field(rest).name
    draft.change(rest, draft.source_offset(section, rest), old, name, device=section.label)

    def rename(subsections: list[BodyDraft], index: int) -> None:
        subsections[index].name = name

    _edit(section, rest, rename)


def set_version(draft: Draft, path: str, version: int) -> None:
    """Set the version_id of a section or a subsection; its bytes stay."""
    _check_word(version)
    section, rest = draft.find(path)
    if rest:
        _split(draft, path)
        offset, old = draft.source_offset(section, rest), section.device.field(rest).version_id
    else:
        offset, old = section.offset, section.section.version_id
        section.rename(version_id=version)

    def change(tree: BodyDraft) -> None:
        for body in tree.walk():
            if body.path == rest:
                body.version = version

    if section.description is not None:
        section.reshape(change)
    draft.change(rest, offset, old, version, device=section.label)


def add_subsection(
    draft: Draft,
    path: str,
    name: str,
    values: Mapping[str, Any] | None = None,
    data: bytes | None = None,
    version: int | None = None,
    why: str = "",
) -> None:
    """Add the subsection ``name`` to the device, struct or subsection at ``path``.

    Its shape is the one that QEMU is known to send (see :mod:`qmigtool.devices.schema`); fields are zero unless
    ``values`` has them. An unknown subsection needs ``data``, its bytes, which stay opaque.
    """
    section, rest = draft.find(path)
    _check_name(name)
    if section.old_style:
        raise UsageError(f"{section.label} has no vmstate description and therefore no subsections")
    parent = next((body for body in _tree(section).walk() if body.path == rest), None)
    if parent is None:
        raise UsageError(f"{path!r} cannot have subsections", expected="a device, a struct or a subsection")
    if any(sub.name == name for sub in parent.subsections):
        raise UsageError(f"{section.label} has the subsection {name!r} already")
    shape = find_shape(draft.stream.schema, name)
    if data is None and shape is None:
        raise UsageError(f"the shape of a subsection {name!r} is not known", expected="its bytes (data)")
    if shape is None or (data is not None and len(data) != shape.size):
        shape = opaque(name, 1 if version is None else version, data or b"")
    body = BodyDraft.load(shape, data if data is not None else bytes(shape.size))
    if version is not None:
        _check_word(version)
        body.version = version

    def insert(tree: BodyDraft) -> None:
        for one in tree.walk():
            if one.path == rest:
                one.subsections.insert(place_of(name, [sub.name for sub in one.subsections]), body)
                return

    section.reshape(insert)
    inside = f"{rest}/{name}" if rest else name
    _fill(section, inside, values)
    added = section.device.field(inside)
    draft.change(inside, None, None, added.raw, why, device=section.label)


def _fill(section: SectionDraft, inside: str, values: Mapping[str, Any] | None) -> None:
    """Set the fields of an added section or subsection."""
    for name, value in (values or {}).items():
        field = section.device.field(f"{inside}/{name}" if inside else name)
        section.patch(field, encode(field, value))


def opaque(name: str, version: int, data: bytes) -> Description:
    """Describe bytes of an unknown shape."""
    fields = (FieldDescription("data", "buffer", len(data), None, None, ()),) if data else ()
    return Description.of(name, version, fields, ())


def _tree(section: SectionDraft) -> BodyDraft:
    _ = section.device.fields
    section.device.check_length()
    assert section.description is not None  # noqa: S101 - for the type checker: fields has checked it
    return BodyDraft.load(section.description, section.body)


# -- sections --------------------------------------------------------------------------------------------------------


def drop_section(draft: Draft, path: str, why: str = "") -> None:
    """Drop the section of a device; in the loader the device keeps its reset state."""
    section = draft.section(path)
    draft.change("", section.offset, section.body, None, why, device=section.label)
    section.dropped = True


def rename_section(draft: Draft, path: str, name: str | None = None, instance_id: int | None = None) -> None:
    """Change the idstr of a section, its instance_id, or both."""
    section = draft.section(path)
    old = section.label
    wanted = (name or section.section.name, section.section.instance_id if instance_id is None else instance_id)
    if any(s is not section and (s.section.name, s.section.instance_id) == wanted for s in draft.sections):
        raise UsageError(f"a section {wanted[0]}@{wanted[1]} exists already")
    if name is not None:
        _check_name(name)
        section.rename(name=name)
    if instance_id is not None:
        _check_word(instance_id)
        section.rename(instance_id=instance_id)
    draft.change("", section.offset, old, section.label, device=old)


def add_section(
    draft: Draft,
    name: str,
    instance_id: int,
    version: int,
    data: bytes | None = None,
    values: Mapping[str, Any] | None = None,
    after: str | None = None,
    why: str = "",
) -> None:
    """Add a section of device state after ``after`` (default: after the last one).

    Without ``data`` its shape is the one that QEMU is known to send; its fields are zero unless ``values`` has them.
    """
    _check_name(name)
    _check_word(instance_id)
    _check_word(version)
    if any(s.section.name == name and s.section.instance_id == instance_id for s in draft.sections):
        raise UsageError(f"a section {name}@{instance_id} exists already")
    if not draft.sections:
        raise UsageError("a stream without device state has no place for a section")
    before = draft.section(after) if after is not None else draft.sections[-1]
    shape = find_shape(draft.stream.schema, name, version)
    if data is not None and shape is not None and len(data) != shape.size:
        shape = None
    if data is None and shape is None:
        raise UsageError(
            f"the shape of a section {name!r} of version {version} is not known", expected="its bytes (data)"
        )
    description = shape or opaque(name.rsplit("/", 1)[-1], version, data or b"")
    body = data if data is not None else bytes(description.size)
    section = draft.insert(name, instance_id, version, description, body, before)
    _fill(section, "", values)
    draft.change("", None, None, section.body, why, device=section.label)


def _check_name(name: str) -> None:
    if not 1 <= len(name_bytes(name)) <= 255:
        raise UsageError(f"a name of {len(name_bytes(name))} bytes", expected="1 to 255")


def _check_word(number: int) -> None:
    if not 0 <= number < 1 << 32:
        raise UsageError(f"{brief(number)} does not fit", expected="0 to 0xffffffff")
