"""Memory that was not sent in the main channel: joined from the other channels, or reported as missing.

The main channel of multifd, or of postcopy with a preempt channel, is a complete stream without most of its memory.
QEMU cannot load it from a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.errors import UnsupportedError
from qmigtool.ram.columns import Encoding
from qmigtool.rewrite.blocks import set_format
from qmigtool.rewrite.memory import MemoryFormat

if TYPE_CHECKING:
    from qmigtool.ram.model import Absent
    from qmigtool.rewrite.draft import Draft

__all__ = ["gather", "travelled_elsewhere"]

SHOWN = 4


def travelled_elsewhere(draft: Draft) -> dict[str, int] | None:
    """Return block -> pages that no given channel holds if memory was sent in other channels than the main one.

    Return None if it was not. Pages that were never sent are not proof alone: with free-page-hinting a guest's unused
    memory is not sent. Proof is a channel with pages, a switch to postcopy, a main channel without any page that is not
    zero, or one that has records of multifd.
    """
    memory = draft.memory
    if not memory.blocks:
        return None
    held, total = draft.stream.pages_held
    if held == total and not draft.stream.channels:
        return None
    ram = memory.ram
    absent = {
        block.block.idstr: pages
        for block in memory.kept
        if not memory.sent_elsewhere(block) and (pages := ram.absent(block.block.idstr))
    }
    postcopy = bool(draft.commands("POSTCOPY_LISTEN", "POSTCOPY_RUN"))
    # A capture of postcopy is one side of a dialogue: QEMU cannot load it from a file.
    if ram.channels > 1 or (postcopy and (absent or draft.stream.container.name == "pcap")):
        return absent
    contents = [encoding for encoding in Encoding if not encoding.holds_zero]
    counted = ram.count()
    any_content = any(each.get(encoding.name.lower()) for each in counted.values() for encoding in contents)
    return absent if absent and (not any_content or ram.flushes) else None


def gather(draft: Draft, absent: Absent = "error") -> None:
    """Write memory as plain records if it was sent in several channels; raise if no given channel holds some of it.

    With ``absent`` set to ``"zero"``, such pages become zero pages. Does nothing where an edit has chosen a format.
    Raises :class:`~qmigtool.errors.UnsupportedError`.
    """
    if draft.memory.format is not MemoryFormat.KEEP:
        return
    missing = travelled_elsewhere(draft)
    if missing is None:
        return
    where = "by postcopy" if draft.commands("POSTCOPY_LISTEN", "POSTCOPY_RUN") else "in other channels"
    if missing:
        some = [f"{_amount(pages, 'page')} of {name!r}" for name, pages in list(missing.items())[:SHOWN]]
        more = f" and of {_amount(len(missing) - SHOWN, 'more block')}" if len(missing) > SHOWN else ""
        words = f"memory was sent in other channels that are not given: {', '.join(some)}{more} are"
        if absent == "error":
            raise UnsupportedError(
                "memory that is in none of the given channels",
                f"{words} missing",
                section="ram",
                expected="all channels of the migration, or zeros in their place: `qmigtool unwrap` has --channel and "
                "--absent zero for that",
            )
        draft.note(f"{words} written as zeros")
    set_format(draft, MemoryFormat.PLAIN, absent)
    several = "in several channels" if draft.memory.ram.channels > 1 else where
    draft.note(f"memory was sent {several} and is written as plain records (--ram plain)")


def _amount(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
