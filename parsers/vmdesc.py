"""The JSON description of the device state at the end of a stream (the "vmdesc").

QEMU writes it for debugging and never reads it back: it is a hint until headers and footers confirm it. Here
the text becomes :class:`Description` trees with the exact length of every body; no number in it is trusted
beyond the limits below.

Duplicate keys carry meaning (one set per element of a list), so objects are read as ordered pairs. Equal parts are one
object: 64 vCPUs share one description of ``cpu``. A text that QEMU wrote is measured (:mod:`.vmdescspans`), and the
description of a device is made on access; any other text is read as a whole, and at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qmigtool.errors import BudgetError, LimitError, StreamError
from qmigtool.parsers.record import encode_name
from qmigtool.parsers.vmdescspans import MAX_ARRAY, MAX_DEPTH, MAX_NUMBER, MAX_WORD, find_spans
from qmigtool.util.budget import current
from qmigtool.util.documents import load_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from qmigtool.parsers.vmdescspans import DeviceSpan, Spans

__all__ = ["Description", "DeviceDescription", "FieldDescription", "JsonObject", "Vmdesc", "load_pairs", "parse_vmdesc"]

SECTION = "vmdesc"
MAX_EMPTY = 1 << 12  # elements without any byte: nothing else bounds them

Pairs = list[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class FieldDescription:
    """One field: ``size`` bytes per element, ``array_len`` elements (None: not an array).

    ``struct`` is the nested description of type ``struct``; ``inline`` the descriptions of the types that carry them in
    place (``tmp`` and ``vstruct`` one, ``qtailq``, ``qlist`` and ``gtree`` one per element). ``index`` is what QEMU 5.2
    to 10.2 wrote for the elements of an array that differ, but not for all: it is kept only to be written again.
    """

    name: str
    type: str
    size: int
    array_len: int | None
    struct: Description | None
    inline: tuple[Description, ...]
    index: int | None = field(default=None, compare=False)

    @property
    def structs(self) -> tuple[Description, ...]:
        """The nested description as a tuple; the field of a schema may have several."""
        return () if self.struct is None else (self.struct,)

    @property
    def total(self) -> int:
        """The bytes of all elements."""
        return self.size * (1 if self.array_len is None else self.array_len)

    @property
    def leaves(self) -> int:
        """The number of leaves after decoding, of all elements together."""
        inner = (self.struct,) if self.struct is not None else self.inline
        return max(1, sum(part.leaves for part in inner)) * (1 if self.array_len is None else self.array_len)

    @property
    def objects(self) -> int:
        """The budget's number of values decoded: like :attr:`leaves`, but 16 elements of plain arrays are one."""
        count = 1 if self.array_len is None else self.array_len
        inner = (self.struct,) if self.struct is not None else self.inline
        if inner:
            return (1 + sum(part.objects for part in inner)) * count
        return 1 + count // 16


@dataclass(frozen=True, slots=True)
class Description:
    """A vmstate description as it was sent; ``size`` is the length of such a body, including subsections.

    ``leaves`` is the number of leaves of such a body, ``objects`` the budget's number of values in it.
    """

    name: str
    version: int
    fields: tuple[FieldDescription, ...]
    subsections: tuple[Description, ...]
    size: int
    leaves: int
    objects: int

    @property
    def head_size(self) -> int:
        """The length of the header of such a body as a subsection: marker, counted name, version."""
        return 1 + 1 + len(encode_name(self.name)) + 4

    @classmethod
    def of(
        cls,
        name: str,
        version: int,
        fields: tuple[FieldDescription, ...],
        subsections: tuple[Description, ...],
    ) -> Description:
        """Make a description; its size follows from its parts."""
        size = sum(field.total for field in fields)
        # marker, counted string, version: the header of a subsection
        size += sum(sub.head_size + sub.size for sub in subsections)
        leaves = sum(field.leaves for field in fields) + sum(sub.leaves for sub in subsections)
        objects = 1 + sum(field.objects for field in fields) + sum(sub.objects for sub in subsections)
        return cls(name, version, fields, subsections, size, leaves, objects)

    @property
    def empty(self) -> int:
        """The number of leaves in excess of bytes: only this can make a small body endless work."""
        return max(0, self.leaves - self.size)


