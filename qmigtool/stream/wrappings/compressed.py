"""Compressed files: all layers are decompressed in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from qmigtool.errors import LimitError, UnsupportedError
from qmigtool.parsers.container import ContainerKind, Magic, recognise
from qmigtool.parsers.packed import behind_frames, framed, unpack, unpack_pieces, without_frames
from qmigtool.stream.unwrapped import (
    MAX_LAYERS,
    Container,
    Unwrapped,
    Wrapping,
    head_of,
    require_stream,
    spooled,
)

__all__ = ["COMPRESSED", "Layers", "unpack_layers"]


@dataclass(frozen=True, slots=True)
class Layers:
    """Decompressed ``pieces``, whose first bytes were looked at; ``inner`` is the container in them, None: a stream.

    ``names`` are the compressions, outermost first.
    """

    names: tuple[str, ...]
    inner: Magic | None
    pieces: Iterator[bytes | int]

    def container(self, found: Unwrapped) -> Container:
        """Return the container of what is in them."""
        header = ["libvirt header"] if found.start else []  # the compressed stream of a save image follows the header
        return found.container.without(*header, *self.names, compression=self.names[-1])


def unpack_layers(pieces: Iterator[bytes], packer: str) -> Layers:
    """Decompress what ``packer`` has compressed, piece by piece, and what is compressed inside it.

    Raises :class:`~qmigtool.errors.StreamError` where there is neither a stream nor a container inside.
    """
    if not packer:
        pieces, packer = _behind_frames(pieces)
    return _layers(unpack_pieces(pieces, packer, 0), packer)


def _layers(pieces: Iterator[bytes], packer: str) -> Layers:
    layers = [packer]
    while True:
        head, data, hole = head_of(pieces)
        pieces = chain(head, pieces)
        inner = None if hole else recognise(data)
        if inner is None or inner.kind is not ContainerKind.PACKED:
            break
        packer = inner.packer
        if not packer:
            pieces, packer = _behind_frames(pieces)
        if len(layers) == MAX_LAYERS:
            raise LimitError("too many nested containers", offset=0)
        pieces = unpack_pieces(pieces, packer, len(layers))
        layers.append(packer)
    if inner is None:
        require_stream(data, f"the {' in '.join(reversed(layers))} content")
    elif inner.kind is ContainerKind.OTHER:
        raise UnsupportedError(inner.what, offset=0)
    return Layers(tuple(layers), inner, pieces)


def _behind_frames(pieces: Iterator[bytes]) -> tuple[Iterator[bytes], str]:
    """Step over skippable frames; return what follows, and its compression."""
    pieces = without_frames(pieces)
    head, data, _ = head_of(pieces)
    return chain(head, pieces), framed(data)


def _packed(found: Unwrapped, magic: Magic, _snapshot: str | None) -> Unwrapped:
    """Decompress all layers in one pass; nothing is written before the contents are recognised."""
    start, packer = found.start or 0, magic.packer
    if not packer:
        start, packer = behind_frames(found.source, start)
    layers = _layers(unpack(found.source, packer, start), packer)
    return spooled(found, layers.container(found), layers.pieces, follow=layers.inner is None)


COMPRESSED = Wrapping(ContainerKind.PACKED, _packed)
