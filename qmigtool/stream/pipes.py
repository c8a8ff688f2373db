"""Pipes and other file objects that are read once, from the front: streamed where that is possible, else spooled.

A plain stream is streamed: nothing is written to disk, and its memory is not kept. So is one behind the header of a
libvirt save image, or compressed, in any number of layers. A snapshot, a capture and mapped-ram memory in a save image
need bytes from everywhere: the whole input is written to a temporary file first, which then is unwrapped as any other.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, BinaryIO

from qmigtool.errors import UnsupportedError, UsageError
from qmigtool.parsers.container import ContainerKind, recognise
from qmigtool.parsers.records import is_plain_stream
from qmigtool.parsers.saveimage import HEAD_SIZE, SaveFormat, data_length, read_save_image
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.stream.containers import packing_of
from qmigtool.stream.unwrap import PACKING_HEAD, check_selected, unwrap_further
from qmigtool.stream.unwrapped import MAGIC_SIZE, Container, Unwrapped, spooled
from qmigtool.stream.wrappings.compressed import Layers, unpack_layers
from qmigtool.stream.wrappings.saveimage import SAVE_IMAGE
from qmigtool.util.budget import current

__all__ = ["Streamed", "file_of", "open_pipe", "spool_pipe"]

CHUNK = 1 << 20
NAME = "<pipe>"


@dataclass(frozen=True, slots=True)
class Streamed:
    """A stream that is read from a pipe: ``pipe`` gives its bytes, ``found`` what was taken off it already."""

    pipe: BinaryIO
    found: Unwrapped


class _Pieces:
    """A file object of an iterator of pieces, which :meth:`read` gives as they are."""

    def __init__(self, pieces: Iterator[bytes | int]) -> None:
        self._pieces = pieces
        self._zeros = 0

    def read(self, count: int) -> bytes:
        """Return the next piece; of a run of zeros at most ``count``."""
        while not self._zeros:
            piece = next(self._pieces, b"")
            if not isinstance(piece, int):
                return piece
            self._zeros = piece
        length = min(self._zeros, count)
        self._zeros -= length
        return bytes(length)


def file_of(pipe: Any) -> FileSource | None:
    """Return the regular file that a file object reads from its start, or None: then it is read as a pipe is."""
    # Only Python's own: the descriptor of others (gzip.open's) is not that of what they read.
    if type(pipe) not in (io.FileIO, io.BufferedReader, io.BufferedRandom):
        return None
    raw = pipe if isinstance(pipe, io.FileIO) else pipe.raw
    if type(raw) is not io.FileIO or not stat.S_ISREG(os.fstat(raw.fileno()).st_mode) or pipe.tell():
        return None
    return FileSource.of_open_file(raw.fileno())


def open_pipe(pipe: BinaryIO, selected: Mapping[str, str | None], *, spool: bool = False) -> Streamed | Unwrapped:
    """Look at the first bytes of a pipe, and take the stream out of its container.

    With ``spool`` all of it is written to a temporary file in any case. Raises what
    :func:`~qmigtool.stream.unwrap.unwrap` raises, :class:`~qmigtool.errors.UsageError` for a file object that gives no
    bytes, and :class:`~qmigtool.errors.LimitError` where there is no space for it.
    """
    chunks = _chunks(pipe)
    head = _up_to(chunks, PACKING_HEAD)
    chunks = chain([head], chunks)
    found = Unwrapped(BufferSource(head, _name(pipe)))
    taken = _taken(found, chunks, head, selected, spool=spool)
    if isinstance(taken, Streamed):
        check_selected(selected, taken.found.container)
    return taken


def spool_pipe(pipe: BinaryIO) -> BufferSource:
    """Write all of a pipe to a temporary file."""
    empty = Unwrapped(BufferSource(b"", _name(pipe)))
    return spooled(empty, Container(), _chunks(pipe), follow=False).source


def _taken(
    found: Unwrapped, chunks: Iterator[bytes], head: bytes, selected: Mapping[str, str | None], *, spool: bool
) -> Streamed | Unwrapped:
    magic = recognise(head[:MAGIC_SIZE])
    if spool or (magic is None and not is_plain_stream(head) and packing_of(head) is not None):
        return _spooled(found, chunks, selected)
    if magic is None:
        return Streamed(_file(chunks), found)
    if magic.kind is ContainerKind.OTHER:
        raise UnsupportedError(magic.what, offset=0)
    if magic.kind is ContainerKind.PACKED:
        return _packed(found, unpack_layers(chunks, magic.packer), selected)
    if magic.kind is ContainerKind.SAVE_IMAGE:
        return _save_image(found, chunks, selected)
    return _spooled(found, chunks, selected)


def _packed(found: Unwrapped, layers: Layers, selected: Mapping[str, str | None]) -> Streamed | Unwrapped:
    container = layers.container(found)
    if layers.inner is None:
        return Streamed(_file(layers.pieces), replace(found, container=container, start=None))
    made = spooled(found, container, layers.pieces, follow=False)
    return unwrap_further(made, found.source, selected)


def _save_image(found: Unwrapped, chunks: Iterator[bytes], selected: Mapping[str, str | None]) -> Streamed | Unwrapped:
    head = _up_to(chunks, HEAD_SIZE)
    head += _up_to(chunks, HEAD_SIZE + data_length(BufferSource(head)) + MAGIC_SIZE - len(head))
    chunks = chain([head], chunks)
    source = BufferSource(head, found.source.name)
    image = read_save_image(source)
    magic = recognise(head[image.stream_offset : image.stream_offset + MAGIC_SIZE])
    if image.format is SaveFormat.SPARSE or (magic is not None and magic.kind is not ContainerKind.PACKED):
        return _spooled(found, chunks, selected)
    found = SAVE_IMAGE.open(replace(found, source=source), magic or recognise(head), None)  # type: ignore[arg-type]
    if magic is None:
        return Streamed(_file(chunks), found)
    next(chunks)
    return _packed(found, unpack_layers(chain([head[image.stream_offset :]], chunks), magic.packer), selected)


def _spooled(found: Unwrapped, chunks: Iterator[bytes], selected: Mapping[str, str | None]) -> Unwrapped:
    """Write all of a pipe to a temporary file, and unwrap that."""
    made = spooled(found, found.container, chunks, follow=False)
    return unwrap_further(made, found.source, selected)


def _file(pieces: Iterator[bytes | int] | Iterator[bytes]) -> BinaryIO:
    return _Pieces(pieces)  # type: ignore[return-value]  # only read is used


def _chunks(pipe: Any) -> Iterator[bytes]:
    """Yield what a file object gives; each chunk raises the limits, as the size of a file does."""
    while True:
        chunk = pipe.read(CHUNK)
        if not isinstance(chunk, bytes | bytearray | memoryview):
            what = "nothing yet: it does not block" if chunk is None else f"a {type(chunk).__name__}"
            raise UsageError(f"the file object {_name(pipe)} gave {what}", expected="bytes: one opened in binary mode")
        if not chunk:
            return
        current().admit(len(chunk))
        yield bytes(chunk)


def _up_to(chunks: Iterator[bytes], count: int) -> bytes:
    """Return at least ``count`` bytes, or all there are."""
    found = bytearray()
    while len(found) < count and (chunk := next(chunks, b"")):
        found += chunk
    return bytes(found)


def _name(pipe: Any) -> str:
    return str(getattr(pipe, "name", NAME))