class DeviceDescription:
    """One entry of ``devices``. An old-style section (``old_style``) is one opaque field called ``data``.

    ``size`` and ``version`` are those of :attr:`description`, which may be made only on access.
    """

    __slots__ = ("_description", "_make", "_span", "idstr", "instance_id", "old_style", "size", "version")

    def __init__(self, idstr: str, instance_id: int, description: Description, old_style: bool) -> None:
        self.idstr, self.instance_id, self.old_style = idstr, instance_id, old_style
        self.size, self.version = description.size, description.version
        self._description: Description | None = description
        self._make: Callable[[DeviceSpan], Description] | None = None
        self._span: DeviceSpan | None = None

    @classmethod
    def later(cls, span: DeviceSpan, size: int, make: Callable[[DeviceSpan], Description]) -> DeviceDescription:
        """Return a measured device, whose description ``make`` makes from its span."""
        device = cls.__new__(cls)
        device.idstr, device.instance_id, device.old_style = span.idstr, span.instance_id, span.old_style
        device.size, device.version = size, span.version
        device._description, device._make, device._span = None, make, span
        return device

    @property
    def description(self) -> Description:
        """The description of the body."""
        if self._description is None and self._make is not None and self._span is not None:
            self._description, self._make, self._span = self._make(self._span), None, None
        assert self._description is not None  # noqa: S101 - for the type checker: one of the two is set
        return self._description

    def _all(self) -> tuple[str, int, bool, Description]:
        return self.idstr, self.instance_id, self.old_style, self.description

    def __eq__(self, other: object) -> bool:
        return self._all() == other._all() if isinstance(other, DeviceDescription) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.idstr, self.instance_id, self.size))

    def __repr__(self) -> str:
        return f"<DeviceDescription {self.idstr}@{self.instance_id}, {self.size} bytes>"


@dataclass(frozen=True, slots=True)
class Vmdesc:
    """The whole description; it has ``configuration`` since QEMU 8.2."""

    page_size: int
    devices: tuple[DeviceDescription, ...]
    configuration: Description | None


def parse_vmdesc(text: bytes, offset: int = 0) -> Vmdesc:
    """Read the JSON text; ``offset`` is where it starts in the stream, for messages.

    Raises :class:`~qmigtool.errors.StreamError` if it is not such a description and
    :class:`~qmigtool.errors.LimitError` for numbers or nesting that no valid one has, and
    :class:`~qmigtool.errors.BudgetError` for one that needs too much memory.
    """
    try:
        with current().undone():
            spans = find_spans(_decoded(text))
            found = None if spans is None else _in_parts(spans)
            return _Builder().vmdesc(load_pairs(text, _known)) if found is None else found
    except (StreamError, BudgetError) as error:
        error.offset, error.section = offset, SECTION
        raise
    except RecursionError:
        raise LimitError("nested too deeply", offset=offset, section=SECTION) from None
    except ValueError as error:
        raise StreamError(f"not JSON: {error}", offset=offset, section=SECTION) from None


def _decoded(text: bytes) -> str:
    """Return the text; QEMU before 6.0 escapes nothing, so it may not even be UTF-8."""
    return text.decode("utf-8", "surrogateescape")


def _in_parts(spans: Spans) -> Vmdesc | None:
    """Make a vmdesc whose devices are described on access; None if anything in it is wrong."""
    builder = _Builder()

    def pairs(start: int, end: int) -> Any:
        return _load(spans.text[start:end], _known)

    def make(span: DeviceSpan) -> Description:
        return builder.body(pairs(span.start, span.end), 1, span.idstr)

    def device(span: DeviceSpan) -> DeviceDescription:
        size = span.size
        if size is None:  # a device that was not measured is described now
            return builder.device(pairs(span.start, span.end))
        builder.admit(span.idstr, max(0, span.leaves - size))
        return DeviceDescription.later(span, size, make)

    try:
        return Vmdesc(
            _page_size(spans.page_size),
            tuple(map(device, spans.devices)),
            None if spans.configuration is None else builder.body(pairs(*spans.configuration), 1),
        )
    except (StreamError, ValueError):
        return None  # reading it as a whole reports the error


def load_pairs(text: bytes, make: Callable[[Pairs], JsonObject]) -> Any:
    """Read the JSON text into ordered pairs; ``make`` makes an object from its pairs."""
    return _load(_decoded(text), make)


def _load(text: str, make: Callable[[Pairs], JsonObject]) -> Any:
    def refuse(token: str) -> Any:
        raise StreamError(f"a number {token[:32]!r}", expected="whole numbers only")

    return load_json(text, object_pairs_hook=make, parse_float=refuse, parse_constant=refuse, strict=False)


class JsonObject(list[tuple[str, Any]]):
    """A JSON object as ordered pairs, to distinguish it from a JSON array."""


_KEYS = frozenset(
    {
        *("page_size", "configuration", "devices"),
        *("name", "instance_id", "vmsd_name", "version", "fields", "subsections"),
        *("array_len", "index", "type", "struct", "size"),
    }
)


def _known(pairs: Pairs) -> JsonObject:
    """Keep only what is read later, so that other content of a file uses no memory."""
    return JsonObject(pair for pair in pairs if pair[0] in _KEYS)


def _get(pairs: Any, key: str, kind: type, *, required: bool = True) -> Any:
    if not isinstance(pairs, JsonObject):
        raise StreamError(f"{_show(pairs)} instead of an object")
    for name, value in pairs:
        if name == key:
            if type(value) is not kind:  # a bool is not an int here, nor an object a list
                raise StreamError(f"{key!r} is {_show(value)}", expected=kind.__name__)
            if isinstance(value, int):
                most = MAX_WORD if key in ("instance_id", "version") else MAX_NUMBER
                if not 0 <= value < most:
                    raise LimitError(f"{key!r} is {_show(value)}", expected=f"less than {most:#x}")
            if isinstance(value, str) and not _is_text(value):
                raise StreamError(f"{key!r} is {_show(value)}", expected="text without half a surrogate pair")
            return value
    if required:
        raise StreamError(f"no {key!r} in {_show(pairs)}")
    return None


