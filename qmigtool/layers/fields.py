"""The scapy fields of the kinds that a wire record is declared with (:mod:`qmigtool.parsers.record`).

They differ from scapy's own in what migration streams need: input that is cut is a
:class:`~qmigtool.errors.TruncatedError`, random values always fit, bytes keep their trailing zeros, and a list may be
as long as its count says. What is built is what was set, also where it is wrong on purpose: only a value that is too
short for its place is filled with zeros, and only a length that is not set is computed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import IntFlag
from typing import Any

from scapy.fields import ConditionalField, Field
from scapy.packet import NoPayload
from scapy.volatile import RandBin, RandField, RandNum, VolatileValue

from qmigtool.errors import TruncatedError
from qmigtool.parsers.record import (
    FOLLOWING,
    Blob,
    Fixed,
    Kind,
    ListOf,
    PageFlags,
    PageOffset,
    Str8,
    When,
    encode_name,
)

__all__ = ["fields_of"]

SHOWN = 16  # bytes of a long value that are shown
LONG = 64  # bytes of a value that is shown completely
RANDOM_BYTES = 64  # of a random value without a fixed size
DECIMAL = 10  # numbers below it look the same in hexadecimal
MAX_FILL = 1 << 20  # bytes that are filled with zeros: the largest target page
PAGES = 1 << 20  # of which a random page offset is one

Field_ = Field[Any, Any]


def need(pkt: Any, rest: bytes, size: int, name: str) -> None:
    """Raise :class:`~qmigtool.errors.TruncatedError` if fewer than ``size`` bytes are left for a field."""
    if len(rest) < size:
        raise TruncatedError(
            f"{type(pkt).__name__} is cut",
            offset=len(pkt.original),
            expected=f"{size} bytes of {name}, of which {len(rest)} are there",
        )


class OneOf(RandNum):
    """A random one of some numbers."""

    def __init__(self, values: list[int]) -> None:
        super().__init__(min(values), max(values))
        self.values = values

    def _fix(self) -> int:
        return random.choice(self.values)  # noqa: S311 - no secrets

    def _command_args(self) -> str:
        return repr(self.values)


class SomeItems(RandField[list[Any]]):
    """A random short list."""

    def __init__(self, one: Callable[[], Any]) -> None:
        self.one = one

    def _fix(self) -> list[Any]:
        return [self.one() for _ in range(random.randrange(4))]  # noqa: S311 - no secrets


class NumberField(Field_):
    """An integer, perhaps with names for its values or bits; a length that is not set is computed."""

    __slots__ = ["counts", "names", "values"]

    def __init__(self, name: str, kind: Fixed, byte_order: str) -> None:
        self.counts = kind.counts
        self.names = kind.names
        self.values: dict[str, int] = {}
        if kind.names is not None:
            self.values = {name: int(one) for name, one in kind.names.__members__.items()}
        elif kind.constant is not None:
            self.values = {kind.constant: kind.default}
        order = byte_order if kind.order == "host" else ">"
        super().__init__(name, None if kind.counts else int(kind.default), order + kind.code)

    def any2i(self, pkt: Any, x: Any) -> Any:
        """Accept a number, a name, or names joined by ``+`` for bits."""
        if isinstance(x, str) and self.values:
            words = x.split("+") if self.names is not None and issubclass(self.names, IntFlag) else [x]
            unknown = [one for one in words if one not in self.values and not one.startswith("0x")]
            if unknown:
                raise ValueError(f"{self.name} has no value {unknown[0]!r}, but {', '.join(self.values)}")
            return sum(self.values[one] if one in self.values else int(one, 16) for one in words)
        return int(x) if isinstance(x, int) else x

    def i2m(self, pkt: Any, x: Any) -> int:
        """Compute a length that is not set: of a field, or of the record that follows."""
        if x is not None:
            return int(x)
        if self.counts is None or pkt is None:
            return 0
        if self.counts == FOLLOWING:
            return 0 if isinstance(pkt.payload, NoPayload) else len(pkt.payload.self_build())
        if self.counts not in pkt.fieldtype:  # what is counted is not part of this record
            return 0
        field, value = pkt.getfield_and_val(self.counts)
        return int(field.i2count(pkt, value))

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, Any]:
        """Take the number off the bytes."""
        need(pkt, s, self.sz, self.name)
        return super().getfield(pkt, s)

    def i2repr(self, pkt: Any, x: Any) -> str:
        """Show names where there are any, lengths in decimal, other numbers in hexadecimal."""
        if x is None or isinstance(x, VolatileValue):
            return repr(x)
        if self.names is not None and issubclass(self.names, IntFlag):
            return flag_words(self.values, x)
        for name, value in self.values.items():
            if value == x:
                return name
        return str(x) if self.counts or x < DECIMAL else f"{x:#x}"

    def randval(self) -> Any:
        """Return a random value with a name, or any."""
        if self.names is None:
            return super().randval()
        more = [0] if self.names is not None and issubclass(self.names, IntFlag) else []
        return OneOf([*self.values.values(), *more])


def flag_words(names: dict[str, int], value: int) -> str:
    """Return the names of the bits of a value, joined by ``+``; bits without a name as a number."""
    found = [name for name, bit in names.items() if bit and value & bit == bit]
    rest = value & ~sum(names[name] for name in found)
    return "+".join([*found, *([f"{rest:#x}"] if rest or not found else [])])


class WordField(NumberField):
    """The low bits, or the high bits, of a be64 word at the page size: ``high`` is the part that comes first."""

    __slots__ = ["beside", "bits", "high"]

    def __init__(self, name: str, kind: PageOffset | PageFlags, page_size: int) -> None:
        names, default = (None, 0) if isinstance(kind, PageOffset) else (kind.names, kind.default)
        super().__init__(name, Fixed("Q", names, default), ">")
        self.high = isinstance(kind, PageOffset)
        self.beside = "" if isinstance(kind, PageOffset) else kind.beside
        self.bits = page_size.bit_length() - 1
        self.sz = (64 - self.bits if self.high else self.bits) / 8  # type: ignore[assignment]  # rfc() draws bits

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, int]:
        """Take the part off the word; the flags take the word off the bytes."""
        need(pkt, s, 8, self.name)
        word = int.from_bytes(s[:8], "big")
        low = word & (1 << self.bits) - 1
        return (s, word - low) if self.high else (s[8:], low)

    def addfield(self, pkt: Any, s: bytes, val: Any) -> bytes:
        """Add the word with the flags."""
        if self.high:
            return s
        word = int(pkt.getfieldval(self.beside)) | int(val)
        return s + (word & (1 << 64) - 1).to_bytes(8, "big")

    def randval(self) -> Any:
        """Return a random page, or flags that QEMU sends."""
        if self.high:
            return OneOf([random.randrange(PAGES) << self.bits for _ in range(8)])  # noqa: S311 - no secrets
        more = self.values.get("CONTINUE", 0)
        return OneOf([*self.values.values(), *(one | more for one in self.values.values())])


class BlobField(Field_):
    """Bytes: ``size`` gives their number; without it all that are left. ``counted`` is the length that counts them."""

    __slots__ = ["counted", "most", "size"]

    def __init__(
        self, name: str, size: int | Callable[[Any], int] | None, *, counted: bool = False, most: int = RANDOM_BYTES
    ) -> None:
        self.size = size
        self.counted = counted
        self.most = most
        super().__init__(name, b"", "I")
        if isinstance(size, int):
            self.sz = size

    def length(self, pkt: Any) -> int | None:
        """Return the number of bytes, or None for all that are left."""
        return self.size if self.size is None or isinstance(self.size, int) else int(self.size(pkt) or 0)

    def any2i(self, pkt: Any, x: Any) -> Any:
        """Accept text, too."""
        return encode_name(x) if isinstance(x, str) else bytes(x) if isinstance(x, bytearray | memoryview) else x

    def i2count(self, pkt: Any, x: Any) -> int:
        """Return what a length counts."""
        return len(x or b"")

    i2len = i2count

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, bytes]:
        """Take the bytes off."""
        size = self.length(pkt)
        if size is None:
            return b"", s
        need(pkt, s, size, self.name)
        return s[size:], s[:size]

    def addfield(self, pkt: Any, s: bytes, val: Any) -> bytes:
        """Add the bytes; what is too short for its place is filled with zeros."""
        raw = bytes(val or b"")
        size = 0 if self.counted else self.length(pkt) or 0
        return s + (raw.ljust(size, b"\0") if size <= MAX_FILL else raw)

    def i2repr(self, pkt: Any, x: Any) -> str:
        """Show bytes with all their zeros; long ones by their length and beginning."""
        if x is None or isinstance(x, VolatileValue):
            return repr(x)
        bare = x.rstrip(b"\0")
        zeros = len(x) - len(bare)
        if zeros > SHOWN and len(bare) <= LONG:
            return f"{bare!r} and {zeros} zeros" if bare else f"{zeros} zeros"
        return repr(x) if len(x) <= LONG else f"{len(x)} bytes: {x[:SHOWN].hex(' ')} ..."

    def randval(self) -> Any:
        """Return random bytes that fit."""
        return RandBin(self.size if isinstance(self.size, int) else RandNum(0, self.most))


class ListField(Field_):
    """A list of integers or names; without a count all that are left."""

    __slots__ = ["count", "counted", "of"]
    islist = 1

    def __init__(self, name: str, kind: ListOf, *, counted: bool) -> None:
        self.of = kind.of
        self.count = kind.count
        self.counted = counted
        super().__init__(name, [], "I")

    def any2i(self, pkt: Any, x: Any) -> Any:
        """Accept any sequence; names may be text."""
        if isinstance(x, VolatileValue) or x is None:
            return x
        items = list(x) if isinstance(x, list | tuple) else [x]
        return [encode_name(one) if isinstance(one, str) else one for one in items]

    def i2count(self, pkt: Any, x: Any) -> int:
        """Return the number of elements."""
        return len(x or [])

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, list[Any]]:
        """Take the elements off; their number is checked before."""
        left = -1 if self.count is None else int(self.count(pkt) or 0)
        size = self.of.size if isinstance(self.of, Fixed) else 1
        if left > 0:
            need(pkt, s, left * size, self.name)
        pos, found = 0, list[Any]()
        while left and not (left < 0 and pos >= len(s)):
            need(pkt, s[pos : pos + size], size, self.name)
            if isinstance(self.of, Fixed):
                found.append(int.from_bytes(s[pos : pos + size], "big"))
                pos += size
            else:
                length = s[pos]
                need(pkt, s[pos + 1 : pos + 1 + length], length, self.name)
                found.append(s[pos + 1 : pos + 1 + length])
                pos += 1 + length
            left -= 1
        return s[pos:], found

    def addfield(self, pkt: Any, s: bytes, val: Any) -> bytes:
        """Add the elements; missing ones of a fixed number are zeros."""
        items = list(val or [])
        if isinstance(self.of, Fixed):
            if self.count is not None and not self.counted:
                missing = int(self.count(pkt) or 0) - len(items)
                items += [0] * (missing if missing * self.of.size <= MAX_FILL else 0)
            return s + b"".join(int(one).to_bytes(self.of.size, "big") for one in items)
        return s + b"".join(bytes([len(one) & 0xFF]) + bytes(one) for one in items)

    def i2repr(self, pkt: Any, x: Any) -> str:
        """Show the elements; zeros at the end by their number."""
        if x is None or isinstance(x, VolatileValue):
            return repr(x)
        shown = [one if isinstance(one, bytes) else f"{one:#x}" for one in x]
        bare = len(shown)
        while bare and shown[bare - 1] == "0x0":
            bare -= 1
        zeros = len(shown) - bare
        words = [one if isinstance(one, str) else repr(one) for one in shown[:bare]]
        return f"[{', '.join(words + ([f'{zeros} zeros'] if zeros else []))}]"

    def randval(self) -> Any:
        """Return a short random list."""
        if isinstance(self.of, Fixed):
            most = 1 << 8 * self.of.size
            return SomeItems(lambda: random.randrange(most))  # noqa: S311 - no secrets
        return SomeItems(lambda: random.randbytes(random.randrange(1, 16)))  # noqa: S311 - as above


def fields_of(wire: tuple[tuple[str, Kind], ...], page_size: int, byte_order: str) -> list[Field_]:
    """Return the scapy fields of a record's declaration."""
    kinds = [kind.kind if isinstance(kind, When) else kind for _, kind in wire]
    counts = {kind.counts for kind in kinds if isinstance(kind, Fixed)}
    found: list[Any] = []
    for (name, kind), inner in zip(wire, kinds, strict=True):
        made: list[Any] = [*_made(name, inner, page_size, byte_order, counted=name in counts)]
        if isinstance(kind, When):
            made = [ConditionalField(one, _Test(kind.test)) for one in made]
        found += made
    return found


class _Test:
    """A condition: a field that is not set yet makes it false."""

    def __init__(self, test: Callable[[Any], Any]) -> None:
        self._test = test

    def __call__(self, pkt: Any) -> bool:
        return bool(self._test(pkt))


def _made(name: str, kind: Kind, page_size: int, byte_order: str, *, counted: bool) -> list[Field_]:
    if isinstance(kind, Fixed):
        return [NumberField(name, kind, byte_order)]
    if isinstance(kind, PageOffset | PageFlags):
        return [WordField(name, kind, page_size)]
    if isinstance(kind, Blob):
        return [BlobField(name, kind.size, counted=counted)]
    if isinstance(kind, ListOf):
        return [ListField(name, kind, counted=counted)]
    assert isinstance(kind, Str8)  # noqa: S101 - for the type checker: When is unpacked by the caller
    length = f"{name}_length"
    return [
        NumberField(length, Fixed("B", counts=name), byte_order),
        BlobField(name, lambda pkt: getattr(pkt, length), counted=True, most=255),
    ]
