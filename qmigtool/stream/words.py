"""Descriptions of what reading did not reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.errors import GapError, TruncatedError

if TYPE_CHECKING:
    from qmigtool.errors import QmigError

__all__ = ["not_reached"]


def not_reached(error: QmigError, what: str = "the file") -> str:
    """Return why a part of the stream was not reached: where ``what`` is truncated, or where the error is."""
    where = "" if error.offset is None else f" at {error.offset:#x}"
    if isinstance(error, GapError):
        return f"not known: the capture lacks {error.length} bytes{where}"
    if isinstance(error, TruncatedError):
        return f"not reached: {what} is truncated{where}"
    return f"not reached: reading {what} stopped{where}"
