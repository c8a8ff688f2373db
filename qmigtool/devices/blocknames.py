"""The meaning of a RAM block's name: a board's memory, or a device's ROM, firmware or display memory.

A name proves nothing: ``-object memory-backend-ram,id=...`` can have any name, and a virtio-mem device's block has a
PCI address in its name like a ROM. Code that may lose something because of a name checks further
(:mod:`qmigtool.preflight.remedies.mainmemory`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "BACKENDS",
    "BASES",
    "BOARD_MEMORY",
    "RESIZABLE",
    "device_block",
    "is_board_memory",
    "is_option_rom",
    "is_rom",
    "main_blocks",
]

BOARD_MEMORY = frozenset(
    {"pc.ram", "microvm.ram", "mach-virt.ram", "riscv_virt_board.ram", "ppc_spapr.ram", "s390.ram"}
)
"""The names that boards give main memory (``default_ram_id``)."""
BASES = {"mach-virt.ram": 0x4000_0000, "riscv_virt_board.ram": 0x8000_0000, "s390.ram": 0, "ppc_spapr.ram": 0}
"""The start of main memory, for boards with one block of it."""
BACKENDS = "/objects/"
"""Prefix of the id of a memory backend named by the user."""

RESIZABLE = {"/rom@etc/acpi/tables": 0x200000, "/rom@etc/table-loader": 0x10000, "/rom@etc/acpi/rsdp": 0x1000}
"""The resizable blocks of every x86 machine -> their max_length (hw/acpi; measured with QEMU 7.2, 10.0 and 11.1)."""

_ROM = re.compile(r"/rom@.+|pc\.bios|pc\.rom|isa-bios|.+\.rom")
_FIRMWARE = re.compile(r"tpm-ppi|tpm-crb-cmd")
_DISPLAY = re.compile(
    r"(?:.+/)?(?:vga\.vram|qxl\.(?:vga)?(?:vram|vrom|ram)|vmsvga\.fifo|cirrus_vga\.vram|bochs-display-vram|sm501\.local)"
)
_NOT_MAIN = re.compile(r"isapc\.bios|vga\.vram|.+\.fd")  # and ROMs and firmware, where addresses are looked up
_ROM_LIMIT = 64 << 20  # bytes; option ROMs have at most 16 MiB, firmware less


def is_rom(name: str) -> bool:
    """Whether a block has the name of one that keeps the loader's own bytes: a ROM, or firmware."""
    return _ROM.fullmatch(name) is not None


def is_option_rom(name: str) -> bool:
    """Whether a block has the name of a device's ROM."""
    return name.endswith(".rom")


def is_board_memory(name: str) -> bool:
    """Whether a block has the name of a machine's own memory, not of a DIMM's or a device's."""
    return name.endswith(".ram") and "/" not in name


def device_block(name: str, size: int) -> bool:
    """Whether a block has the name of one of a device or the firmware."""
    if _DISPLAY.fullmatch(name):
        return True
    return size <= _ROM_LIMIT and (is_rom(name) or _FIRMWARE.fullmatch(name) is not None)


def main_blocks(names: Iterable[str]) -> list[str]:
    """Return the blocks that can be main memory from address 0 on: one if there is one with a board's own name.

    Otherwise every backend named by the user: several with NUMA nodes and DIMMs.
    """
    every = list(names)
    named = [name for name in every if name in BOARD_MEMORY]
    return named[:1] or [
        name
        for name in every
        if ("/" not in name or name.startswith(BACKENDS))
        and not any(pattern.fullmatch(name) for pattern in (_ROM, _FIRMWARE, _NOT_MAIN))
    ]
