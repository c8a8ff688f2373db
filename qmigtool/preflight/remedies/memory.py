"""Fixes of memory: RAM blocks of another name or size, records that the target does not accept."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from qmigtool.devices.blocknames import BACKENDS, device_block, is_board_memory, is_option_rom
from qmigtool.errors import UnsupportedError
from qmigtool.preflight.remedies.fix import Fix, edit, join
from qmigtool.preflight.remedies.mainmemory import guest_memory
from qmigtool.preflight.remedies.offered import has_property
from qmigtool.preflight.target.model import Target, TargetBlock

if TYPE_CHECKING:
    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.stream.model import Stream

__all__ = ["as_records", "block_size", "unknown_block"]

_ON_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f.:]+/")
PCI_DEVICE = "e1000"  # has the properties that every PCI device has
_ID = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")  # what QEMU accepts as the id of an object


def unknown_block(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Rename a block if only its name differs; drop the blocks of devices that the target does not have.

    A block that may be the guest's memory is renamed or stays, but is never dropped. Raises
    :class:`~qmigtool.errors.UnsupportedError` if the matching block of the target is not certain.
    """
    if target.blocks is None:
        return None
    listed = {block.idstr: block.used_length for block in stream.ram_blocks}
    foreign = {name: size for name, size in listed.items() if name not in target.blocks}
    free = {name: block.used_length for name, block in target.blocks.items() if name not in listed}
    memory = guest_memory(stream)
    fixes, options, lost = [], [], []
    for name, size in foreign.items():
        same = [other for other, length in free.items() if length == size and _of_one_kind(name, other, size, memory)]
        rivals = [other for other, length in foreign.items() if length == size and same and _rival(name, other, memory)]
        if len(same) == 1 and len(rivals) == 1:
            fixes.append(edit("rename-block", name, same[0], name=name, to=same[0]))
            options += _backend(name, same[0], size)
        elif name in memory:
            which = f"{len(same)} blocks of the target have" if same else "no block of the target has"
            message = f"{name} may hold the guest's memory, and {which} its size: it is neither dropped nor renamed"
            raise UnsupportedError("memory that the target does not have", message)
        else:
            fixes.append(edit("drop-block", name, name=name))
            lost.append(f"the contents of {name}, {size:#x} bytes")
            options.append(f"give the target the device of the RAM block {name}")
    return join(*fixes, options=options, loses=lost) if fixes else None


def _of_one_kind(name: str, other: str, size: int, memory: frozenset[str]) -> bool:
    """Whether a block of the stream and one of the target may be the same: memory, or of the same device."""
    if name in memory:
        return not device_block(other, size)
    return _last(name) == _last(other)


def _rival(name: str, other: str, memory: frozenset[str]) -> bool:
    """Whether another block of the stream could be renamed to ``other`` instead of ``name``."""
    return other in memory if name in memory else other not in memory and _last(name) == _last(other)


def _last(name: str) -> str:
    """Return a block's name without the device's path."""
    return name.rsplit("/", 1)[-1]


def _backend(name: str, other: str, size: int) -> list[str]:
    """Return the options that rename the target's main memory, now named ``other``."""
    if not is_board_memory(other):
        return []  # not the machine's main memory, but a DIMM's or a device's
    canonical = ",x-use-canonical-path-for-ramblock-id=on" if name.startswith(BACKENDS) else ""
    plain = name.removeprefix(BACKENDS)
    if not _ID.fullmatch(plain):
        return []
    return [f"-machine memory-backend={plain} -object memory-backend-ram,id={plain},size={size}{canonical}"]


def block_size(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Resize blocks to the target's sizes; the guest's memory can only grow."""
    fixes, options, lost = [], [], []
    memory = guest_memory(stream)
    blocks = dict(target.blocks or {})
    for block in stream.ram_blocks:
        local = (target.blocks or {}).get(block.idstr)
        if local is None or local.used_length == block.used_length:
            continue
        if local.max_length is not None and block.used_length <= local.max_length:
            continue
        name, size = block.idstr, local.used_length
        if is_option_rom(name) and name not in memory:
            if has_property(target, PCI_DEVICE, "romsize") is not False:
                options.append(f"romsize={block.used_length} for the device of {name}")
        elif name not in memory and _ON_PCI.match(name):
            # Its BAR has the same size, at an address that the guest chose: another size means another device.
            options.append(_bar_option(name, block.used_length))
            blocks[name] = TargetBlock(block.used_length)
            continue
        elif name in memory:
            options.append(_memory_option(memory, name, block.used_length))
        if size < block.used_length:
            if name in memory:
                blocks[name] = TargetBlock(block.used_length)
                continue  # the guest's memory is never truncated
            lost.append(f"{name} beyond {size:#x}")
        fixes.append(edit("resize-block", name, f"{size:#x}", name=name, to=size))
    if not fixes:
        return Fix(options=tuple(options), target=replace(target, blocks=blocks)) if options else None
    return join(*fixes, options=options, loses=lost)


def _bar_option(name: str, size: int) -> str:
    """Return the option that gives a device of the target memory of this size."""
    device, _, own = name.rpartition("/")
    if own == "vga.vram" and not size % (1 << 20):
        return f"vgamem_mb={size >> 20} for the display at {device}"
    return f"a block {name} of {size} bytes"


def _memory_option(memory: frozenset[str], name: str, size: int) -> str:
    """Return the option that gives the target main memory of this size: -m if one block is all of it."""
    if len(memory) == 1 and not size % (1 << 20):
        return f"-m {size >> 20}M"
    return f"a block {name} of {size} bytes"


def as_records(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Write memory again, as records that every QEMU accepts."""
    return edit("ram", "plain", format="plain")
