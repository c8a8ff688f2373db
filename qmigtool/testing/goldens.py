"""Golden streams: the saved state that a test expects, kept small enough for a repository.

A golden is the stream itself with every page of guest memory scrubbed to zero, xz-compressed (some 20 KB), so that it
is compared by the meaning of the state, like any other stream.
"""

from __future__ import annotations

import io
import lzma
import os
from pathlib import Path
from typing import TYPE_CHECKING

from qmigtool.errors import LimitError, StreamError
from qmigtool.parsers.container import recognise
from qmigtool.parsers.source import FileSource
from qmigtool.rewrite import Rewriter
from qmigtool.stream.opening import open_stream
from qmigtool.util.files import replacing

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream

__all__ = ["open_golden", "write_golden"]

MAX_PACKED = 64 << 20
HEAD = 16


def write_golden(stream: Stream, path: str | os.PathLike[str]) -> int:
    """Write the golden of a stream; return its size in bytes.

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
    """Open a golden; raises :class:`~qmigtool.errors.StreamError` if it is not one, OSError if it does not exist."""
    with FileSource(Path(path)) as source:
        if len(source.whole) > MAX_PACKED:
            raise LimitError("the golden is too long", expected=f"at most {MAX_PACKED} bytes")
        magic = recognise(bytes(source.whole[:HEAD]))
    if magic is None or magic.packer != "xz":
        raise StreamError("not a golden", expected="a stream compressed by xz")
    stream = open_stream(path)
    cut = next((problem for problem in stream.problems if isinstance(problem, StreamError)), None)
    if cut is not None:
        stream.close()
        raise cut
    return stream
