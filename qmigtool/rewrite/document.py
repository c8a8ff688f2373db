"""The documents that ``rewrite --json`` prints, without their ``schema``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qmigtool.findings import Finding, Severity
from qmigtool.stream.info import problems_document

if TYPE_CHECKING:
    from qmigtool.rewrite.rewriter import Rewriter
    from qmigtool.rewrite.splice import Splice
    from qmigtool.stream.model import Stream

__all__ = ["copy_document", "rewrite_document", "unwrap_document", "wrap_document"]

MAX_SHOWN = 4096  # bytes of a splice


def rewrite_document(rewriter: Rewriter, splices: Sequence[Splice], written: int | None) -> dict[str, Any]:
    """Return what was changed, or would be; ``written`` is the size of the output in bytes, None without one."""
    stream = rewriter.draft.stream
    return {
        "edits": [change.as_dict() for change in rewriter.changes],
        "losses": [one.as_dict() for one in rewriter.draft.losses],
        "notes": [one.as_dict() for one in rewriter.draft.notes],
        "splices": [_splice(splice, stream) for splice in splices],
        "bytes": written,
        **problems_document(stream),
    }


def copy_document(stream: Stream, notes: Sequence[str], written: int | None) -> dict[str, Any]:
    """Return the document about a copy without edits."""
    return {
        "edits": [],
        "notes": [Finding("", Severity.NOTE, one).as_dict() for one in notes],
        "bytes": written,
        **problems_document(stream),
    }


def unwrap_document(rewriter: Rewriter, written: int) -> dict[str, Any]:
    """Return what a stream was taken out of; ``written`` is the size of the output in bytes."""
    container = rewriter.draft.stream.container
    return {
        "container": container.name,
        "removed": list(container.removed),
        "notes": rewriter.notes,
        "bytes": written,
        **problems_document(rewriter.draft.stream),
    }


def wrap_document(rewriter: Rewriter, kind: str, written: int) -> dict[str, Any]:
    """Return what a stream was put into; ``written`` is the size of the output in bytes."""
    return {
        "container": kind,
        "notes": rewriter.notes,
        "bytes": written,
        **problems_document(rewriter.draft.stream),
    }


def _splice(splice: Splice, stream: Stream) -> dict[str, Any]:
    """Return a splice; the bytes of a long one are left out (null)."""
    short = splice.length <= MAX_SHOWN and isinstance(splice.data, bytes) and len(splice.data) <= MAX_SHOWN
    return {
        "offset": splice.offset,
        "old_length": splice.length,
        "new_length": splice.size,
        "old": bytes(stream.source.view(splice.offset, splice.length)).hex() if short else None,
        "new": splice.data.hex() if short and isinstance(splice.data, bytes) else None,
    }
