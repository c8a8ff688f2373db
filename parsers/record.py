"""Declaring a wire record once, and what is derived from the declaration.

A record is a class whose annotations are its fields in wire order::

    @record
    class Footer(Record):
        '''...the source of the fact...'''

        marker: u8
        section_id: be32

From it come a frozen dataclass with :meth:`Record.parse` (bytes to record, through a
:class:`~qmigtool.parsers.window.Window`), :meth:`Record.build` (record to bytes) and :meth:`Record.scapy_layer`
(a scapy ``Packet`` class for dissecting, building and fuzzing the same record by hand). scapy is imported only when
its layer is used. No record is read in a loop over pages; ``ram`` has its own code for that.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar, cast, dataclass_transform, get_type_hints

from qmigtool.errors import StreamError

if TYPE_CHECKING:
    from qmigtool.parsers.window import Window

__all__ = ["Blob", "Record", "be16", "be32", "be64", "decode_name", "encode_name", "record", "str8", "u8"]


@dataclass(frozen=True, slots=True)
class Fixed:
    """An unsigned integer: its ``code`` in the struct module, and the scapy field class of the same width."""

    code: str
    scapy: str


@dataclass(frozen=True, slots=True)
class Blob:
    """Exactly ``size`` raw bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Str8:
    """``u8`` length (1..255) and that many bytes, no NUL (QEMU: ``qemu_put_counted_string``)."""


u8 = Annotated[int, Fixed("B", "XByteField")]
be16 = Annotated[int, Fixed("H", "XShortField")]
be32 = Annotated[int, Fixed("I", "XIntField")]
be64 = Annotated[int, Fixed("Q", "XLongField")]
str8 = Annotated[str, Str8()]


def decode_name(raw: bytes) -> str:
    """Decode the bytes of a name to text that encodes to the same bytes, whatever they are."""
    return raw.decode("utf-8", "surrogateescape")


def encode_name(name: str) -> bytes:
    """Undo :func:`decode_name`."""
    return name.encode("utf-8", "surrogateescape")


class Record:
    """Base of every wire record; see the docstring of this module."""

    wire: ClassVar[tuple[tuple[str, Fixed | Blob | Str8], ...]]

    @classmethod
    def parse(cls, window: Window, pos: int) -> tuple[Self, int]:
        """Read one record at absolute offset ``pos``; return it and the offset after it.

        Raises the errors of :meth:`Window.need`, and :class:`~qmigtool.errors.StreamError` for an empty name.
        """
        values: list[Any] = []
        for name, kind in cls.wire:
            what = f"{cls.__name__}.{name}"
            if isinstance(kind, Fixed):
                size = struct.calcsize(">" + kind.code)
                values.append(int.from_bytes(window.view(pos, size, what), "big"))
                pos += size
            elif isinstance(kind, Blob):
                values.append(window.bytes(pos, kind.size, what))
                pos += kind.size
            else:
                length = window.u8(pos, what)
                if length == 0:
                    raise StreamError(f"{what} is empty", offset=pos, expected="a length byte from 1 to 255")
                values.append(decode_name(window.bytes(pos + 1, length, what)))
                pos += 1 + length
        return cls(*values), pos

    def build(self) -> bytes:
        """Return the record's bytes on the wire."""
        out = bytearray()
        for name, kind in self.wire:
            value = getattr(self, name)
            if isinstance(kind, Fixed):
                out += struct.pack(">" + kind.code, value)
            elif isinstance(kind, Blob):
                if len(value) != kind.size:
                    raise ValueError(f"{type(self).__name__}.{name} takes {kind.size} bytes, not {len(value)}")
                out += value
            else:
                raw = encode_name(value)
                if not 1 <= len(raw) <= 255:
                    raise ValueError(f"{type(self).__name__}.{name} takes 1 to 255 bytes, not {len(raw)}")
                out.append(len(raw))
                out += raw
        return bytes(out)

    @classmethod
    def scapy_layer(cls) -> Any:
        """Return a scapy ``Packet`` class with the same fields (made once per record)."""
        return _scapy_layer(cls.__name__, cls.__doc__, cls.wire)


R = TypeVar("R", bound=type[Record])


@dataclass_transform(frozen_default=True)
def record(cls: R) -> R:
    """Make a record from a class whose annotations are wire fields, in wire order."""
    made: Any = dataclass(frozen=True, slots=True)(cls)
    hints = get_type_hints(made, include_extras=True)
    # An Annotated hint carries its wire kind as its only extra.
    made.wire = tuple((field.name, hints[field.name].__metadata__[0]) for field in fields(made))
    return cast("R", made)


@cache
def _scapy_layer(record_name: str, doc: str | None, wire: tuple[tuple[str, Fixed | Blob | Str8], ...]) -> Any:
    from scapy import fields as scapy_fields
    from scapy.packet import Packet

    descriptions: list[Any] = []
    for name, kind in wire:
        if isinstance(kind, Fixed):
            descriptions.append(getattr(scapy_fields, kind.scapy)(name, 0))
        elif isinstance(kind, Blob):
            descriptions.append(scapy_fields.StrFixedLenField(name, b"", length=kind.size))
        else:
            length = f"{name}_length"
            descriptions.append(scapy_fields.FieldLenField(length, None, length_of=name, fmt="B"))
            descriptions.append(scapy_fields.StrLenField(name, b"", length_from=attrgetter(length)))
    return type(record_name, (Packet,), {"name": record_name, "fields_desc": descriptions, "__doc__": doc})
