"""A libvirt save image: the stream follows its header, compressed or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qmigtool.errors import StreamError
from qmigtool.parsers.container import ContainerKind, Magic, recognise
from qmigtool.parsers.records import is_plain_stream
from qmigtool.parsers.saveimage import FORMAT_OFFSET, SECTION, SaveFormat, SaveImage, read_save_image
from qmigtool.stream.unwrapped import MAGIC_SIZE, Unwrapped, Wrapping

__all__ = ["SAVE_IMAGE"]


def _save_image(found: Unwrapped, _magic: Magic, _snapshot: str | None) -> Unwrapped:
    image = read_save_image(found.source)
    container = replace(found.container, name="libvirt", details=_about(image), header=image)
    problems = found.problems
    if not image.complete:
        problems += (StreamError("libvirt did not finish this save image", offset=0, section=SECTION),)
    head = bytes(found.source.whole[image.stream_offset : image.stream_offset + MAGIC_SIZE])
    said = image.format.name.lower()
    there = _format_of(head, said)
    if there != said:
        text = f"the header says {said}, but the stream is {there}: libvirt does not restore it"
        problems += (StreamError(text, offset=FORMAT_OFFSET, section=SECTION),)
    return replace(found, container=container, start=image.stream_offset, problems=problems)


def _format_of(head: bytes, said: str) -> str:
    """Return the format of a stream that begins with ``head``; for one that is recognised as none, what is ``said``."""
    magic = recognise(head)
    if is_plain_stream(head):
        return said if said == SaveFormat.SPARSE.name.lower() else SaveFormat.RAW.name.lower()
    return magic.packer if magic is not None and magic.packer else said


def _about(image: SaveImage) -> dict[str, Any]:
    return {
        "version": image.version,
        "was_running": image.was_running,
        "format": image.format.name.lower(),
        "stream_offset": image.stream_offset,
        "xml_bytes": len(image.xml),
    }


SAVE_IMAGE = Wrapping(ContainerKind.SAVE_IMAGE, _save_image)
