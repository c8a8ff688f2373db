"""Shapes that the target has not sent: subsections of any known stream, elements of lists."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING

from qmigtool.devices.schema.model import built_in
from qmigtool.devices.schema.shapes import bare, subsections
from qmigtool.devices.schema.vmsds import subsection_shape
from qmigtool.parsers.vmdesc import Description

if TYPE_CHECKING:
    from qmigtool.devices.schema.model import Node
    from qmigtool.parsers.vmdesc import FieldDescription

__all__ = ["any_element", "known_shapes"]

MAX_SHAPES = 16  # a subsection with an array as long as the machine has vCPUs has a handful


@lru_cache(maxsize=256)
def known_shapes(name: str) -> tuple[Description, ...]:
    """Return every shape of a subsection in known streams or in QEMU's tables, without its own subsections."""
    found: dict[int, Description] = {}
    for node in _nodes().get(name, ()):
        shape = bare(node)
        found.setdefault(shape.size, shape)
    built = None if found else subsection_shape(name)
    if built is not None:
        found[built.size] = built
    return tuple(found.values())[:MAX_SHAPES]


@cache
def _nodes() -> dict[str, list[Node]]:
    """Return the nodes of all subsections of the built-in schema, by name."""
    found: dict[str, list[Node]] = {}
    for variants in built_in().devices.values():
        for variant in variants:
            for node in subsections(variant.node):
                found.setdefault(node.name, []).append(node)
    return found


def any_element(entry: FieldDescription) -> Description | None:
    """Return the shape of any element of a list, with the subsections of all of the target's elements."""
    if not entry.inline:
        return None
    first = entry.inline[0]
    named = {sub.name: sub for element in entry.inline for sub in element.subsections}
    return Description.of(first.name, first.version, first.fields, tuple(named.values()))
