"""The values that virtio-mem compares with the target's: address, size and block size of its memory, and its node.

Four numbers, either at the start of the device-specific state, or since 8.1 in a section before the device state
(``virtio-mem-device-early``): addr, region_size and block_size be64, node be32
(``virtio_mem_mig_sanity_checks_post_load`` in hw/virtio/virtio-mem.c).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qmigtool.preflight.loader.state import Load

__all__ = ["DEVICE", "EARLY", "FIELDS", "SIZE", "VMSD", "compare_memory", "numbers"]

DEVICE, EARLY = "virtio-mem", "virtio-mem-device-early"
VMSD = "virtio-mem-device/sanity-checks"
FIELDS = ("addr", "region_size", "block_size", "node")
_HEAD = struct.Struct(">QQQI")
SIZE = _HEAD.size
_TEXTS = (
    "Property 'memaddr' changed from 0x{:x} to 0x{:x}",
    "Property 'memdev' size changed from 0x{:x} to 0x{:x}",
    "Property 'block-size' changed from 0x{:x} to 0x{:x}",
    "Property 'node' changed from 0x{:x} to 0x{:x}",
)
HOOK = {"vmsd": VMSD, "version": 0, "minimum": 0}


def numbers(data: bytes) -> tuple[int, ...]:
    """Read the four numbers."""
    return _HEAD.unpack_from(data)


def compare_memory(
    load: Load, received: tuple[int, ...], own: tuple[int, ...], at: int, hook: Mapping[str, Any] = HOOK
) -> None:
    """Compare the numbers, in QEMU's order; raises :class:`~.words.Refusal`."""
    for text, theirs, ours in zip(_TEXTS, received, own, strict=True):
        if theirs != ours:
            raise load.refuse("property-changed", at, text=text.format(theirs, ours), **hook)
