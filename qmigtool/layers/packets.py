"""The scapy packets of wire records: :func:`layer` makes a class from a declaration, once for each."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from scapy.config import conf
from scapy.fields import ConditionalField
from scapy.packet import NoPayload, Packet

from qmigtool.errors import QmigError, TruncatedError
from qmigtool.layers.fields import BlobField, NumberField, fields_of
from qmigtool.parsers.record import FOLLOWING, Record

__all__ = ["MigrationRecord", "RawBytes", "body", "layer", "stacked"]


class MigrationRecord(Packet):
    """Base of the layers. ``offset``, ``source`` and ``section`` say where a record of a stream was read.

    ``offset`` in bytes; ``source`` is ``main``, a channel or a container, in which it counts; ``section`` the name of
    the section that the record belongs to. They are None for a record that was made by hand. What follows a record is
    its padding.
    """

    __slots__ = ["offset", "section", "source"]
    record: ClassVar[type[Record] | None] = None
    PAGE_SIZE: ClassVar[int] = Record.PAGE_SIZE
    BYTE_ORDER: ClassVar[str] = Record.BYTE_ORDER
    following: ClassVar[str | None] = None  # the field with the length of the record that follows

    def __init__(self, *args: Any, **fields: Any) -> None:
        self.offset: int | None = None
        self.source: str | None = None
        self.section: str | None = None
        super().__init__(*args, **fields)

    def copy(self) -> Any:
        """Return a copy, with its place."""
        clone = super().copy()
        clone.offset, clone.source, clone.section = self.offset, self.source, self.section
        return clone

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes | None]:
        """Give the record that follows its own bytes; all others are padding."""
        if self.following is not None:
            length = getattr(self, self.following)
            if s and len(s) < length:
                raise TruncatedError(
                    f"what follows {type(self).__name__} is cut",
                    offset=len(self.original),
                    expected=f"{length} bytes, of which {len(s)} are there",
                )
            return s[:length], s[length:]
        if self.payload_guess and self.guess_payload_class(s) is not conf.raw_layer:
            return s, b""
        return b"", s

    def do_dissect_payload(self, s: bytes) -> None:
        """Dissect the record that follows; unlike scapy's own, this does not hide that it is cut."""
        if s:
            cls = self.guess_payload_class(s)
            try:
                payload = cls(s, _internal=1, _underlayer=self)
            except QmigError as error:
                if error.offset is not None:
                    error.offset += len(self.original) - len(s)
                raise
            self.add_payload(payload)

    def mysummary(self) -> str:
        """Return the values that tell records of a kind apart."""
        words = []
        for field in self.fields_desc:
            if isinstance(field, ConditionalField) and not field._evalcond(self):
                continue
            value = self.getfieldval(field.name)
            if value not in (None, b"", []) and (not isinstance(field, NumberField) or not field.counts):
                words.append(f"{field.name}={field.i2repr(self, value)}")
        place = "" if self.offset is None else f" at {self.offset:#x}"
        return f"{self.name}{place} {' '.join(words[:6])}".rstrip()


class RawBytes(MigrationRecord):
    """Bytes that are no record of their own: device state, a JSON text, pages."""

    fields_desc: ClassVar[list[Any]] = [BlobField("load", None)]


def layer(record: type[Record]) -> type[MigrationRecord]:
    """Return the layer of a record: a scapy ``Packet`` class with the same fields, made once."""
    made: Any = _layer  # mypy does not know that a class can be hashed
    found: type[MigrationRecord] = made(record)
    return found


@cache
def _layer(record: Any) -> Any:
    fields = fields_of(record.wire, record.PAGE_SIZE, record.BYTE_ORDER)
    following = [one.name for one in fields if isinstance(one, NumberField) and one.counts == FOLLOWING]
    return _packet(
        MigrationRecord,
        record.__name__,
        record.__doc__,
        fields_desc=fields,
        record=record,
        PAGE_SIZE=record.PAGE_SIZE,
        BYTE_ORDER=record.BYTE_ORDER,
        following=following[0] if following else None,
    )


def body(name: str, doc: str) -> type[RawBytes]:
    """Return a layer of bytes."""
    made: type[RawBytes] = _packet(RawBytes, name, doc)
    return made


def _packet(base: Any, name: str, doc: str | None, **more: Any) -> Any:
    return type(base)(name, (base,), {"name": name, "__doc__": doc, "__module__": "qmigtool.layers", **more})


def stacked(pkt: Packet) -> list[Packet]:
    """Return the layers of a packet, outermost first."""
    found: list[Packet] = []
    while not isinstance(pkt, NoPayload):
        found.append(pkt)
        pkt = pkt.payload
    return found
