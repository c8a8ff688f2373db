"""Decide whether a file is text to be read as a whole or a stream to be opened; compressed or not.

Commands that accept either (descriptions, targets) decide by the contents, not by the file name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qmigtool.errors import LimitError
from qmigtool.parsers.container import ContainerKind, recognise
from qmigtool.parsers.packed import unpack
from qmigtool.parsers.records import is_plain_stream

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource

__all__ = ["HEAD", "is_stream", "is_text", "text_of"]

HEAD = 4096  # bytes that tell text from a stream


def is_stream(head: bytes) -> bool:
    """Return whether a file that starts with ``head`` (16 bytes are enough) is a stream or a container."""
    return is_plain_stream(head) or recognise(head) is not None


def is_text(head: bytes) -> bool:
    """Return whether a file that starts with ``head`` (4096 bytes are enough) is text: no stream, no zero byte.

    A stream may start after a hole (``migrate file:PATH,offset=N``): then it starts with zeros.
    """
    return head != b"" and not is_stream(head) and b"\0" not in head[:HEAD]


def text_of(source: BufferSource, limit: int) -> bytes | None:
    """Return a file's text, decompressed if it is compressed, or None if the file is not text.

    Decompresses no more than is needed to decide. Raises :class:`~qmigtool.errors.LimitError` for a text of more than
    ``limit`` bytes, and the errors of :func:`~qmigtool.parsers.packed.unpack`.
    """
    magic = recognise(bytes(source.whole[:HEAD]))
    if magic is not None and magic.kind is not ContainerKind.PACKED:
        return None
    pieces = _slices(source) if magic is None else unpack(source, magic.packer)
    text = bytearray()
    for piece in pieces:
        text += piece
        if len(text) >= HEAD:
            break
    if not is_text(bytes(text)):
        return None
    for piece in pieces:
        text += piece
        if len(text) > limit:
            break
    if len(text) > limit:
        raise LimitError("the text is too long", expected=f"at most {limit} bytes")
    return bytes(text)


def _slices(source: BufferSource) -> Iterator[bytes]:
    """Yield a file's bytes: enough to recognise it, then the rest in larger pieces."""
    at, size = 0, HEAD
    while at < len(source.whole):
        yield bytes(source.whole[at : at + size])
        at, size = at + size, 1 << 20
