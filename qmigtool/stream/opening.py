"""Opening a stream: from a path, from bytes, from a file object to a :class:`~qmigtool.stream.model.Stream`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.stream.model import Stream
from qmigtool.stream.pipes import file_of

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from qmigtool.devices.schema import Schema

__all__ = ["open_stream"]


def open_stream(
    target: str | os.PathLike[str] | bytes | BinaryIO | BufferSource,
    *,
    accelerator: str | None = None,
    forward: bool = False,
    channels: Sequence[str | os.PathLike[str] | bytes] = (),
    schema: Schema | None = None,
    keep_runs: bool = False,
    snapshot: str | None = None,
    migration: int | None = None,
    spool: bool = False,
) -> Stream:
    """Open a migration stream: a path, the bytes themselves, a source, or a binary file object (a pipe, say).

    ``accelerator``, one of :data:`qmigtool.x86.traits.NAMES`, overrides the inferred one; ``forward`` forbids the
    tail-first strategy. ``channels`` are the extra channels of the same migration (multifd, postcopy preempt, return
    path), for :attr:`Stream.ram`; ``schema`` describes device state that the stream itself does not describe (default:
    the built-in one); ``snapshot`` names one of a qcow2 image that has several, ``migration`` is the number of one of a
    capture that has several. ``keep_runs`` keeps the page records as they are read: for a pipe this is the only way to
    have them, for a file it saves :attr:`Stream.ram` a second reading. A plain or compressed stream that comes through
    a pipe is read once, forward, unless ``spool`` has it written to a temporary file first: then its memory can be
    read, and it can be rewritten. Broken input does not raise here, it only adds to :attr:`Stream.problems`, unless it
    is not a migration stream at all: then
    :class:`~qmigtool.errors.StreamError`. An :class:`OSError` is passed on.
    """
    with contextlib.ExitStack() as stack:  # an error closes what was opened
        opened = [
            stack.enter_context(BufferSource(c) if isinstance(c, bytes) else FileSource(Path(c))) for c in channels
        ]

        def make(source: BufferSource | BinaryIO) -> Stream:
            return Stream(
                source,
                accelerator=accelerator,
                forward=forward,
                channels=opened,
                schema=schema,
                keep_runs=keep_runs,
                snapshot=snapshot,
                migration=migration,
                spool=spool,
            )

        if isinstance(target, bytes | bytearray | memoryview):
            stream = make(BufferSource(target))
        elif isinstance(target, str) or hasattr(target, "__fspath__"):
            path = Path(target)
            if path.is_fifo() or path.is_char_device():
                with path.open("rb") as pipe:
                    stream = make(pipe)
            else:
                stream = make(stack.enter_context(FileSource(path)))
        elif isinstance(target, BufferSource):
            stream = make(stack.enter_context(target))
        else:
            file = file_of(target) if spool else None
            stream = make(target if file is None else stack.enter_context(file))
        stack.pop_all()
    return stream
