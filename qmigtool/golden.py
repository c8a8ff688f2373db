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
from qmigtool.files import open_input, replacing
from qmigtool.opening import open_stream
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
    with os.fdopen(open_input(path), "rb") as file:
        packed = file.read(MAX_PACKED + 1)
    if len(packed) > MAX_PACKED:
        raise LimitError("the golden is too long", expected=f"at most {MAX_PACKED} bytes")
    unpacker = lzma.LZMADecompressor(memlimit=MAX_MEMORY)
    try:
        data = unpacker.decompress(packed, MAX_UNPACKED)
    except lzma.LZMAError as error:
        raise StreamError(f"not a golden: {error}") from None
    if not unpacker.eof:
        raise LimitError("the golden ends early, or unpacks to too much", expected=f"at most {MAX_UNPACKED} bytes")
    stream = open_stream(data)
    stream.source.name = str(path)
    return stream
