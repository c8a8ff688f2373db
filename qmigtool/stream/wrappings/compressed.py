"""Compressed files: all layers are decompressed in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from qmigtool.errors import LimitError, UnsupportedError
from qmigtool.parsers.container import ContainerKind, Magic, recognise
from qmigtool.parsers.packed import behind_frames, framed, unpack, unpack_pieces, without_frames
from qmigtool.stream.unwrapped import MAX_LAYERS, Unwrapped, Wrapping, head_of, require_stream, spooled

__all__ = ["COMPRESSED"]


def _packed(found: Unwrapped, magic: Magic, _snapshot: str | None) -> Unwrapped:
    """Decompress all layers in one pass; nothing is written before the contents are recognised."""
    start, packer = found.start or 0, magic.packer
    if not packer:
        start, packer = behind_frames(found.source, start)
    layers = [packer]
    pieces: Iterator[bytes] = unpack(found.source, packer, start)
    while True:
        head, data, hole = head_of(pieces)
        pieces = chain(head, pieces)
        inner = None if hole else recognise(data)
        if inner is None or inner.kind is not ContainerKind.PACKED:
            break
        if not inner.packer:
            head, data, _ = head_of(pieces := without_frames(pieces))
            pieces = chain(head, pieces)
            inner = inner._replace(packer=framed(data))
        if len(layers) == MAX_LAYERS:
            raise LimitError("too many nested containers", offset=0)
        pieces = unpack_pieces(pieces, inner.packer, len(layers))
        layers.append(inner.packer)
    if inner is None:
        require_stream(data, f"the {' in '.join(reversed(layers))} content")
    elif inner.kind is ContainerKind.OTHER:
        raise UnsupportedError(inner.what, offset=0)
    header = ["libvirt header"] if found.start else []  # the compressed stream of a save image follows the header
    container = found.container.without(*header, *layers, compression=layers[-1])
    return spooled(found, container, pieces, follow=inner is None)


COMPRESSED = Wrapping(ContainerKind.PACKED, _packed)
