"""The bytes of each field of a packet, with its value as scapy shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qmigtool.layers.fields import WordField
from qmigtool.layers.packets import MigrationRecord, stacked

__all__ = ["FieldSpan", "spans"]


@dataclass(frozen=True, slots=True)
class FieldSpan:
    """A field: ``offset`` of its ``raw`` bytes, ``layer`` it belongs to, and its value as ``text``.

    The two fields of one word have the bytes of the word both.
    """

    layer: str
    name: str
    offset: int
    raw: bytes
    text: str


def spans(packet: MigrationRecord) -> Iterator[FieldSpan]:
    """Yield the fields of a packet that was read, in the order of its bytes."""
    start = packet.offset or 0
    for layer in stacked(packet):
        rest = layer.original
        at = start + len(packet.original) - len(rest)
        for field in layer.fields_desc:
            behind, value = field.getfield(layer, rest)
            if value is None:
                continue  # a field that is not there
            raw = rest[: len(rest) - len(behind)]
            if isinstance(field, WordField):
                raw = rest[:8]
            yield FieldSpan(type(layer).__name__, field.name, at, raw, str(field.i2repr(layer, value)))
            at += len(rest) - len(behind)
            rest = behind
