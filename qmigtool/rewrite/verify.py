"""Reading the output of a rewrite again, and comparing it with the edits."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, NoReturn

from qmigtool.errors import StreamError
from qmigtool.parsers.section import Type
from qmigtool.parsers.source import FileSource
from qmigtool.rewrite.splice import readable_again
from qmigtool.stream.opening import open_stream

if TYPE_CHECKING:
    from qmigtool.rewrite.draft import Draft

__all__ = ["verify"]


def verify(draft: Draft, file: BinaryIO) -> None:
    """Read the output of ``draft`` and compare it with the edits; raises :class:`~qmigtool.errors.StreamError`.

    Only a file that can be read again is checked, not a pipe.
    """
    handle = readable_again(file)
    if handle is None:
        return
    source = draft.stream
    with open_stream(FileSource.of_open_file(handle), schema=source.schema if source.schema_name else None) as result:
        if source.sections[-1].type is Type.TAIL:
            result.prove()  # data after the stream may have its own end marker, and was copied with it
        walk_memory = draft.memory.touched or result.strategy == "forward"
        if result.problems or (walk_memory and not result.complete):
            _defect(f"the output cannot be read: {result.error or 'its end is missing'}")
        if result.configuration != draft.configuration:
            _defect(f"the output's configuration is {result.configuration}, not {draft.configuration}")
        if result.footers != draft.footers:
            _defect(f"the output {'has' if result.footers else 'lacks'} footers")
        blocks = [(block.name, block.length) for block in draft.memory.kept]
        if [(block.idstr, block.used_length) for block in result.ram_blocks] != blocks:
            _defect(f"the output's RAM blocks are not {blocks}")
        if [device.label for device in result.devices] != [section.label for section in draft.sections]:
            _defect("the sections of the output are not those of the edits")
        for device, section in zip(result.devices, draft.sections, strict=True):
            if device.version_id != section.section.version_id or device.body != section.body:
                _defect(f"{device.label} of the output is not as edited")


def _defect(what: str) -> NoReturn:
    raise StreamError(f"{what}: a defect of qmigtool, or an edit that makes a stream unreadable")
