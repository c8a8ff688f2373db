"""Edits of values: a field of the device state gets another one, and no byte moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qmigtool.errors import UsageError
from qmigtool.parsers.vmstate import Kind
from qmigtool.rewrite.values import encode

if TYPE_CHECKING:
    from qmigtool.parsers.vmstate import Field
    from qmigtool.rewrite.draft import Draft, SectionDraft

__all__ = ["assign", "set_field", "shown"]


def set_field(draft: Draft, path: str, value: Any, edit: str = "set", why: str = "") -> None:
    """Give the field at ``name[@instance]/field/...`` another value (see :func:`qmigtool.rewrite.values.encode`)."""
    section, rest = draft.find(path)
    if not rest:
        raise UsageError(f"{path!r} is a whole device", expected="a field, as in cpu@0/env.mxcsr")
    assign(draft, section, rest, value, edit, why)


def assign(draft: Draft, section: SectionDraft, path: str, value: Any, edit: str, why: str = "") -> None:
    """Give a field of ``section`` another value, and take note of it if it is another one."""
    field = section.device.field(path)
    raw = encode(field, value)
    if raw == field.raw:
        return
    old, offset = shown(field), draft.source_offset(section, path)
    section.patch(field, raw)
    draft.change(edit, f"{section.label}/{path}", offset, old, shown(section.device.field(path)), why)


def shown(field: Field) -> Any:
    """Return what a change shows of a field: its value, or its bytes where it has none."""
    return field.raw if field.value is None or field.kind is Kind.SUBSECTION else field.value
