"""Unwrapping the stream in a container, layer by layer.

How each kind is opened is in :mod:`.wrappings`, and in :mod:`.containers` for those that are read from the front.

A stream that is contiguous in its container is read in place. Otherwise it is written once to an unnamed temporary
file, which is mapped like any other file; offsets then count in the stream, not in the container.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

from qmigtool.errors import LimitError, QmigError, UnsupportedError, UsageError
from qmigtool.parsers.container import MULTIFD, ContainerKind, Magic, recognise
from qmigtool.parsers.packed import behind_frames, unpack
from qmigtool.parsers.records import is_plain_stream
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.stream.containers import Packing, packing_of
from qmigtool.stream.unwrapped import MAGIC_SIZE, MAX_LAYERS, Container, Unwrapped, Wrapping, write_pieces
from qmigtool.stream.wrappings import WRAPPINGS

__all__ = ["NOTHING", "PACKING_HEAD", "check_selected", "unpack_channel", "unwrap", "unwrap_further"]

NOTHING: Mapping[str, str | None] = {}
HOLDERS = {"snapshot": "a qcow2 image", "migration": "a capture"}
PACKING_HEAD = 64  # bytes in which the magic of an installed container is


def unwrap(
    source: BufferSource, selected: Mapping[str, str | None] = NOTHING, *, until: ContainerKind | None = None
) -> Unwrapped:
    """Take a stream out of its containers, layer by layer; a stream without one is returned unchanged.

    ``selected`` is what selects one of several states: a ``snapshot`` of a qcow2 image by its name or id, a
    ``migration`` of a capture by its number. With ``until``, a container of that kind is not unwrapped. Raises
    :class:`~qmigtool.errors.UnsupportedError` for a container that qmigtool recognises but cannot read,
    :class:`~qmigtool.errors.UsageError` if there is no such state or several to choose from, and
    :class:`~qmigtool.errors.StreamError` for a container that is broken before its stream starts.
    """
    return unwrap_further(Unwrapped(source), source, selected, until)


def unwrap_further(
    found: Unwrapped, kept: BufferSource, selected: Mapping[str, str | None], until: ContainerKind | None = None
) -> Unwrapped:
    """Take a stream out of the containers that are left around it; on an error all but ``kept`` are closed."""
    try:
        for _ in range(MAX_LAYERS):
            start = found.start or 0
            magic = recognise(bytes(found.source.whole[start : start + MAGIC_SIZE]))
            if magic is not None and magic.kind is until:
                return found
            if magic is not None:
                wrapping = WRAPPINGS[magic.kind]
                found = wrapping.open(found, magic, selected.get(wrapping.selects))
                continue
            other = _installed(found, start)
            if other is None:
                break
            wanted = selected.get(other.selects) if isinstance(other, Wrapping) else None
            found = other.open(found, Magic(other.magic, other.name, ContainerKind.OTHER), wanted)
        else:
            raise LimitError("too many nested containers", offset=0)
        if until is not None:
            raise UsageError(f"not {HOLDERS['migration']}", expected="pcap or pcapng")
        check_selected(selected, found.container)
    except BaseException:
        found.close(kept)
        raise
    return found


def check_selected(selected: Mapping[str, str | None], container: Container) -> None:
    """Raise :class:`~qmigtool.errors.UsageError` if a state is selected where there is only one."""
    for name, wanted in selected.items():
        if wanted is not None and name not in container.details:
            raise UsageError(f"no {name} {wanted!r}: this is not {HOLDERS[name]}")


def _installed(found: Unwrapped, start: int) -> Packing | Wrapping | None:
    """Return another container around it; a stream itself is not searched for one."""
    head = bytes(found.source.whole[start : start + PACKING_HEAD])
    return None if is_plain_stream(head) else packing_of(head)


def unpack_channel(source: BufferSource) -> BufferSource:
    """Return the bytes of an extra channel: the source itself, or a new one if it is compressed.

    Raises :class:`~qmigtool.errors.UnsupportedError` for a compression that qmigtool recognises but cannot read,
    :class:`~qmigtool.errors.UsageError` for another container, and the errors of decompressing.
    """
    magic = recognise(bytes(source.whole[:MAGIC_SIZE]))
    if magic is None or magic.what == MULTIFD:
        return source
    try:
        if magic.kind is ContainerKind.OTHER:
            raise UnsupportedError(magic.what, offset=0)
        if magic.kind is not ContainerKind.PACKED:
            raise UsageError(f"{magic.what} is not an extra channel of a migration", expected="the bytes of a channel")
        with tempfile.TemporaryFile() as file:
            start, packer = (0, magic.packer) if magic.packer else behind_frames(source, 0)
            write_pieces(file, unpack(source, packer, start), None)
            file.flush()
            return FileSource.of_handle(os.dup(file.fileno()), source.name)
    except QmigError as error:
        error.file = error.file or source.name
        raise
