"""A libvirt save image: the stream follows its header, compressed or not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qmigtool.errors import StreamError, UnsupportedError
from qmigtool.parsers.container import ContainerKind, Magic
from qmigtool.parsers.saveimage import SaveFormat, SaveImage, read_save_image
from qmigtool.stream.unwrapped import Unwrapped, Wrapping

__all__ = ["SAVE_IMAGE"]


def _save_image(found: Unwrapped, _magic: Magic, _snapshot: str | None) -> Unwrapped:
    image = read_save_image(found.source)
    if image.format is SaveFormat.LZOP:
        raise UnsupportedError("lzop compression", offset=image.stream_offset, section="libvirt save image")
    container = replace(found.container, name="libvirt", details=_about(image))
    problems = found.problems
    if not image.complete:
        problems += (StreamError("libvirt did not finish this save image", offset=0, section="libvirt save image"),)
    return replace(found, container=container, start=image.stream_offset, problems=problems)


def _about(image: SaveImage) -> dict[str, Any]:
    return {
        "version": image.version,
        "was_running": image.was_running,
        "format": image.format.name.lower(),
        "stream_offset": image.stream_offset,
        "xml_bytes": len(image.xml),
    }


SAVE_IMAGE = Wrapping(ContainerKind.SAVE_IMAGE, _save_image)
