"""Edits of memory: its blocks, its format, and scrubbing of contents that a stream should not disclose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from qmigtool.errors import LimitError, UnsupportedError, UsageError
from qmigtool.parsers.livebodies import live_section
from qmigtool.parsers.saveimage import FORMAT_OFFSET, SaveFormat
from qmigtool.parsers.section import Type
from qmigtool.rewrite import header
from qmigtool.rewrite.memory import MemoryFormat, block_entry

if TYPE_CHECKING:
    from qmigtool.ram.model import Absent
    from qmigtool.rewrite.draft import Draft
    from qmigtool.rewrite.memory import BlockDraft

__all__ = ["drop_block", "rename_block", "resize_block", "scrub_ram", "set_format", "squeeze_zero_pages"]

MAX_CONVERTED = 1 << 45  # 32 TiB: a bitmap of 1 GiB
MAX_LENGTH = 1 << 60  # bytes of a block; keeps the sum of all far below 2^64
# Only a live migration uses these; a stream that is loaded from a file must not have them.
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
    """Rename a RAM block, in the list and in every record that names it."""
    block = draft.memory.block(name)
    if any(other.name == to for other in draft.memory.kept):
        raise UsageError(f"a RAM block {to!r} exists already")
    block_entry(block.block, to)  # raises where the name does not fit
    _note_absent(draft, block)
    draft.change(f"RAM block {name}", block.block.offset, name, to)
    block.name = to


def resize_block(draft: Draft, name: str, size: int) -> None:
    """Change the size of a RAM block, in bytes. A smaller size drops the pages beyond it. A larger size adds no pages:
    the rest keeps the contents it has in the loader (for a PCI ROM: the loader's own in QEMU 7.2; zeros in 10.0 and
    later, which do not read the ROM file for an incoming migration).
    """
    memory = draft.memory
    block = memory.block(name)
    if size <= 0 or size % memory.page_size or size > MAX_LENGTH:
        raise UsageError(f"{size:#x} bytes for RAM block {name!r}", expected=f"pages of {memory.page_size} bytes")
    if size == block.length:
        return
    _note_absent(draft, block)
    if size < block.sent:
        _lose_pages(draft, block, size)
    elif size > block.block.used_length:
        draft.note(f"RAM block {name}: no page from {block.sent:#x} on is in the stream, the loader keeps its own")
    draft.change(f"RAM block {name}", block.block.offset, block.length, size)
    block.length, block.sent = size, min(block.sent, size)


def drop_block(draft: Draft, name: str) -> None:
    """Drop a RAM block and its pages; in the loader it keeps its contents, as in :func:`resize_block`."""
    block = draft.memory.block(name)
    _note_absent(draft, block)
    _lose_pages(draft, block, 0)
    draft.change(f"RAM block {name}", block.block.offset, block.length, None)
    block.dropped = True


def _note_absent(draft: Draft, block: BlockDraft) -> None:
    """Note that other channels, if there are any, are not changed. The file does not record whether there are any."""
    if draft.memory.sent_elsewhere(block):
        return
    absent = draft.memory.ram.absent(block.block.idstr)
    if absent:
        draft.note(
            f"RAM block {block.block.idstr}: {absent} pages are not in this file; another channel of the migration "
            "(multifd, postcopy preempt) that holds them is not edited"
        )


def _lose_pages(draft: Draft, block: BlockDraft, size: int) -> None:
    """Record how many pages from ``size`` on were not zero."""
    memory = draft.memory
    if block.scrub or memory.sent_elsewhere(block):
        return
    first, last = size // memory.page_size, block.sent // memory.page_size
    sent = memory.ram.stretches(block.block.idstr, absent="zero")
    held = sum(max(0, min(end, last) - max(start, first)) for start, end in sent)
    if held:
        draft.lose(f"RAM block {block.name}: {held} pages from {size:#x} on that were not sent as zero")


def scrub_ram(draft: Draft, names: Iterable[str] = ()) -> None:
    """Make every page of the blocks called ``names`` (default: of all) a zero page."""
    blocks = [draft.memory.block(name) for name in names] or draft.memory.kept
    for block in blocks:
        _note_absent(draft, block)
        draft.change(f"RAM block {block.name}", block.block.offset, f"{block.length:#x} bytes", "zero pages")
        block.scrub = True
    draft.note("scrubbed: registers, device state and the VM's UUID are unchanged")
    live = {section.name for section in draft.stream.sections if section.type in (Type.START, Type.PART)}
    for name in sorted(one for one in live if one):
        found = live_section(name)
        if found is not None and found.holds:
            draft.note(f"scrubbed: the live section {name!r} still holds {found.holds}")
    if any(section.section.name == "kvm-tpr-opt" for section in draft.sections):
        draft.note(
            "scrubbed: QEMU refuses to load kvm-tpr-opt without the option ROM's bytes in RAM; "
            "--drop-section kvm-tpr-opt before it makes it load"
        )


def squeeze_zero_pages(draft: Draft) -> None:
    """Send every page that contains only zeros as a zero page.

    Where records stay records, this covers those that hold whole pages; with another format, all pages.
    """
    if not draft.memory.squeeze:
        draft.change("RAM", None, None, "zero pages")
        draft.memory.squeeze = True


def set_format(draft: Draft, form: str, absent: Absent = "error") -> None:
    """Write memory as ``plain`` records or as ``mapped-ram``, every page as it is in the end.

    Decodes XBZRLE, compressed and multifd pages, and joins channels. ``absent`` is the treatment of pages that no given
    channel holds (``error``, ``zero``). Commands that only a live migration needs (return path, postcopy) are dropped.
    Pages that a larger :func:`resize_block` has added need not be present.
    """
    if form not in (MemoryFormat.PLAIN, MemoryFormat.MAPPED):
        raise UsageError(f"no memory format {form!r}", expected=f"{MemoryFormat.PLAIN} or {MemoryFormat.MAPPED}")
    memory = draft.memory
    for block in memory.kept:
        if block.length > MAX_CONVERTED:
            raise LimitError(
                f"RAM block {block.name!r} has {block.length:#x} bytes",
                offset=block.block.offset,
                section="ram",
                expected=f"at most {MAX_CONVERTED:#x} to be written again",
            )
    before = "mapped-ram" if memory.mapped_before else "records"
    draft.change("RAM", memory.start.offset, before, form)
    if form == MemoryFormat.MAPPED or draft.configuration is not None:
        header.list_capability(draft, "mapped-ram", listed=form == MemoryFormat.MAPPED)
    for section in draft.commands(*LIVE_COMMANDS):
        draft.change(f"command {section.name}", section.offset, section.name, None, "live migration only")
        draft.drop_command(section)
    memory.format, memory.absent = MemoryFormat(form), absent
    _say_in_save_image(draft, SaveFormat.SPARSE if form == MemoryFormat.MAPPED else SaveFormat.RAW)


def _say_in_save_image(draft: Draft, form: SaveFormat) -> None:
    """Set the memory format in the header of a libvirt save image: libvirt passes it to QEMU's loader."""
    container = draft.stream.container
    if container.name != "libvirt" or not container.in_place or draft.bare:
        return
    version, before = container.details["version"], draft.save_format
    if version == 1 and form is not SaveFormat.RAW:
        raise UnsupportedError(
            "mapped-ram in a save image of version 1", "a libvirt save image of version 1 cannot hold mapped-ram"
        )
    old = container.details["format"] if before is None else before.name.lower()
    if version != 1 and old != form.name.lower():
        draft.change("libvirt header: format", FORMAT_OFFSET, old, form.name.lower())
    draft.save_format = None if version == 1 else form
