"""Golden streams: the saved state that a test expects, kept small enough for a repository.

A golden is the stream itself with every page of guest memory scrubbed to zero, xz-compressed (some 20 KB), so that it
is compared by what the state means, like any other stream.
"""

from __future__ import annotations

import io
import lzma
import os
from pathlib import Path
from typing import TYPE_CHECKING

from qmigtool.errors import LimitError, StreamError
from qmigtool.files import replacing
from qmigtool.opening import open_stream
from qmigtool.parsers.packed import unpack
from qmigtool.parsers.source import FileSource
from qmigtool.rewrite import Rewriter

if TYPE_CHECKING:
    from qmigtool.stream import Stream

__all__ = ["open_golden", "write_golden"]

MAX_PACKED = 64 << 20
MAX_UNPACKED = 1 << 30  # a zero page has 9 bytes: 480 GiB of guest memory
MAX_MEMORY = 256 << 20


def write_golden(stream: Stream, path: str | os.PathLike[str]) -> int:
    """Write what is to be kept of a stream; return its size in bytes.

    Raises what :class:`~qmigtool.rewrite.Rewriter` raises for a stream that cannot be rewritten.
    """
    rewriter = Rewriter(stream)
    rewriter.scrub_ram()
    scrubbed = io.BytesIO()
    rewriter.write(scrubbed)
    packed = lzma.compress(scrubbed.getvalue())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, *stream.descriptors) as file:
        file.write(packed)
    return len(packed)


def open_golden(path: str | os.PathLike[str]) -> Stream:
    """Open a golden; raises :class:`~qmigtool.errors.StreamError` if it is none, OSError if it is not there."""
    data = bytearray()
    with FileSource(Path(path)) as source:
        if len(source.whole) > MAX_PACKED:
            raise LimitError("the golden is too long", expected=f"at most {MAX_PACKED} bytes")
        for piece in unpack(source, "xz", memory=MAX_MEMORY):
            data += piece
            if len(data) > MAX_UNPACKED:
                raise LimitError("the golden unpacks to too much", expected=f"at most {MAX_UNPACKED} bytes")
    if not data:
        raise StreamError("not a golden", expected="a stream that xz has packed")
    stream = open_stream(bytes(data))
    stream.source.name = str(path)
    return stream
