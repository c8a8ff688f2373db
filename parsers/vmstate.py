"""Device state, decoded into fields by a description (QEMU: ``migration/vmstate.c``, ``vmstate-types.c``).

A body is its fields back to back and then its subsections, with no tags: the offset of a field follows from the
description alone, so :class:`Field` objects are made on access, and have an offset instead of a copy.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from qmigtool.errors import StreamError
from qmigtool.parsers.record import decode_name, encode_name
from qmigtool.parsers.records import SectionType
from qmigtool.parsers.records import Subsection as SubsectionHead
from qmigtool.util.budget import FIELD_BYTES, current

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qmigtool.parsers.vmdesc import Description, FieldDescription

__all__ = [
    "INTEGERS",
    "Bytes",
    "Field",
    "Integer",
    "Kind",
    "body_fields",
    "can_decode",
    "decode_value",
    "decode_values",
    "encode_field",
    "encode_value",
    "inside",
    "leaves",
]

MAX_ELEMENTS = 1 << 20  # of a list; a real one has hundreds
CHUNK = 1 << 14  # elements that are decoded at once
LONG = 1 << 16  # bytes of a leaf that is shown in pieces
PER_OBJECT = 16  # elements of an array of numbers for one value of the budget: they are decoded in C


class Bytes(Protocol):
    """The source of the bytes: anything that returns a span of the stream."""

    def view(self, offset: int, length: int) -> memoryview:
        """Return ``length`` bytes at the absolute offset ``offset``."""
        ...


class Kind(StrEnum):
    """The kind of a field."""

    LEAF = "leaf"
    STRUCT = "struct"
    ARRAY = "array"
    SUBSECTION = "subsection"


class Integer(NamedTuple):
    """An integer type: ``size`` in bytes, big-endian."""

    size: int
    signed: bool


# vmdesc type -> how its bytes are decoded. "int32 le" is a check ("less or equal"), not a byte order.
INTEGERS: dict[str, Integer] = {
    "uint8": Integer(1, False),
    "uint16": Integer(2, False),
    "uint32": Integer(4, False),
    "uint64": Integer(8, False),
    "int8": Integer(1, True),
    "int16": Integer(2, True),
    "int32": Integer(4, True),
    "int64": Integer(8, True),
    "uint8 equal": Integer(1, False),
    "uint16 equal": Integer(2, False),
    "uint32 equal": Integer(4, False),
    "uint64 equal": Integer(8, False),
    "int32 equal": Integer(4, True),
    "int64 equal": Integer(8, False),  # QEMU's name for the check of a uint64
    "int32 le": Integer(4, True),
    "timer": Integer(8, True),  # expiry in ns, -1: not armed
    "CPU_Double_U": Integer(8, False),
    "nullptr": Integer(1, False),  # 0x30: NULL
    "ptr-marker": Integer(1, False),  # 0x30: NULL, 0x31: the object follows
}


def decode_value(type_: str, raw: bytes) -> int | bool | str | bytes:
    """Decode the bytes of one leaf to a value; unknown types stay ``bytes``."""
    if type_ == "bool" and len(raw) == 1:
        return raw[0] != 0 if raw[0] < 2 else raw  # any other byte loads as true; keep it visible
    integer = INTEGERS.get(type_)
    if integer is not None and len(raw) == integer.size:
        return int.from_bytes(raw, "big", signed=integer.signed)
    if type_ == "capability" and raw and len(raw) == 1 + raw[0]:
        return decode_name(raw[1:])
    return raw


def encode_value(type_: str, size: int, value: int | bool | str | bytes) -> bytes:
    """Encode a value to the bytes of one leaf; undoes :func:`decode_value`.

    Raises :class:`ValueError` or :class:`OverflowError` if the value does not fit the type.
    """
    if isinstance(value, bytes):
        if len(value) != size:
            raise ValueError(f"a {type_} of {size} bytes, not {len(value)}")
        return value
    if isinstance(value, str):
        raw = encode_name(value)
        return bytes([len(raw)]) + raw
    if type_ == "bool":
        return bytes([bool(value)])
    integer = INTEGERS.get(type_)
    if integer is None or integer.size != size:
        raise ValueError(f"a {type_} of {size} bytes needs bytes, not a number")
    return int(value).to_bytes(size, "big", signed=integer.signed)


def can_decode(type_: str, size: int) -> bool:
    """Return whether the bytes of a field of this type and size, without a description, are decoded and encoded.

    A type that is not known is opaque bytes of any size. The bytes of a list decode only if it is empty: elements need
    descriptions.
    """
    if type_ in INTEGERS:
        return size == INTEGERS[type_].size
    return size == _SIZES.get(type_, size)


class Field:
    """A field and its span: ``offset`` (absolute) and ``length`` in bytes.

    ``type`` is the vmdesc's type (for an array, its elements'; for a subsection, ``subsection``). ``version_id`` is a
    subsection's. A leaf has a :attr:`value`; everything else has :attr:`children`.
    """

    __slots__ = ("_children", "_parts", "_source", "kind", "length", "name", "offset", "type", "version_id")

    def __init__(
        self, source: Bytes, name: str, type_: str, kind: Kind, offset: int, length: int, parts: Any = None
    ) -> None:
        self._source = source
        self.name = name
        self.type = type_
        self.kind = kind
        self.offset = offset
        self.length = length
        self.version_id: int | None = parts.version if kind is Kind.SUBSECTION else None
        # STRUCT and SUBSECTION: a Description, or the FieldDescription of a list; ARRAY: FieldDescriptions
        self._parts = parts
        self._children: tuple[Field, ...] | None = None

    def __repr__(self) -> str:
        return f"<Field {self.name!r} {self.type} {self.kind} at {self.offset:#x}, {self.length} bytes>"

    @property
    def struct_name(self) -> str | None:
        """The name of the description of this struct, or of the elements of this array of structs."""
        if self.kind is Kind.STRUCT:
            return str(self._parts.name)
        if self.kind is Kind.ARRAY and isinstance(self._parts, tuple) and self._parts[0].struct is not None:
            return str(self._parts[0].struct.name)
        return None

    @property
    def raw(self) -> bytes:
        """The field's bytes in the stream."""
        return bytes(self._source.view(self.offset, self.length))

    def same_raw(self, other: Field) -> bool:
        """Compare the bytes, a piece at a time: they may be too many to be held."""
        if self.length != other.length:
            return False
        if self.length <= LONG:
            return self.raw == other.raw
        return all(bytes(one) == bytes(two) for one, two in zip(self.pieces(), other.pieces(), strict=True))

    @property
    def is_long(self) -> bool:
        """Whether this is a leaf too large to keep in several forms; numbers never are."""
        return self.kind is Kind.LEAF and self.length > LONG

    def pieces(self) -> Iterator[memoryview]:
        """Yield the bytes in pieces."""
        for at in range(0, self.length, LONG):
            yield memoryview(self._source.view(self.offset + at, min(LONG, self.length - at)))

    @property
    def value(self) -> Any:
        """A leaf's value; the list of values of an array of leaves; None for anything else."""
        if self.kind is Kind.LEAF:
            return decode_value(self.type, self.raw)
        return self._values() if self.is_plain_array else None

    @property
    def is_plain_array(self) -> bool:
        """Whether this is an array of leaves, which has a :attr:`value` as a whole."""
        return self.kind is Kind.ARRAY and isinstance(self._parts, tuple) and all(map(_is_leaf, self._parts))

    @property
    def is_list(self) -> bool:
        """Whether this is a list (``qtailq``, ``qlist``, ``gtree``), whose elements are found one after the other."""
        return self.kind is Kind.ARRAY and not isinstance(self._parts, tuple)

    def _values(self) -> list[Any]:
        self.ask()
        return [value for chunk in self.chunks() for value in chunk]

    def ask(self) -> None:
        """Check the budget for all values inside; raises :class:`~qmigtool.errors.BudgetError` before one is made."""
        count = self._cost()
        if count > PER_OBJECT:
            current().ask("objects", count, f"it has {count} values", self.offset, self.name)

    def _cost(self) -> int:
        if self.kind is Kind.LEAF:
            return 1
        if not isinstance(self._parts, tuple):
            return int(self._parts.objects)
        return sum(part.objects for part in self._parts)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[list[Any]]:
        """Yield the values of elements ``start`` to ``stop`` of an array of leaves, some thousands at a time."""
        first, at = 0, self.offset
        stop = self.count if stop is None else stop
        for part in self._parts:
            count = 1 if part.array_len is None else part.array_len
            low, high = max(start - first, 0), min(stop - first, count)
            while low < high:
                size = min(high - low, CHUNK if part.size <= 8 else max(1, (CHUNK * 8) // part.size))
                yield decode_values(
                    part.type, part.size, self._source.view(at + low * part.size, size * part.size), size
                )
                low += size
            first, at = first + count, at + part.total

    @property
    def count(self) -> int:
        """The number of elements of an array; 0 for anything else."""
        if self.kind is not Kind.ARRAY:
            return 0
        if isinstance(self._parts, tuple):
            return sum(1 if part.array_len is None else part.array_len for part in self._parts)
        return sum(1 for _ in self._elements())

    def element(self, index: int) -> Field:
        """Return an element of an array, without making those before it; raises IndexError if there is none."""
        if isinstance(self._parts, tuple) and self.kind is Kind.ARRAY:
            first, at = 0, self.offset
            for part in self._parts:
                count = 1 if part.array_len is None else part.array_len
                if first <= index < first + count:
                    return _element(self._source, f"{self.name}[{index}]", part, at + (index - first) * part.size)
                first, at = first + count, at + part.total
            raise IndexError(index)
        found = next(islice(self._elements(), index, None), None) if self.kind is Kind.ARRAY and index >= 0 else None
        if found is None:
            raise IndexError(index)
        return found

    @property
    def children(self) -> tuple[Field, ...]:
        """The fields inside: of a struct, the elements of an array, of a subsection.

        Raises :class:`~qmigtool.errors.StreamError` where the stream contradicts the description, and
        :class:`~qmigtool.errors.BudgetError` for an array of millions: :meth:`iter_children` and :meth:`element` keep
        nothing.
        """
        if self._children is None:
            if self.kind is Kind.ARRAY:
                current().charge("memory", FIELD_BYTES * self.count, self.offset, self.name)
            self._children = tuple(self.iter_children())
        return self._children

    def iter_children(self) -> Iterator[Field]:
        """Yield the :attr:`children` one by one, without keeping them: an array can have millions."""
        if self.kind is Kind.STRUCT:
            yield from body_fields(self._source, self._parts, self.offset)
        elif self.kind is Kind.SUBSECTION:
            yield from body_fields(self._source, self._parts, self.offset + self.length - self._parts.size)
        elif self.kind is Kind.ARRAY:
            yield from self._elements()

    def _elements(self) -> Iterator[Field]:
        if isinstance(self._parts, tuple):
            index, at = 0, self.offset
            for part in self._parts:
                for _ in range(1 if part.array_len is None else part.array_len):
                    if not index & 0xFF:
                        current().tick(at, self.name)
                    yield _element(self._source, f"{self.name}[{index}]", part, at)
                    at += part.size
                    index += 1
        else:
            yield from _list_elements(self._source, self.name, self._parts, self.offset)


def decode_values(type_: str, size: int, raw: bytes | memoryview, count: int) -> list[Any]:
    """Decode ``count`` leaves of one type at once: xtiledata alone has 8192."""
    integer = INTEGERS.get(type_)
    if integer is not None and integer.size == size:
        code = "bhiq"[size.bit_length() - 1]
        return list(struct.unpack(f">{count}{code if integer.signed else code.upper()}", raw))
    data = bytes(raw)
    return [decode_value(type_, data[at * size : (at + 1) * size]) for at in range(count)]


def leaves(fields: Iterable[Field], prefix: str = "", *, whole_arrays: bool = False) -> Iterator[tuple[str, Field]]:
    """Yield every leaf in ``fields``, including those of subsections, with its path; in the order of the stream.

    An array of leaves is as many leaves as it has elements, or with ``whole_arrays`` one: env.regs is 16, or one.
    Raises :class:`~qmigtool.errors.StreamError` where the stream contradicts the description.
    """
    for field in fields:
        if field.kind is Kind.LEAF or (whole_arrays and field.is_plain_array):
            yield prefix + field.name, field
            continue
        # Values that are not used again are not kept: an array can have millions.
        children = field.iter_children()
        # An element's name already starts with its array's name.
        inner = prefix if field.kind is Kind.ARRAY else f"{prefix}{field.name}/"
        yield from leaves(children, inner, whole_arrays=whole_arrays)


def encode_field(field: Field) -> bytes:
    """Return the bytes of a field from its values and those of its children; undoes the decoding."""
    if field.kind is Kind.LEAF:
        return encode_value(field.type, field.length, field.value)
    inner = b"".join(map(encode_field, field.children))
    if field.kind is Kind.SUBSECTION:
        return SubsectionHead(SectionType.QEMU_VM_SUBSECTION, field.name, field.version_id or 0).build() + inner
    if field.kind is Kind.ARRAY and field.type in _LISTS:
        return _encode_list(field)
    return inner


def body_fields(source: Bytes, description: Description, offset: int) -> Iterator[Field]:
    """Yield the fields and then the subsections of a body that starts at ``offset``.

    Consecutive entries of one name are one array: QEMU describes arrays with different elements like that, and the
    ``index`` that it wrote for them from 5.2 to 10.2 is missing on the last one or on all.
    """
    entries = description.fields
    at = i = 0
    while i < len(entries):
        first = entries[i]
        j = i + 1
        while j < len(entries) and entries[j].name == first.name:
            j += 1
        run = entries[i:j]
        length = sum(entry.total for entry in run)
        if len(run) == 1 and first.array_len is None:
            yield _element(source, first.name, first, offset + at)
        else:
            yield Field(source, first.name, first.type, Kind.ARRAY, offset + at, length, run)
        at += length
        i = j
    for sub in description.subsections:
        head = SubsectionHead(SectionType.QEMU_VM_SUBSECTION, sub.name, sub.version).build()
        found = bytes(source.view(offset + at, len(head)))
        if found != head:
            raise StreamError(
                f"subsection {sub.name!r} is not where the vmdesc puts it: {found[:16].hex(' ')} ...",
                offset=offset + at,
                section=description.name,
                expected=head.hex(" "),
            )
        length = len(head) + sub.size
        yield Field(source, sub.name, "subsection", Kind.SUBSECTION, offset + at, length, sub)
        at += length


_LISTS = ("qtailq", "qlist", "gtree")
# The only size that a type has without a description; None: it has none.
_SIZES = {"bool": 1, "qtailq": 1, "qlist": 1, "gtree": 5, "struct": None, "subsection": None, "capability": None}


def inside(part: FieldDescription) -> Description | None:
    """Return the description of the elements of ``part``, or None if their bytes stay opaque.

    A struct whose parts do not add up to its size has a wrong description (see DescribedBody).
    """
    inner = part.struct
    if inner is None and part.type not in _LISTS and len(part.inline) == 1:
        inner = part.inline[0]
    return inner if inner is not None and inner.size == part.size and (inner.fields or inner.subsections) else None


def _is_leaf(part: FieldDescription) -> bool:
    return inside(part) is None and not (part.struct is None and part.type in _LISTS)


def _element(source: Bytes, name: str, part: FieldDescription, offset: int) -> Field:
    """Make the field of one element of ``part``."""
    if part.struct is None and part.type in _LISTS:
        return Field(source, name, part.type, Kind.ARRAY, offset, part.size, part)
    inner = inside(part)
    if inner is not None:
        return Field(source, name, part.type, Kind.STRUCT, offset, part.size, inner)
    return Field(source, name, part.type, Kind.LEAF, offset, part.size)


def _encode_list(field: Field) -> bytes:
    """Return the bytes of a list: 01 before each element (of a tree: before its key), 00 at the end."""
    tree = field.type == "gtree"
    # A tree's key and value are two children.
    step = 2 if tree else 1
    groups = [field.children[i : i + step] for i in range(0, len(field.children), step)]
    body = b"".join(b"\x01" + b"".join(map(encode_field, group)) for group in groups) + b"\0"
    return (len(groups).to_bytes(4, "big") if tree else b"") + body


def _list_elements(source: Bytes, name: str, part: FieldDescription, offset: int) -> Iterator[Field]:
    """Yield the elements of a ``qtailq`` or ``qlist`` ((0x01, element)*, 0x00) or a ``gtree`` (be32 n first)."""
    end = offset + part.size
    at = offset
    groups = part.inline
    if part.type == "gtree":
        count = int.from_bytes(source.view(at, 4), "big")
        at += 4
        direct = len(groups) == count  # a key is a plain be64, or has a description and then its own group
    else:
        count, direct = len(groups), False
    per_element = 1 if part.type != "gtree" or direct else 2
    if len(groups) != count * per_element or count > MAX_ELEMENTS:
        raise StreamError(
            f"{name} has {count} elements and {len(groups)} descriptions", offset=offset, section=part.name
        )
    for index in range(count):
        if not index & 0xFF:
            current().tick(at, part.name)
        if source.view(at, 1)[0] != 1:
            raise StreamError(f"element {index} of {name} does not start with 01", offset=at, section=part.name)
        at += 1
        if direct:
            yield Field(source, f"{name}[{index}].key", "uint64", Kind.LEAF, at, 8)
            at += 8
        for group in groups[index * per_element : (index + 1) * per_element]:
            yield Field(source, f"{name}[{index}]", "struct", Kind.STRUCT, at, group.size, group)
            at += group.size
    if at + 1 != end or source.view(at, 1)[0] != 0:
        raise StreamError(f"{name} does not end with 00", offset=at, section=part.name, expected=f"00 at {end - 1:#x}")
