"""Finding the description of one body by a schema.

A body has no tags, but it has a length, and every subsection starts with its name. So each shape that is known for a
section is laid over the bytes: fields have their sizes, structs any of the shapes they have had, and behind the fields
(of the section and of every struct) whatever subsections announce themselves. The shape that ends where the body ends
is the description; if several do, the one of a like machine type is taken, and the caller is told that it was a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.parsers.record import encode_name
from qmigtool.parsers.records import SectionType
from qmigtool.parsers.vmdesc import Description, FieldDescription

if TYPE_CHECKING:
    from qmigtool.schema.model import Node, NodeField, Schema, Variant

__all__ = ["Fit", "fit"]

MAX_STATES = 64  # alternatives followed at once; real bodies have a handful


class Fit(NamedTuple):
    """A description that fits, and whether others did too."""

    description: Description
    ambiguous: bool


def fit(
    schema: Schema,
    idstr: str,
    version: int,
    data: bytes | memoryview,
    machine: str | None = None,
    *,
    ends: Callable[[int], bool] | None = None,
) -> Fit | None:
    """Return the description of a body by ``schema``, or None if nothing fits.

    ``data`` is the body; or, where its end is not known, everything from its start on, and ``ends(length)`` says
    whether a body may end there.
    """
    may_end = ends or (lambda length: length == len(data))
    found: list[Description] = []
    for variant in sorted(schema.variants(idstr, version), key=lambda v: _rank(v, machine)):
        found += [d for d, end in _body(variant.node, data, 0) if may_end(end) and d not in found]
    return Fit(found[0], len(found) > 1) if found else None


def _rank(variant: Variant, machine: str | None) -> int:
    """Order variants: seen on this machine type, then on one of its family (pc-q35), then the rest."""
    if machine is None:
        return 0
    if machine in variant.machines:
        return 0
    family = machine.rsplit("-", 1)[0]
    return 1 if any(known.rsplit("-", 1)[0] == family for known in variant.machines) else 2


def _body(node: Node, data: bytes | memoryview, pos: int) -> Iterator[tuple[Description, int]]:
    """Give (description, end) of every way in which a body of this shape can lie at ``pos``."""
    states: list[tuple[int, tuple[FieldDescription, ...]]] = [(pos, ())]
    for field in node.fields:
        states = [(end, (*done, *made)) for at, done in states for made, end in _field(field, data, at)][:MAX_STATES]
    for at, fields in states:
        for subsections, end in _subsections(node, data, at):
            yield Description.of(node.name, node.version, fields, subsections), end


def _field(field: NodeField, data: bytes | memoryview, pos: int) -> Iterator[tuple[tuple[FieldDescription, ...], int]]:
    count = 1 if field.array_len is None else field.array_len
    if not field.structs:
        end = pos + field.size * count
        if end <= len(data):
            yield (FieldDescription(field.name, field.type, field.size, field.array_len, None, field.inline),), end
        return
    states: list[tuple[int, tuple[Description, ...]]] = [(pos, ())]
    for _ in range(count):
        states = [
            (end, (*done, made)) for at, done in states for node in field.structs for made, end in _body(node, data, at)
        ][:MAX_STATES]
    for end, elements in states:
        yield tuple(_elements(field, elements)), end


def _elements(field: NodeField, elements: tuple[Description, ...]) -> Iterator[FieldDescription]:
    """Describe the elements as QEMU does: as one array where they are alike, else one by one."""
    if field.array_len is not None and len(set(map(id, elements))) <= 1 and elements:
        yield FieldDescription(field.name, field.type, elements[0].size, field.array_len, elements[0], field.inline)
        return
    if field.array_len is not None and elements and all(one == elements[0] for one in elements):
        yield FieldDescription(field.name, field.type, elements[0].size, field.array_len, elements[0], field.inline)
        return
    for one in elements:
        yield FieldDescription(field.name, field.type, one.size, None, one, field.inline)


def _subsections(node: Node, data: bytes | memoryview, pos: int) -> Iterator[tuple[tuple[Description, ...], int]]:
    """Give every way to read what follows the fields as subsections of this description."""
    name = _subsection_at(data, pos)
    own = encode_name(node.name)
    if name is None or not name.startswith(own) or len(name) <= len(own):
        yield (), pos
        return
    version = int.from_bytes(data[pos + 2 + len(name) : pos + 6 + len(name)], "big")
    for candidate in node.subsections:
        if encode_name(candidate.name) == name and candidate.version == version:
            for made, end in _body(candidate, data, pos + 6 + len(name)):
                for rest, last in _subsections(node, data, end):
                    yield (made, *rest), last


def _subsection_at(data: bytes | memoryview, pos: int) -> bytes | None:
    """Return the name of the subsection that starts at ``pos``, or None if none does."""
    if pos + 2 > len(data) or data[pos] != SectionType.QEMU_VM_SUBSECTION:
        return None
    length = data[pos + 1]
    if pos + 6 + length > len(data):
        return None
    return bytes(data[pos + 2 : pos + 2 + length])
