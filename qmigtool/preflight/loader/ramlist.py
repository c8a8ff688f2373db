"""The ``ram`` section as the target loads it: its list of blocks is compared with the target's (``migration/ram.c``).

The list must name blocks that the target has, with their lengths; a resizable block accepts any length up to its
maximum. Blocks that are not listed keep their contents, but their records are still loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.devices.blocknames import RESIZABLE
from qmigtool.errors import StreamError
from qmigtool.parsers.ramstate import MAX_BLOCKS
from qmigtool.parsers.records import MappedRamHeader
from qmigtool.parsers.window import Window
from qmigtool.preflight.loader.aborts import may_abort_on_block
from qmigtool.preflight.loader.records import load_records
from qmigtool.preflight.loader.state import Undecided

if TYPE_CHECKING:
    from qmigtool.preflight.loader.state import Load

__all__ = ["load_ram"]

VERSION = 4


def load_ram(load: Load, version: int) -> None:
    """Load one START, PART or END body; raises :class:`~.words.Refusal`."""
    if version != VERSION:
        raise load.refuse("ram-version", section="ram", ram_version=version, ret=-22)
    load_records(load, _list)


def _list(load: Load, total: int) -> None:
    """Read the MEM_SIZE list, of ``total`` bytes of RAM."""
    ram, cursor = load.ram, load.cursor
    entries = 0
    while total:
        at = cursor.pos
        entries += 1
        if entries > MAX_BLOCKS:
            raise Undecided(f"the RAM list has more than {MAX_BLOCKS} entries")
        name = cursor.name()
        length = cursor.be64()
        if cursor.failed and not ram.known:
            raise load.refuse("ram-cut", at, "ram", ram_version=VERSION, ret=-5)
        _block(load, at, name, length)
        may_abort_on_block(load, name)
        _more(load, at, name, length)
        total = (total - length) % (1 << 64)  # as in C: a list that exceeds the total is read further


def _block(load: Load, at: int, name: str, received: int) -> None:
    ram, blocks = load.ram, load.target.blocks
    if blocks is None:
        load.doubt("the RAM blocks of the target")
        try:
            ram.put(name, ram.round_up(received))
        except StreamError as error:
            raise Undecided(str(error)) from None
        return
    local = ram.length(name)
    if local is None:
        raise load.refuse("unknown-block", at, "ram", block=name, ram_version=VERSION, ret=-22)
    if received == local or ram.round_up(received) == ram.round_up(local):
        return
    most = blocks[name].max_length or RESIZABLE.get(name)
    values = {"block": name, "received": ram.round_up(received), "ram_version": VERSION, "ret": -22}
    if most is None:
        raise load.refuse("block-size", at, "ram", local=ram.round_up(local), **values)
    if ram.round_up(received) > most:
        raise load.refuse("block-too-large", at, "ram", local=most, **values)
    ram.put(name, ram.round_up(received))


def _address(load: Load, name: str) -> None:
    """Compare the address of a block that the target shares: it must be equal."""
    at, received = load.cursor.pos, load.cursor.be64()
    block = (load.target.blocks or {}).get(name)
    if block is None or block.shared is False:
        return
    if block.address is None:
        load.doubt(
            f"RAM block {name}: the target's address of it, which must be {received:#x} if it is shared: "
            "a reference saved with x-ignore-shared decides it"
        )
    elif received != block.address:
        raise load.refuse(
            "block-address", at, "ram", block=name, received=received, local=block.address, ram_version=VERSION, ret=-22
        )


def _more(load: Load, at: int, name: str, length: int) -> None:
    """Read what capabilities add after a block's length."""
    cursor = load.cursor
    if load.postcopy:
        # Only a block whose page size is not the host's has this word; no name and no record can look like it.
        word = int.from_bytes(cursor.peek(8), "big")
        if word > load.ram.page_size and word & (word - 1) == 0:
            cursor.skip(8)
            load.miss(f"the page size of RAM block {name}, which must be {word:#x} in the target")
    if "x-ignore-shared" in load.capabilities:
        _address(load, name)
    if "mapped-ram" in load.capabilities:
        header, _ = MappedRamHeader.parse(Window(cursor.take(28).ljust(28, b"\0"), final=True), 0)
        if header.version != 1:
            raise Undecided(f"mapped-ram header version {header.version} at {at:#x}")
        if header.pages_offset:
            cursor.skip(max(0, header.pages_offset + length - cursor.pos))
