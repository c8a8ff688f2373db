"""Edits of memory: its blocks, its format, and what a stream should not give away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qmigtool.errors import UsageError
from qmigtool.rewrite import header
from qmigtool.rewrite.memory import Format, block_entry

if TYPE_CHECKING:
    from qmigtool.ram.model import Absent
    from qmigtool.rewrite.draft import Draft

__all__ = ["drop_block", "rename_block", "resize_block", "scrub_ram", "set_format", "squeeze_zero_pages"]

MAX_LENGTH = 1 << 60  # bytes of a block; keeps the sum of all far below 2^64
# What only a live migration has use for; a file that is loaded knows nothing of it.
LIVE_COMMANDS = (
    "OPEN_RETURN_PATH",
    "PING",
    "POSTCOPY_ADVISE",
    "POSTCOPY_LISTEN",
    "POSTCOPY_RUN",
    "POSTCOPY_RAM_DISCARD",
    "PACKAGED",
    "POSTCOPY_RESUME",
    "RECV_BITMAP",
)


def rename_block(draft: Draft, name: str, to: str) -> None:
    """Give a RAM block another name, in the list and in every record that names it."""
    block = draft.memory.block(name)
    if any(other.name == to for other in draft.memory.kept):
        raise UsageError(f"there is a RAM block {to!r} already")
    block_entry(block.block, to)  # raises where the name does not fit
    draft.change("rename-block", f"RAM block {name}", block.block.offset, name, to)
    block.name = to


def resize_block(draft: Draft, name: str, size: int) -> None:
    """Give a RAM block another size in bytes. Pages beyond a smaller one go; of a larger one, none are sent for the
    rest, which in the loader keeps what it holds (of a PCI ROM: the loader's own in QEMU 7.2; zeros in 10.0 and later,
    which do not read the ROM's file when a stream comes in).
    """
    block = draft.memory.block(name)
    if size <= 0 or size % draft.memory.page_size or size > MAX_LENGTH:
        raise UsageError(f"{size:#x} bytes for RAM block {name!r}", expected=f"pages of {draft.memory.page_size} bytes")
    if size != block.length:
        draft.change("resize-block", f"RAM block {name}", block.block.offset, block.length, size)
        block.length, block.sent = size, min(block.sent, size)


def drop_block(draft: Draft, name: str) -> None:
    """Leave a RAM block out, its pages too; in the loader it keeps what it holds, as in :func:`resize_block`."""
    block = draft.memory.block(name)
    draft.change("drop-block", f"RAM block {name}", block.block.offset, block.length, None)
    block.dropped = True


def scrub_ram(draft: Draft, names: Iterable[str] = ()) -> None:
    """Make every page of the blocks called ``names`` (default: of all) a zero page."""
    blocks = [draft.memory.block(name) for name in names] or draft.memory.kept
    for block in blocks:
        draft.change("scrub-ram", f"RAM block {block.name}", block.block.offset, block.length, "zero pages")
        block.scrub = True
    note = "scrubbed: registers and device state still hold what the guest had in them"
    if note not in draft.notes:
        draft.notes.append(note)
    if any(section.section.name == "kvm-tpr-opt" for section in draft.sections):
        draft.notes.append("scrubbed: QEMU refuses to load kvm-tpr-opt without the option ROM's bytes in RAM")


def squeeze_zero_pages(draft: Draft) -> None:
    """Make every page that holds nothing but zeros a zero page, however it was sent."""
    if not draft.memory.squeeze:
        draft.change("squeeze-zero-pages", "RAM", None, None, "zero pages")
        draft.memory.squeeze = True


def set_format(draft: Draft, form: str, absent: Absent = "error") -> None:
    """Write memory as ``plain`` records or as ``mapped-ram``, every page as it is in the end.

    Takes XBZRLE, compressed and multifd pages apart, and joins channels. ``absent``: what becomes of pages that are in
    no channel given (``error``, ``zero``). What a live migration needs beside (return path, postcopy) goes.
    """
    if form not in (Format.PLAIN, Format.MAPPED):
        raise UsageError(f"no memory format {form!r}", expected=f"{Format.PLAIN} or {Format.MAPPED}")
    memory = draft.memory
    before = "mapped-ram" if memory.mapped_before else "records"
    draft.change("ram", "RAM", memory.start.offset, before, form)
    if form == Format.MAPPED:
        header.add_capability(draft, "mapped-ram", "ram")
    elif draft.configuration is not None and "mapped-ram" in draft.configuration.capabilities:
        header.drop_capability(draft, "mapped-ram", "ram")
    for section in draft.commands(*LIVE_COMMANDS):
        draft.change("ram", f"command {section.name}", section.offset, section.name, None, "live migration only")
        draft.drop_command(section)
    memory.format, memory.absent = Format(form), absent
