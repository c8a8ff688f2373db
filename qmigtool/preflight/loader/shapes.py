"""The shapes that a subsection has had in any stream that is known, for one that the target itself has not sent."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from qmigtool.parsers.vmdesc import Description, FieldDescription
from qmigtool.schema.model import built_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qmigtool.schema.model import Node, NodeField

__all__ = ["known_shapes"]

MAX_SHAPES = 16  # a subsection with an array as long as the machine has vCPUs has a handful


@lru_cache(maxsize=256)
def known_shapes(name: str) -> tuple[Description, ...]:
    """Return every shape of a subsection, without the subsections inside it."""
    found: dict[int, Description] = {}
    for node in _nodes().get(name, ()):
        shape = _bare(node)
        found.setdefault(shape.size, shape)
    return tuple(found.values())[:MAX_SHAPES]


@cache
def _nodes() -> dict[str, list[Node]]:
    """Return the nodes of all subsections of the built-in schema, by name."""
    found: dict[str, list[Node]] = {}
    for variants in built_in().devices.values():
        for variant in variants:
            for node in _subsections(variant.node):
                found.setdefault(node.name, []).append(node)
    return found


def _subsections(node: Node) -> Iterator[Node]:
    for sub in node.subsections:
        yield sub
        yield from _subsections(sub)
    for field in node.fields:
        for struct in field.structs:
            yield from _subsections(struct)


def _bare(node: Node) -> Description:
    return Description.of(node.name, node.version, tuple(map(_field, node.fields)), ())


def _field(field: NodeField) -> FieldDescription:
    struct = _bare(field.structs[0]) if field.structs else None
    size = field.size if struct is None else struct.size
    return FieldDescription(field.name, field.type, size, field.array_len, struct, field.inline)
