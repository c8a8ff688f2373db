"""The spans of a stream: what :class:`~qmigtool.parsers.savevm.Reader` yields, and the walk from the end finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Section", "Type"]


class Type(StrEnum):
    """The kind of a span of the stream. Together the spans cover every byte."""

    PREFIX = "prefix"  # a hole before the stream: QEMU's file:PATH,offset=N
    HEADER = "header"
    CONFIGURATION = "configuration"
    START = "start"
    PART = "part"
    END = "end"
    FULL = "full"
    COMMAND = "command"
    EOF = "eof"
    VMDESC = "vmdesc"
    TAIL = "tail"  # whatever follows: padding of a block device, garbage
    HOLE = "hole"  # bytes that a capture does not have
    UNREADABLE = "unreadable"  # the part that an error made unreadable


@dataclass(frozen=True, slots=True)
class Section:
    """One item of the stream and its span, footer included; offsets and lengths in bytes.

    ``name`` is the idstr (of the START, for PART and END), or a command's name without ``MIG_CMD_``. ``complete`` is
    False for the item in which an input ends or breaks.
    """

    type: Type
    offset: int
    length: int
    body_offset: int
    body_length: int
    section_id: int | None = None
    name: str | None = None
    instance_id: int | None = None
    version_id: int | None = None
    measured: str | None = None  # how the body's end was found: records, vmdesc, footer search, schema
    complete: bool = True

    @property
    def end(self) -> int:
        """The offset after the section."""
        return self.offset + self.length