def _is_text(value: str) -> bool:
    try:
        encode_name(value)
    except UnicodeEncodeError:
        return False
    return True


def _show(value: Any) -> str:
    text = f"{type(value).__name__} of {len(value)} items" if isinstance(value, list) else repr(value)
    return text if len(text) < 60 else text[:57] + "..."


def _page_size(page_size: int) -> int:
    """Return a page size that some target uses; raises :class:`~qmigtool.errors.StreamError` for any other."""
    if page_size & (page_size - 1) or not 256 <= page_size <= 1 << 20:
        raise StreamError(f"a page size of {page_size}", expected="a power of two from 256 to 1 MiB")
    return page_size


class _Builder:
    """Turns pairs into descriptions; equal ones are made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Any] = {}
        self._empty = 0

    def vmdesc(self, pairs: Any) -> Vmdesc:
        page_size = _page_size(_get(pairs, "page_size", int))
        configuration = _get(pairs, "configuration", JsonObject, required=False)
        return Vmdesc(
            page_size,
            tuple(self.device(entry) for entry in _get(pairs, "devices", list)),
            None if configuration is None else self.body(configuration, 1),
        )

    def device(self, pairs: Any) -> DeviceDescription:
        idstr = _get(pairs, "name", str)
        old_style = _get(pairs, "vmsd_name", str, required=False) is None
        description = self.body(pairs, 1, idstr)
        self.admit(idstr, description.empty)
        return DeviceDescription(idstr, _get(pairs, "instance_id", int), description, old_style)

    def admit(self, idstr: str, empty: int) -> None:
        """Count leaves without bytes; raises :class:`~qmigtool.errors.LimitError` for too many."""
        self._empty += empty
        if self._empty > MAX_EMPTY:
            # Arrays of empty arrays: every level multiplies, and none costs the file a byte.
            raise LimitError(f"{idstr!r} has too many elements without bytes", expected=f"at most {MAX_EMPTY} in all")

    def body(self, pairs: Any, depth: int, name: str | None = None) -> Description:
        if depth > MAX_DEPTH:
            raise LimitError(f"nested more than {MAX_DEPTH} deep")
        vmsd_name = _get(pairs, "vmsd_name", str, required=False)
        fields = tuple(self.field(field, depth) for field in _get(pairs, "fields", list, required=False) or ())
        subsections = tuple(
            self.body(entry, depth + 1) for entry in _get(pairs, "subsections", list, required=False) or ()
        )
        for sub in subsections:
            length = len(encode_name(sub.name))
            if not 1 <= length <= 255:
                raise StreamError(f"a subsection whose name has {length} bytes", expected="1 to 255")
        made: Description = self._once(
            Description.of,
            vmsd_name if vmsd_name is not None else name or "",
            _get(pairs, "version", int, required=False) or 0,
            fields,
            subsections,
        )
        if made.size >= MAX_NUMBER:
            raise LimitError(f"a body of {made.size} bytes", expected=f"less than {MAX_NUMBER:#x}")
        return made

    def field(self, pairs: Any, depth: int) -> FieldDescription:
        array_len = _get(pairs, "array_len", int, required=False)
        if array_len is not None and array_len > MAX_ARRAY:
            raise LimitError(f"an array of {array_len} elements", expected=f"at most {MAX_ARRAY}")
        struct = _get(pairs, "struct", JsonObject, required=False)
        made: FieldDescription = self._once(
            FieldDescription,
            _get(pairs, "name", str),
            _get(pairs, "type", str),
            _get(pairs, "size", int),
            array_len,
            None if struct is None else self.body(struct, depth + 1),
            tuple(self.body(group, depth + 1) for group in self._groups(pairs)),
            _get(pairs, "index", int, required=False),
        )
        return made

    @staticmethod
    def _groups(pairs: Pairs) -> list[JsonObject]:
        """Split the inline keys of a field: each ``vmsd_name`` starts a description."""
        groups: list[JsonObject] = []
        for key, value in pairs:
            if key == "vmsd_name":
                groups.append(JsonObject())
            if groups and key in ("vmsd_name", "version", "fields", "subsections"):
                groups[-1].append((key, value))
        return groups

    def _once(self, make: Callable[..., Any], *values: Any) -> Any:
        # Parts are already unique, so identity is equality and the key stays flat.
        key = (make, *(value if isinstance(value, (str, int, type(None))) else _identity(value) for value in values))
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = make(*values)
        return made


def _identity(value: Any) -> Any:
    return tuple(map(id, value)) if isinstance(value, tuple) else id(value)
