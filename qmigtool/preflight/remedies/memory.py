"""Fixes of memory: RAM blocks of another name or size, records that the target does not take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qmigtool.preflight.remedies.fix import Fix, edit, join
from qmigtool.preflight.target.model import Target, TargetBlock

if TYPE_CHECKING:
    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.stream import Stream

__all__ = ["as_records", "block_size", "unknown_block"]


def unknown_block(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Rename main memory if only its name differs; leave other blocks out that the target has not."""
    if target.blocks is None:
        return None
    listed = {block.idstr: block.used_length for block in stream.ram_blocks}
    foreign = {name: size for name, size in listed.items() if name not in target.blocks}
    free = {name: block.used_length for name, block in target.blocks.items() if name not in listed}
    fixes, options, lost = [], [], []
    for name, size in foreign.items():
        same = [other for other, length in free.items() if length == size]
        rivals = [other for other, length in foreign.items() if length == size]
        if len(same) == 1 and len(rivals) == 1 and _plain(name) and _plain(same[0]):
            fixes.append(edit("rename-block", name, same[0], name=name, to=same[0]))
            options.append(f"-machine memory-backend={name} -object memory-backend-ram,id={name},size={size}")
        elif _plain(name):
            return None  # the guest's memory: nobody may leave that out
        else:
            fixes.append(edit("drop-block", name, name=name))
            lost.append(f"what {name} holds, {size:#x} bytes")
            options.append(f"give the target the device of the RAM block {name}")
    return join(*fixes, options=options, loses=lost) if fixes else None


def _plain(name: str) -> bool:
    """Whether a block is main memory: a backend's name, neither a device's nor a ROM."""
    return "/" not in name and not name.endswith(".rom") and name not in ("pc.bios", "pc.rom")


def block_size(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Give blocks the target's sizes; the guest's memory only grows."""
    fixes, options, lost = [], [], []
    blocks = dict(target.blocks or {})
    for block in stream.ram_blocks:
        local = (target.blocks or {}).get(block.idstr)
        if local is None or local.used_length == block.used_length:
            continue
        if local.max_length is not None and block.used_length <= local.max_length:
            continue
        name, size = block.idstr, local.used_length
        if name.endswith(".rom"):
            options.append(f"romsize={block.used_length} for the device of {name}")
        elif _plain(name):
            options.append(_memory_option(stream, name, block.used_length))
        if size < block.used_length:
            if _plain(name):
                blocks[name] = TargetBlock(block.used_length)
                continue  # the guest's memory: nobody may cut that
            lost.append(f"{name} beyond {size:#x}")
        fixes.append(edit("resize-block", name, f"{size:#x}", name=name, to=size))
    if not fixes:
        return Fix(options=tuple(options), target=replace(target, blocks=blocks)) if options else None
    return join(*fixes, options=options, loses=lost)


def _memory_option(stream: Stream, name: str, size: int) -> str:
    """Return what gives the target main memory of this size: -m, where one block is all of it."""
    if sum(_plain(block.idstr) for block in stream.ram_blocks) == 1 and not size % (1 << 20):
        return f"-m {size >> 20}M"
    return f"a block {name} of {size} bytes"


def as_records(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Write memory anew, as records that every QEMU takes."""
    return edit("ram", "plain", format="plain")
