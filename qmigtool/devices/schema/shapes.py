"""The shape of a section or subsection to be inserted into a stream, as QEMU is known to send it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from qmigtool.devices.schema.cpusection import order_of
from qmigtool.parsers.vmdesc import Description, FieldDescription

if TYPE_CHECKING:
    from qmigtool.devices.schema.model import Node, NodeField, Schema

__all__ = ["bare", "find_field", "find_shape", "find_struct", "place_of", "subsections"]


def find_shape(schema: Schema, name: str, version: int | None = None) -> Description | None:
    """Return the description of the section or subsection ``name``, or None if the schema has none.

    With ``version`` it is a section. Of several shapes the first is used, without subsections.
    """
    if version is not None:
        variants = schema.variants(name, version)
        return bare(variants[0].node) if variants else None
    for variants in schema.devices.values():
        for variant in variants:
            for node in subsections(variant.node):
                if node.name == name:
                    return bare(node)
    return None


def find_struct(schema: Schema, name: str) -> Description | None:
    """Return the description of the struct ``name`` inside devices, or None if the schema has none."""
    return next((bare(node) for node in _nodes(schema) if node.name == name), None)


def find_field(
    schema: Schema, vmsd: str, name: str, there: Collection[str]
) -> tuple[FieldDescription, tuple[str, ...]] | None:
    """Return the field ``name`` of bodies of ``vmsd``, and the names of the fields before it; None if unknown.

    Of several shapes, the one most similar to ``there``, the names of a body's fields, is used.
    """
    best: tuple[FieldDescription, tuple[str, ...]] | None = None
    least = -1
    for node in _nodes(schema):
        if node.name != vmsd:
            continue
        names = [field.name for field in node.fields]
        if name in names:
            unlike = len({*names} ^ {*there, name})
            if least < 0 or unlike < least:
                least, at = unlike, names.index(name)
                best = _field(node.fields[at]), tuple(names[:at])
    return best


def _nodes(schema: Schema) -> Iterator[Node]:
    """Yield every shape of a schema once: of devices, of structs inside them, of subsections."""
    seen: set[int] = set()
    left = [variant.node for variants in schema.devices.values() for variant in variants]
    while left:
        node = left.pop(0)
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            left += node.subsections
            left += [struct for field in node.fields for struct in field.structs]


def place_of(name: str, there: Sequence[str]) -> int:
    """Return the position of a new subsection among the others: a loader accepts any, readers expect the order."""
    order = order_of(name)
    if order is not None:
        for index, other in enumerate(there):
            if (order_of(other) or 0) > order:
                return index
    return len(there)


def subsections(node: Node) -> Iterator[Node]:
    """Yield every subsection of a shape, including those of its structs."""
    for sub in node.subsections:
        yield sub
        yield from subsections(sub)
    for field in node.fields:
        for struct in field.structs:
            yield from subsections(struct)


def bare(node: Node) -> Description:
    """Describe a body of this shape without subsections."""
    return Description.of(node.name, node.version, tuple(map(_field, node.fields)), ())


def _field(field: NodeField) -> FieldDescription:
    if not field.structs:
        return FieldDescription(field.name, field.type, field.size, field.array_len, None, field.inline)
    struct = bare(field.structs[0])
    return FieldDescription(field.name, field.type, struct.size, field.array_len, struct, field.inline)
