"""The document that ``sections --json`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qmigtool import tables
from qmigtool.stream.info import problems_document
from qmigtool.stream.missing import is_complete

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream

__all__ = ["sections_document"]


def sections_document(stream: Stream) -> dict[str, Any]:
    """Return every item of a stream in order, and whether it is complete."""
    found = tables.as_records(tables.sections.columns, tables.sections.rows(stream))
    return {"sections": found, "complete": is_complete(stream), **problems_document(stream)}
