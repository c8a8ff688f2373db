"""Containers that have more than a stream, one module each with one declaration; those without are in ``containers``.

==========  ====================================================================================
saveimage   a libvirt save image, whose header a rewrite keeps
compressed  gzip, bzip2, xz, zstd, lz4 and lzop, also inside each other
qcow2       a qcow2 image with snapshots of a running machine
capture     a pcap or pcapng capture of the connections of a migration
other       what is recognised and cannot be read
==========  ====================================================================================
"""

from __future__ import annotations

from qmigtool.stream.wrappings.capture import CAPTURE
from qmigtool.stream.wrappings.compressed import COMPRESSED
from qmigtool.stream.wrappings.other import OTHER
from qmigtool.stream.wrappings.qcow2 import QCOW2
from qmigtool.stream.wrappings.saveimage import SAVE_IMAGE

__all__ = ["WRAPPINGS"]

WRAPPINGS = {wrapping.kind: wrapping for wrapping in (SAVE_IMAGE, COMPRESSED, QCOW2, CAPTURE, OTHER)}
"""How each kind of :func:`qmigtool.parsers.container.recognise` is opened."""
