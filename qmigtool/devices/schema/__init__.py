"""Schemas: descriptions of device state learned from streams that have a vmdesc, for streams without one.

==============  =================================================================================
model           the contents of a schema, learning one, and its JSON
fit             fitting a schema to one body
vmsds           the VMStateDescriptions of QEMU builds
shapes          the shape of a section or subsection to be inserted into a stream
cpusection      the section cpu of x86: its subsections, when they are sent, and which fields are XSAVE state
==============  =================================================================================

A vmdesc describes one stream. A schema describes all streams of such devices: which subsections exist, which
shapes a body has had. ``x86.json.xz`` ships with the package: pc, q35, microvm and isapc machines of QEMU 5.2, 7.2,
10.0 and 11.1, learned (``qmigtool schema learn``) from some two hundred streams that those versions wrote.
``cpu_x86.json`` adds the subsections of an x86 ``cpu`` that no such stream has, from QEMU's ``target/i386/machine.c``
and the tables in its binaries; those that consist of XSAVE state follow from the table in ``cpusection``.
"""

from __future__ import annotations

from qmigtool.devices.schema.fit import Fit, fit
from qmigtool.devices.schema.model import Schema, built_in, learn, load

__all__ = ["Fit", "Schema", "built_in", "fit", "learn", "load"]
