"""The bare stream of whatever contains one: what ``-incoming`` of QEMU loads from a file.

Everything around the stream is left out: the header of a save image, padding, another stream behind it. Memory that
only a live migration can receive (of several channels, of postcopy), or that needs a capability of the loader
(mapped-ram, XBZRLE, compress), is written as plain records. A stream that is plain already is copied byte for byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.parsers.section import Type
from qmigtool.ram.columns import Encoding
from qmigtool.rewrite.blocks import LIVE_COMMANDS
from qmigtool.rewrite.rewriter import Rewriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qmigtool.ram.model import Absent
    from qmigtool.rewrite.draft import Draft
    from qmigtool.stream.model import Stream

__all__ = ["bare_stream"]

PLAIN = (Encoding.ZERO, Encoding.NORMAL)


def bare_stream(stream: Stream, *, absent: Absent = "error") -> Rewriter:
    """Return the edits that leave the bare stream; ``absent`` as for :meth:`Rewriter.ram`.

    Raises the stream's first problem, and what :meth:`Rewriter.ram` and :meth:`Rewriter.gather` raise.
    """
    rewriter = Rewriter(stream)
    draft = rewriter.draft
    draft.bare = True
    draft.notes.clear()
    reasons = list(_not_plain(draft))
    if reasons:
        rewriter.ram("plain", absent=absent)
        draft.note(f"memory is written as plain records: the source has {', '.join(reasons)}")
    else:
        rewriter.gather(absent)
    around = [section for section in stream.sections if section.type in (Type.PREFIX, Type.TAIL)]
    for section in around:
        draft.note(f"{section.length} bytes {_place(section.type)} the stream are left out")
    if any(draft.memory.sent_elsewhere(block) for block in draft.memory.kept):
        draft.note("shared memory is not in the stream (x-ignore-shared): the loader needs its file")
    return rewriter


def _place(type_: Type) -> str:
    return "before" if type_ is Type.PREFIX else "behind"


def _not_plain(draft: Draft) -> Iterator[str]:
    """Yield why a loader would not take memory from a file as it is."""
    memory = draft.memory
    if not memory.blocks:
        return
    if draft.stream.channels:
        yield "several channels"
    if memory.mapped_before:
        yield "mapped-ram"
    if draft.commands("POSTCOPY_LISTEN", "POSTCOPY_RUN"):
        yield "postcopy"
    elif draft.commands(*LIVE_COMMANDS):
        yield "commands of a live migration"
    found = {name for counted in memory.ram.count().values() for name, pages in counted.items() if pages}
    known = {encoding.name.lower() for encoding in (*PLAIN, Encoding.MAPPED, Encoding.MAPPED_ZERO, Encoding.DISCARD)}
    channels = {name for name in found if name.startswith("multifd")} if draft.stream.channels else set()
    yield from sorted(f"{name} pages" for name in found - known - channels)
