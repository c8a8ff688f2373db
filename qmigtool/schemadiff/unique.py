"""Make equal bodies one object, so that a comparison does not need to look inside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qmigtool.schemadiff.model import Shape, ShapeBody, ShapeField, Shapes

__all__ = ["Unique"]


class Unique:
    """Makes equal bodies one object, from the innermost outwards: each is processed once, even if many contain it."""

    def __init__(self) -> None:
        self._made: dict[Any, ShapeBody] = {}
        self._seen: dict[int, tuple[ShapeBody, ShapeBody]] = {}  # the first keeps its id() from being reused

    def shapes(self, shapes: Shapes) -> Shapes:
        """Return the same shapes, made of unique bodies."""
        return replace(shapes, shapes=tuple(self._shape(shape) for shape in shapes.shapes))

    def _shape(self, shape: Shape) -> Shape:
        return replace(shape, body=self.body(shape.body))

    def body(self, body: ShapeBody) -> ShapeBody:
        """Return the one body that equals this one."""
        if id(body) not in self._seen:
            fields = tuple(self._field(field) for field in body.fields)
            subsections = tuple(self.body(sub) for sub in body.subsections)
            # Bodies compare by identity, not by contents: those in this one have been made unique already.
            key = (body.name, body.version, body.minimum, fields, subsections)
            made = self._made.setdefault(key, replace(body, fields=fields, subsections=subsections))
            self._seen[id(body)] = body, made
        return self._seen[id(body)][1]

    def _field(self, field: ShapeField) -> ShapeField:
        if field.body is None:
            return field
        return replace(field, body=self.body(field.body), others=tuple(map(self.body, field.others)))
