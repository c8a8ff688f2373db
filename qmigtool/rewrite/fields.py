"""Edits of values: a field of the device state changes, and no byte moves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from qmigtool.errors import UsageError
from qmigtool.parsers.vmstate import Kind
from qmigtool.rewrite.values import encode, text_of

if TYPE_CHECKING:
    from qmigtool.parsers.vmstate import Field
    from qmigtool.rewrite.draft import Draft
    from qmigtool.rewrite.sectiondraft import SectionDraft

__all__ = ["assign", "set_field", "shown"]

MAX_PARTS = 4  # changes recorded one by one; with more, the whole field is recorded


def set_field(draft: Draft, path: str, value: Any) -> None:
    """Set the field at ``name[@instance]/field/...`` (see :func:`qmigtool.rewrite.values.encode`)."""
    section, rest = draft.find(path)
    if not rest:
        raise UsageError(f"{path!r} is a whole device", expected="a field, for example cpu@0/env.mxcsr")
    assign(draft, section, rest, value)


def assign(draft: Draft, section: SectionDraft, path: str, value: Any, why: str = "") -> None:
    """Set a field of ``section``, and record what changes by that."""
    field = section.device.field(path)
    raw = encode(field, value)
    if raw == field.raw:
        return
    before = _Before(draft, section, path)
    section.patch(field, raw)
    for where, offset, old, new in before.compared(section.device.field(path)):
        draft.change(where, offset, old, new, why, device=section.label)


class _Before:
    """A field before it is changed, to record the parts that differ, or all of it if they are many."""

    def __init__(self, draft: Draft, section: SectionDraft, path: str) -> None:
        self._field = section.device.field(path)
        self._path = path
        self._offset = draft.source_offset(section, path)

    def compared(self, new: Field) -> list[tuple[str, int | None, Any, Any]]:
        """Return (path, offset in the source, old value, new value) of what differs."""
        parts = list(islice(_differing(self._field, new, self._path), MAX_PARTS + 1))
        if len(parts) > MAX_PARTS:
            parts = [(self._path, self._field, new)]
        base = self._field.offset
        return [
            (path, None if self._offset is None else self._offset + old.offset - base, shown(old), shown(new))
            for path, old, new in parts
        ]


def _differing(old: Field, new: Field, path: str) -> Iterator[tuple[str, Field, Field]]:
    """Yield (path, old, new) of the innermost fields that differ; an array of numbers counts as one."""
    if old.raw == new.raw:
        return
    if old.kind is Kind.LEAF or old.is_plain_array:
        yield path, old, new
        return
    for one, other in zip(old.iter_children(), new.iter_children(), strict=True):
        # The name of an array element contains the name of the array.
        inner = path[: len(path) - len(old.name)] + one.name if old.kind is Kind.ARRAY else f"{path}/{one.name}"
        yield from _differing(one, other, inner)


def shown(field: Field) -> Any:
    """Return a field's value as a change shows it: the text of a text buffer, the bytes of a field without a value."""
    if field.value is None or field.kind is Kind.SUBSECTION:
        return field.raw
    text = text_of(field.raw) if field.type == "buffer" else None
    return field.value if text is None else text
