"""Schemas: descriptions of device state learned from streams that have a vmdesc, for streams that have none.

=======  =====================================================================================
model    what a schema knows, how it is learned, and its JSON
fit      finding the description of one body by a schema
=======  =====================================================================================

A vmdesc says what one stream holds. A schema says what streams of such devices can hold: which subsections exist, which
shapes a body has had. The set in ``x86.json`` ships with the package: pc, q35 and microvm machines of QEMU 5.2, 7.2,
10.0 and 11.1, made by :mod:`qmigtool.schema.model` from streams that those versions wrote.
"""

from __future__ import annotations

from qmigtool.schema.fit import fit
from qmigtool.schema.model import Schema, built_in, learn, load

__all__ = ["Schema", "built_in", "fit", "learn", "load"]
