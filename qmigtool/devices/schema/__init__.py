"""Schemas: descriptions of device state learned from streams that have a vmdesc, for streams that have none.

==============  =================================================================================
model           what a schema knows, how it is learned, and its JSON
fit             finding the description of one body by a schema
shapes          the shape of a section or subsection that is to be put into a stream
cpusubsections  what is known of each subsection of an x86 cpu: its order, when it is sent
==============  =================================================================================

A vmdesc says what one stream holds. A schema says what streams of such devices can hold: which subsections exist, which
shapes a body has had. ``x86.json.xz`` ships with the package: pc, q35, microvm and isapc machines of QEMU 5.2, 7.2,
10.0 and 11.1, learned (``qmigtool schema learn``) from some two hundred streams that those versions wrote.
``cpu_x86.json`` adds the subsections of an x86 ``cpu`` that no such stream has, from QEMU's ``target/i386/machine.c``
and the tables in its binaries.
"""

from __future__ import annotations

from qmigtool.devices.schema.fit import Fit, fit
from qmigtool.devices.schema.model import Schema, built_in, learn, load

__all__ = ["Fit", "Schema", "built_in", "fit", "learn", "load"]
