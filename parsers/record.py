"""Declaring a wire record once, and what is derived from the declaration.

A record is a class whose annotations are its fields in wire order::

    @record
    class Footer(Record):
        '''...the source of the fact...'''

        marker: Annotated[int, Fixed("B", default=0x7E)]
        section_id: be32

An annotation carries the kind of the field (:class:`Fixed`, :class:`Blob`, :class:`Str8`, :class:`ListOf`,
:class:`PageOffset` and :class:`PageFlags`, each of them perhaps in a :class:`When`), and with it the names of its
values, its usual value, and what it counts. (A lambda in an annotation sees no names of its module.) From it come a
frozen dataclass with :meth:`Record.parse` (bytes to record, through a :class:`~qmigtool.parsers.window.Window`) and
:meth:`Record.build` (record to bytes), and the scapy layer of :mod:`qmigtool.layers`. No record is read in a loop over
pages; ``ram`` has its own code for that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum, IntFlag
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar, cast, dataclass_transform, get_type_hints

from qmigtool.errors import StreamError

if TYPE_CHECKING:
    from qmigtool.parsers.window import Window

__all__ = [
    *("Blob", "Fixed", "FOLLOWING", "ListOf", "Kind", "PageFlags", "PageOffset", "Record", "Str8", "When"),
    *("be16", "be32", "be64", "decode_name", "encode_name", "record", "str8", "u8"),
]

FOLLOWING = "the record that follows"
"""What a length counts that is not the length of a field."""

Size = Callable[[Any], int]


@dataclass(frozen=True, slots=True)
class Fixed:
    """An unsigned integer: its ``code`` in the struct module.

    ``names`` are the names of its values or bits, ``default`` is its usual value, ``constant`` the name of that where
    no other value has one. ``counts`` names the field whose length (bytes of a blob, elements of a list) it is, or is
    :data:`FOLLOWING`. ``order`` is ``big`` or ``host``: the record's :attr:`~Record.BYTE_ORDER`.
    """

    code: str
    names: type[IntEnum] | type[IntFlag] | None = None
    default: int = 0
    counts: str | None = None
    order: str = "big"
    constant: str | None = None

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return struct.calcsize(">" + self.code)

    def read(self, window: Window, pos: int, what: str, so_far: Any) -> tuple[int, int]:
        """Return the value at ``pos`` and the offset after it."""
        size = self.size
        raw = window.view(pos, size, what)
        swapped = self.order == "host" and so_far.BYTE_ORDER == "<"
        return int.from_bytes(raw, "little" if swapped else "big"), pos + size

    def put(self, value: int, what: str, so_far: Any) -> bytes:
        """Return the bytes of a value."""
        return struct.pack((so_far.BYTE_ORDER if self.order == "host" else ">") + self.code, value)


@dataclass(frozen=True, slots=True)
class Blob:
    """Exactly ``size`` raw bytes; a function gives it from the fields before."""

    size: int | Size

    def length(self, so_far: Any) -> int:
        """Return the number of bytes."""
        return self.size if isinstance(self.size, int) else self.size(so_far)

    def read(self, window: Window, pos: int, what: str, so_far: Any) -> tuple[bytes, int]:
        """Return the bytes at ``pos`` and the offset after them."""
        size = self.length(so_far)
        return window.bytes(pos, size, what), pos + size

    def put(self, value: bytes, what: str, so_far: Any) -> bytes:
        """Return the bytes; raises :class:`ValueError` for another number of them."""
        size = self.length(so_far)
        if len(value) != size:
            raise ValueError(f"{what} takes {size} bytes, not {len(value)}")
        return value


@dataclass(frozen=True, slots=True)
class Str8:
    """``u8`` length (1..255) and that many bytes, no NUL (QEMU: ``qemu_put_counted_string``)."""

    def read(self, window: Window, pos: int, what: str, so_far: Any) -> tuple[str, int]:
        """Return the name at ``pos`` and the offset after it; :class:`~qmigtool.errors.StreamError` if it is empty."""
        length = window.u8(pos, what)
        if length == 0:
            raise StreamError(f"{what} is empty", offset=pos, expected="a length byte from 1 to 255")
        return decode_name(window.bytes(pos + 1, length, what)), pos + 1 + length

    def put(self, value: str, what: str, so_far: Any) -> bytes:
        """Return the length and the bytes; raises :class:`ValueError` for a name that is empty or too long."""
        raw = encode_name(value)
        if not 1 <= len(raw) <= 255:
            raise ValueError(f"{what} takes 1 to 255 bytes, not {len(raw)}")
        return bytes([len(raw)]) + raw


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of integers or names: ``count`` gives their number from the fields before; None: up to the end."""

    of: Fixed | Str8
    count: Size | None

    def read(self, window: Window, pos: int, what: str, so_far: Any) -> tuple[tuple[Any, ...], int]:
        """Return the elements from ``pos`` on and the offset after them."""
        left = -1 if self.count is None else self.count(so_far)
        least = self.of.size if isinstance(self.of, Fixed) else 2
        if left > 0:
            window.need(pos, left * least, what)  # before a list is made: the number may be a lie
        found = []
        while left and not (left < 0 and window.at_end(pos)):
            value, pos = self.of.read(window, pos, what, so_far)
            found.append(value)
            left -= 1
        return tuple(found), pos

    def put(self, value: tuple[Any, ...], what: str, so_far: Any) -> bytes:
        """Return the bytes of the elements; raises :class:`ValueError` for another number of them."""
        if self.count is not None and len(value) != self.count(so_far):
            raise ValueError(f"{what} takes {self.count(so_far)} elements, not {len(value)}")
        return b"".join(self.of.put(one, what, so_far) for one in value)


