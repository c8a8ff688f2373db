"""Compare descriptions of device state: would the state that one side saves load in the other?

=======  =====================================================================================
model    the shapes that are compared, and the result of a comparison
sources  inputs, recognised by their content: stream, vmdesc, -dump-vmstate, schema
unique   equal bodies made one object
layout   alignment of two lists of fields
fields   the comparison of one field
compare  two descriptions of one device, by the rules of QEMU's loader
devices  all devices
=======  =====================================================================================

This package does not compare values: :mod:`qmigtool.diff` compares the contents of two streams.
"""

from __future__ import annotations

from qmigtool.schemadiff.compare import Present
from qmigtool.schemadiff.devices import compare_schemas, present_in, schema_differences
from qmigtool.schemadiff.model import Direction, Effect, Origin, SchemaComparison, SchemaDifference, Shapes
from qmigtool.schemadiff.sources import of_dump, of_schema, of_stream, of_vmdesc, read_shapes

__all__ = [
    "Direction",
    "Effect",
    "Origin",
    "Present",
    "SchemaComparison",
    "SchemaDifference",
    "Shapes",
    "compare_schemas",
    "of_dump",
    "of_schema",
    "of_stream",
    "of_vmdesc",
    "present_in",
    "read_shapes",
    "schema_differences",
]
