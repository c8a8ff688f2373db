"""Rewriting: a stream becomes another one that QEMU loads, and everything that no edit touched stays, byte for byte.

==============  ===================================================================================
rewriter        what a person uses: every edit as a method, then what it changes, then the output
edits           edits by name, from a TOML file or a command line
draft           the stream as it shall become; sectiondraft, one section of it; memory, its RAM
output          the splices that follow from a draft
decoding        whether the output's readers will know its shapes, where it has no vmdesc
splice          spans replaced, everything else copied
changes         what is changed, for people and programs
undo            same-size edits as a small patch that can be taken back
body, values    a section's body taken apart; values turned into bytes
fields          edits of values
structure       edits of sections and subsections
bodyfields      fields that come or go inside a body
header          edits of the machine type, capabilities and commands
framing         edits of the configuration section as a whole, and of footers
blocks          edits of memory: blocks, format, scrubbing
records, plain  memory written: records that stay, all of it anew as records,
mapped, live    or as mapped-ram; which pages there are to write
elsewhere       memory that came in other channels: joined, or refused
components      edits of extended state, in the terms of XSAVE; areas, an XSAVE area put back
accelerators/   from one accelerator to another: rules, each with its reason
bundle          what MSHV takes of each vCPU, as files: out of a stream, and back into it
machines        from one machine type to a later one; vendors, what vendors call them
==============  ===================================================================================

An edit changes a draft; nothing is written before :meth:`Rewriter.write`, and the source is only ever read.
"""

from __future__ import annotations

from qmigtool.rewrite.changes import Change
from qmigtool.rewrite.rewriter import Rewriter
from qmigtool.rewrite.splice import Splice, write_stream

__all__ = ["Change", "Rewriter", "Splice", "write_stream"]