@dataclass(frozen=True, slots=True)
class PageOffset:
    """The high bits of the be64 word that a :class:`PageFlags` completes: a multiple of the page size."""

    def read(self, window: Window, pos: int, what: str, so_far: Any) -> tuple[int, int]:
        """Return the offset in bytes; the word stays for the flags."""
        return window.be64(pos, what) & ~(so_far.PAGE_SIZE - 1), pos

    def put(self, value: int, what: str, so_far: Any) -> bytes:
        """Return nothing: the flags complete the word."""
        if value & (so_far.PAGE_SIZE - 1) or not 0 <= value < 1 << 64:
            raise ValueError(f"{what} takes a multiple of {so_far.PAGE_SIZE}, not {value:#x}")
        return b""


@dataclass(frozen=True, slots=True)
class PageFlags:
    """The low bits, below the page size, of the be64 word whose high bits are the field ``beside``."""

    names: type[IntFlag]
    default: int = 0
    beside: str = "addr"

    def read(self, window: Window, pos: int, what: str, so_far: Any) -> tuple[int, int]:
        """Return the flags and the offset after the word."""
        return window.be64(pos, what) & (so_far.PAGE_SIZE - 1), pos + 8

    def put(self, value: int, what: str, so_far: Any) -> bytes:
        """Return the word."""
        if not 0 <= value < so_far.PAGE_SIZE:
            raise ValueError(f"{what} takes bits below {so_far.PAGE_SIZE:#x}, not {value:#x}")
        return int(getattr(so_far, self.beside) | value).to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class When:
    """A field that is there if ``test`` says so of the fields before; otherwise its value is None."""

    test: Callable[[Any], Any]
    kind: Fixed | Blob | Str8 | ListOf

    def read(self, window: Window, pos: int, what: str, so_far: Any) -> tuple[Any, int]:
        """Return the value at ``pos``, or None, and the offset after it."""
        return self.kind.read(window, pos, what, so_far) if self.test(so_far) else (None, pos)

    def put(self, value: Any, what: str, so_far: Any) -> bytes:
        """Return the bytes; raises :class:`ValueError` for a value where there is none, or none where there is one."""
        if (value is not None) != bool(self.test(so_far)):
            raise ValueError(f"{what} is {'missing' if value is None else 'not allowed here'}")
        return b"" if value is None else self.kind.put(value, what, so_far)


Kind = Fixed | Blob | Str8 | ListOf | PageOffset | PageFlags | When

u8 = Annotated[int, Fixed("B")]
be16 = Annotated[int, Fixed("H")]
be32 = Annotated[int, Fixed("I")]
be64 = Annotated[int, Fixed("Q")]
str8 = Annotated[str, Str8()]


def decode_name(raw: bytes) -> str:
    """Decode the bytes of a name to text that encodes to the same bytes, whatever they are."""
    return raw.decode("utf-8", "surrogateescape")


def encode_name(name: str) -> bytes:
    """Undo :func:`decode_name`."""
    return name.encode("utf-8", "surrogateescape")


class _SoFar:
    """The fields of a record that were read, for those that depend on them."""

    def __init__(self, cls: type[Record], values: dict[str, Any]) -> None:
        self._cls = cls
        self._values = values

    def __getattr__(self, name: str) -> Any:
        return self._values[name] if name in self._values else getattr(self._cls, name)


class Record:
    """Base of every wire record; see the docstring of this module."""

    wire: ClassVar[tuple[tuple[str, Kind], ...]]
    PAGE_SIZE: ClassVar[int] = 4096
    """The target page size in bytes, for records of pages; see :meth:`variant`."""
    BYTE_ORDER: ClassVar[str] = "<"
    """The byte order of ``host`` integers, as in the struct module; see :meth:`variant`."""

    @classmethod
    def parse(cls, window: Window, pos: int) -> tuple[Self, int]:
        """Read one record at absolute offset ``pos``; return it and the offset after it.

        Raises the errors of :meth:`Window.need`, and :class:`~qmigtool.errors.StreamError` for an empty name.
        """
        values: dict[str, Any] = {}
        so_far = _SoFar(cls, values)
        for name, kind in cls.wire:
            values[name], pos = kind.read(window, pos, f"{cls.__name__}.{name}", so_far)
        return cls(**values), pos

    def build(self) -> bytes:
        """Return the record's bytes on the wire; :class:`ValueError` for a value that its field cannot hold."""
        cls = type(self)
        return b"".join(kind.put(getattr(self, name), f"{cls.__name__}.{name}", self) for name, kind in cls.wire)

    @classmethod
    def variant(cls, **attributes: Any) -> type[Self]:
        """Return this record with another page size (``PAGE_SIZE``) or byte order (``BYTE_ORDER``)."""
        if all(getattr(cls, name) == value for name, value in attributes.items()):
            return cls
        made: Any = _variant  # mypy does not know that a class can be hashed
        return cast("type[Self]", made(cls, tuple(sorted(attributes.items()))))


@cache
def _variant(cls: Any, attributes: tuple[tuple[str, Any], ...]) -> Any:
    return type(cls.__name__, (cls,), {**dict(attributes), "__slots__": (), "__doc__": cls.__doc__})


R = TypeVar("R", bound=type[Record])


@dataclass_transform(frozen_default=True)
def record(cls: R) -> R:
    """Make a record from a class whose annotations are wire fields, in wire order."""
    made: Any = dataclass(frozen=True, slots=True)(cls)
    hints = get_type_hints(made, include_extras=True)
    # An Annotated hint carries its wire kind as its only extra.
    made.wire = tuple((field.name, hints[field.name].__metadata__[0]) for field in fields(made))
    return cast("R", made)
