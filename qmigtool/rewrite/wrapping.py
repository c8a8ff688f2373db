"""A bare stream put into a container: compressed, behind the header of a libvirt save image, in a snapshot.

libvirt's header is written new: the domain's XML with as much room to grow as libvirt leaves, its cookie, and the
format of what follows. So the XML may have any length.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from qmigtool.errors import LimitError, StreamError, UsageError
from qmigtool.parsers.domainxml import check_domain
from qmigtool.parsers.saveimage import MAX_DATA, SAVE_IMAGE_MAGIC, SaveFormat, SaveImageHeader
from qmigtool.parsers.source import FileSource
from qmigtool.rewrite.packing import PACKINGS, PackedFile
from qmigtool.rewrite.qcow2image import write_snapshot
from qmigtool.rewrite.splice import readable_again
from qmigtool.stream.opening import open_stream

if TYPE_CHECKING:
    from qmigtool.parsers.qcow2 import Snapshot
    from qmigtool.parsers.source import BufferSource
    from qmigtool.rewrite.rewriter import Rewriter

__all__ = ["FORMATS", "LibvirtHeader", "check_wrapped", "write_libvirt", "write_packed", "write_qcow2"]

SLACK = 64 << 10  # what libvirt leaves for `virsh save-image-edit`
FORMATS = tuple(form.name.lower() for form in SaveFormat if form is not SaveFormat.SPARSE)
"""The formats of libvirt that hold a plain stream."""


@dataclass(frozen=True, slots=True)
class LibvirtHeader:
    """What the header of a save image says: the domain's ``xml``, libvirt's ``cookie``, ``form``, one of FORMATS."""

    xml: bytes
    cookie: bytes | None = None
    was_running: bool = False
    form: str = "raw"

    def build(self) -> bytes:
        """Return the header; :class:`~qmigtool.errors.UsageError` for XML that is no domain's."""
        check_domain(self.xml)
        data = self.xml + b"\0" + (b"" if self.cookie is None else self.cookie + b"\0")
        data += bytes(SLACK)
        if len(data) > MAX_DATA:
            raise LimitError(f"{len(data)} bytes of XML", expected=f"at most {MAX_DATA}")
        if self.form not in FORMATS:
            raise UsageError(f"the format {self.form!r}", expected=f"one of {', '.join(FORMATS)}")
        form = SaveFormat[self.form.upper()]
        offset = 0 if self.cookie is None else len(self.xml) + 1
        header = SaveImageHeader(SAVE_IMAGE_MAGIC, 2, len(data), int(self.was_running), form, offset, bytes(56))
        return header.build() + data


def write_packed(rewriter: Rewriter, name: str, target: BinaryIO) -> None:
    """Write the output of ``rewriter``, compressed by ``name``, one of ``PACKINGS``."""
    packed = PackedFile(target, name)
    rewriter.write(cast("BinaryIO", packed))
    packed.end()


def write_libvirt(rewriter: Rewriter, header: LibvirtHeader, target: BinaryIO) -> None:
    """Write a save image of the output of ``rewriter``."""
    target.write(header.build())
    target.flush()
    if header.form in PACKINGS:
        write_packed(rewriter, header.form, target)
    else:
        rewriter.write(target)


def write_qcow2(rewriter: Rewriter, source: BufferSource, snapshot: Snapshot, target: BinaryIO) -> None:
    """Write a copy of the qcow2 image ``source`` whose ``snapshot`` has the output of ``rewriter`` as its state."""
    with tempfile.TemporaryFile() as state:
        rewriter.write(state)
        state.flush()
        write_snapshot(source, snapshot, state, target)


def check_wrapped(rewriter: Rewriter, target: BinaryIO, snapshot: str | None = None) -> None:
    """Read what was written again, and compare it with the edits; raises :class:`~qmigtool.errors.StreamError`."""
    handle = readable_again(target)
    if handle is None:
        return
    with open_stream(FileSource.of_open_file(handle), snapshot=snapshot) as made:
        _ = made.sections
        if made.problems:
            raise made.problems[0]
        if [device.body for device in made.devices] != [section.body for section in rewriter.draft.sections]:
            raise StreamError("the output does not hold the device state: a defect of qmigtool")
