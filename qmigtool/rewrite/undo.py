"""Changes in place as a small binary patch, which can be applied and reverted without a copy of the stream.

The patch holds the old and new bytes of every span that changed. Applied to one stream it produces the other, in either
direction; for any other stream it is refused.

=======  ==============================================================
header   magic ``QMIGUNDO``, be32 version, be32 spans, be64 stream size
spans    be64 offset, be32 length, the old bytes, the new bytes
digest   SHA-256 of everything before
=======  ==============================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from qmigtool.errors import StreamError, UsageError
from qmigtool.parsers.record import Record, be32, be64, record
from qmigtool.parsers.source import FileSource
from qmigtool.parsers.window import Window
from qmigtool.rewrite.splice import Splice, readable_again, seekable_source, write_stream
from qmigtool.stream.info import problems_document
from qmigtool.stream.opening import open_stream

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream

__all__ = ["MAX_PATCH", "Undone", "make_patch", "read_patch", "undo"]

MAGIC = int.from_bytes(b"QMIGUNDO", "big")
VERSION = 1
DIGEST = hashlib.sha256().digest_size
MAX_PATCH = 256 << 20  # device state is some MB
SECTION = "undo patch"


@record
class PatchHeader(Record):
    """The start of a patch."""

    magic: be64
    version: be32
    spans: be32
    size: be64


@record
class PatchSpan(Record):
    """The header of a span; the old and the new bytes follow, ``length`` each."""

    offset: be64
    length: be32


@dataclass(frozen=True, slots=True)
class Undone:
    """A patch that was applied: ``spans`` replaced in an output of ``size`` bytes."""

    spans: int
    size: int

    def as_dict(self, stream: Stream) -> dict[str, Any]:
        """Return what ``undo --json`` prints, without its ``schema``; with the problems of the input."""
        return {"spans": self.spans, "bytes": self.size, **problems_document(stream)}


def undo(stream: Stream, patch: bytes, target: BinaryIO, *, check: bool = True) -> Undone:
    """Write the other state of a patch to a binary file, and read it again if ``check`` is set and that is possible.

    Raises as :func:`read_patch`, and :class:`~qmigtool.errors.StreamError` if the output cannot be read.
    """
    splices = read_patch(stream, patch)
    size = write_stream(stream, target, splices)
    target.flush()
    handle = readable_again(target) if check else None
    if handle is not None:
        with open_stream(FileSource.of_open_file(handle)) as result:
            if not result.complete:
                raise StreamError(f"the patch makes an unreadable stream of this one: {result.error}")
    return Undone(len(splices), size)


def make_patch(stream: Stream, splices: Sequence[Splice]) -> bytes:
    """Return the patch for splices that change bytes in place.

    Raises :class:`~qmigtool.errors.UsageError` if one of them moves the bytes after it.
    """
    source = seekable_source(stream)
    out = bytearray(PatchHeader(MAGIC, VERSION, len(splices), len(source.whole)).build())
    for splice in splices:
        if splice.growth or not isinstance(splice.data, bytes):
            raise UsageError(
                f"no undo patch for these edits: they move the bytes after offset {splice.offset:#x}",
                expected="edits that change bytes in place; keep the input otherwise",
            )
        out += PatchSpan(splice.offset, splice.length).build()
        out += bytes(source.view(splice.offset, splice.length)) + splice.data
    return bytes(out) + hashlib.sha256(out).digest()


def read_patch(stream: Stream, patch: bytes) -> list[Splice]:
    """Return the splices that turn ``stream`` into the other state of a patch.

    Raises :class:`~qmigtool.errors.StreamError` if the patch is invalid, or was made from another stream.
    """
    body, digest = patch[:-DIGEST], patch[-DIGEST:]
    if len(patch) < DIGEST or hashlib.sha256(body).digest() != digest:
        raise StreamError("the patch is damaged: its digest does not match", section=SECTION)
    window = Window(body, final=True)
    header, at = PatchHeader.parse(window, 0)
    if header.magic != MAGIC or header.version != VERSION:
        raise StreamError("this is not an undo patch", section=SECTION, expected=f"QMIGUNDO, version {VERSION}")
    source = seekable_source(stream)
    if header.size != len(source.whole):
        raise StreamError(
            f"the patch is for a stream of {header.size} bytes, this one has {len(source.whole)}", section=SECTION
        )
    spans: list[tuple[int, bytes, bytes]] = []
    for _ in range(header.spans):
        span, at = PatchSpan.parse(window, at)
        old, new = window.bytes(at, span.length, "old bytes"), window.bytes(at + span.length, span.length, "new bytes")
        at += 2 * span.length
        end = spans[-1][0] + len(spans[-1][1]) if spans else 0
        if span.offset < end or not span.length:
            raise StreamError(f"a span at {span.offset:#x} is out of order", section=SECTION)
        spans.append((span.offset, old, new))
    if at != len(body):
        raise StreamError(f"{len(body) - at} bytes after the last span", section=SECTION, expected="none")
    here = [bytes(source.view(offset, len(old))) for offset, old, _ in spans]
    if all(found == old for found, (_, old, _) in zip(here, spans, strict=True)):
        return [Splice(offset, len(new), new) for offset, _, new in spans]
    if all(found == new for found, (_, _, new) in zip(here, spans, strict=True)):
        return [Splice(offset, len(old), old) for offset, old, _ in spans]
    offset = next((o for found, (o, old, _) in zip(here, spans, strict=True) if found != old), None)
    raise StreamError("the patch was made from another stream", offset=offset, section=SECTION)
