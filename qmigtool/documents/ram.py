"""The document that ``ram --json`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qmigtool.parsers.section import Type
from qmigtool.stream.info import problems_document

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream

__all__ = ["ram_document"]

MAX_PASSES = 1000  # one object each, and where pages are requested one by one there may be millions
SWITCHOVER = ("SWITCHOVER_START", "POSTCOPY_RUN")


def ram_document(stream: Stream) -> dict[str, Any]:
    """Return how guest memory was sent: by block, by pass, and after switchover; reads all channels."""
    from qmigtool.ram import usage

    memory = stream.ram
    blocks = usage.blocks(memory)
    passes = usage.passes(memory)
    size = stream.size
    offset = _switchover(stream)
    return {
        "page_size": memory.page_size,
        "blocks": blocks,
        "pass_count": len(passes),
        "passes": [dict(zip(usage.PASS.names or (), one, strict=True)) for one in passes[:MAX_PASSES].tolist()],
        **usage.totals(memory, blocks),
        "switchover_offset": offset,
        "bytes_after_switchover": None if offset is None or size is None else size - offset,
        "channels": memory.channels,
        "page_requests": len(memory.return_path),
        **problems_document(stream),
    }


def _switchover(stream: Stream) -> int | None:
    """Return where the guest had stopped: the last command that says so, else the END of RAM."""
    found = None
    for section in stream.sections:
        if section.type is Type.COMMAND and section.name in SWITCHOVER:
            return section.offset
        if section.type is Type.END and section.name == "ram":
            found = section.offset
    return found
