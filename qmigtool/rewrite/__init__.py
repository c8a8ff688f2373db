"""Rewrite a stream into another one that QEMU loads; bytes that no edit touches are copied unchanged.

==============  ===================================================================================
rewriter        the public interface: every edit as a method, the changes, the output
declare         the decorator that makes a method an edit; editoption, its option on a command line
edits           edits by name, from a TOML file or a command line
draft           the stream as it will be; sectiondraft, one section of it; memory, its RAM
bare            the stream without what contains it, as QEMU loads it from a file
wrapping        the stream put into a container again; packing, compressed; qcow2image, in a snapshot
output          the splices that follow from a draft
decoding        whether the output can be decoded where it has no vmdesc
verify          the output, read again and compared with the edits
splice          spans replaced, everything else copied
changes         a record of each change
undo            same-size edits as a small patch that can be reverted
body, values    the body of a section as a tree; values encoded as bytes
fields          edits of values
structure       edits of sections and subsections
bodyfields      fields added to a body, or removed from it
header          edits of the machine type, capabilities and commands
framing         edits of the configuration section as a whole, and of footers
blocks          edits of memory: blocks, format, scrubbing
records, plain  memory output: records that stay; all pages as new records,
mapped, live    or as mapped-ram; which pages are written
elsewhere       memory sent in other channels: joined, or refused
components      edits of extended state in terms of XSAVE; areas, import of an XSAVE area
accelerators/   conversion from one accelerator to another: rules, each with its reason
bundle          the state of each vCPU that MSHV accepts, as files: export and import
machines        conversion to a later machine type; vendors, the vendors' names of machine types
==============  ===================================================================================

An edit changes a draft. Nothing is written before :meth:`Rewriter.write`, and the source is only read.
"""

from __future__ import annotations

from qmigtool.rewrite.changes import Change
from qmigtool.rewrite.rewriter import Rewriter
from qmigtool.rewrite.splice import Splice, write_stream

__all__ = ["Change", "Rewriter", "Splice", "write_stream"]
