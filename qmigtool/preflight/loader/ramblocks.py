"""The target's RAM while it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from qmigtool.parsers.ramstate import RamBlock, RamState

__all__ = ["RamLoader"]

DEFAULT_PAGE_BITS = 12


@dataclass(slots=True)
class RamLoader:
    """The target's RAM while it is loaded: the blocks in the form that the parser of records uses."""

    page_size: int
    state: RamState
    known: bool

    @classmethod
    def of(cls, blocks: dict[str, int] | None, page_bits: int | None) -> RamLoader:
        """Create the RAM of a target; ``blocks`` None means that its blocks are not known."""
        page_size = 1 << (DEFAULT_PAGE_BITS if page_bits is None else page_bits)
        loader = cls(page_size, RamState(page_size), blocks is not None)
        for idstr, length in (blocks or {}).items():
            loader.put(idstr, length)
        return loader

    def put(self, idstr: str, length: int) -> None:
        """Add a block, or change its length."""
        block = RamBlock(idstr, length, 0)
        index = self.state.by_name.get(idstr)
        if index is None:
            self.state.add_block(block)
        else:
            self.state.blocks[index] = block

    def length(self, idstr: str) -> int | None:
        """Return a block's length, or None if there is no such block."""
        index = self.state.by_name.get(idstr)
        return None if index is None else self.state.blocks[index].used_length

    def round_up(self, length: int) -> int:
        """Round up to whole pages of the target, as a RAMBlock is; modulo 2^64."""
        return -(-length // self.page_size) * self.page_size % (1 << 64)
