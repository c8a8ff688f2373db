"""What a virtio PCI device checks of its own, opaque state (``virtio_load`` in ``hw/virtio/virtio.c``).

No vmdesc describes it, but it is known how it begins and how it ends: what the PCI device saves, MSI-X, registers, the
device's configuration, the queues; then the device's own part, and subsections of ``virtio``. The part in between is
compared by its length with the target's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.parsers.pci import CONFIG_SIZE, virtio_configuration
from qmigtool.preflight.pciconfig import compare_config, msix_entries
from qmigtool.preflight.words import Refusal

if TYPE_CHECKING:
    from qmigtool.preflight.state import Load

__all__ = ["compare_virtio"]

IRQ_STATE_SIZE, MSIX_ENTRY_SIZE = 16, 16
# status and isr u8, queue_sel be16, guest features be32
REGISTERS_SIZE = 1 + 1 + 2 + 4
QUEUE_SIZE = 4 + 8 + 2  # vring.num, descriptor address, last_avail_idx; with MSI-X, a vector besides
MAX_QUEUES = 1024  # VIRTIO_QUEUE_MAX
MAX_BLOB = 1 << 20
MAC_SIZE, MAX_MACS = 6, 64  # what virtio-net's table of addresses adds (hw/net/virtio-net.c)
CHECKS_QUEUES = (11, 0)
"""The first version that compares a queue's size with the one it was made with: 11.1 does, 10.0 does not."""

_SUBSECTION = re.compile(rb"\x05(?P<length>.)(?P<name>virtio/[a-z0-9_]+)\x00\x00\x00\x01", re.DOTALL)
# Bytes of the subsections that do not depend on the transport; arrays have MAX_QUEUES elements.
_SIZES = {
    **dict.fromkeys((b"virtio/device_endian", b"virtio/broken", b"virtio/start_on_kick"), 1),
    **dict.fromkeys((b"virtio/started", b"virtio/disabled"), 1),
    b"virtio/64bit_features": 8,
    b"virtio/virtqueues": 16 * MAX_QUEUES,
    b"virtio/ringsize": 4 * MAX_QUEUES,
}


class _Queue(NamedTuple):
    """A queue in the blob."""

    offset: int
    size: int


class _Parts(NamedTuple):
    """Where the queues of a blob end (None if it ends before), and its subsections: name -> (start, bytes)."""

    queues: list[_Queue]
    queues_end: int | None
    subsections: dict[bytes, tuple[int, int]]

    def own_part(self, blob: bytes) -> int | None:
        """The bytes between the queues and the subsections."""
        if self.queues_end is None:
            return None
        return min((start for start, _ in self.subsections.values()), default=len(blob)) - self.queues_end


def compare_virtio(load: Load, own: bytes | None, length: int) -> str | None:
    """Compare the ``length`` bytes of virtio state that begin where the cursor is with the target's own.

    Returns what is strange about them, or None. Raises :class:`~qmigtool.preflight.words.Refusal`.
    """
    start = virtio_configuration(own) if own is not None else None
    blob = load.cursor.peek(min(length, MAX_BLOB))
    if own is None or start is None:
        return "the target's own is not known"
    if virtio_configuration(blob) is None:
        return "it does not begin with a PCI device"
    config = own[start : start + CONFIG_SIZE]
    vectors = msix_entries(config)
    mine, parts = _parts(own, start, vectors), _parts(blob, start, vectors)
    try:
        _config(load, blob, config, start)
        if load.version >= CHECKS_QUEUES:
            _queues(load, mine, parts)
    except Refusal as refusal:
        load.words.wrap(refusal, "virtio")
        raise
    return _length(blob, parts, own, mine)


def _config(load: Load, blob: bytes, config: bytes, start: int) -> None:
    try:
        compare_config(load, blob[start : start + CONFIG_SIZE], config, load.cursor.pos + start)
    except Refusal as refusal:
        load.words.wrap(refusal, "field", vmsd="PCIDevice", field="config")
        raise


def _queues(load: Load, mine: _Parts, parts: _Parts) -> None:
    for index, (local, queue) in enumerate(zip(mine.queues, parts.queues, strict=False)):
        if local.size and queue.size > local.size:
            at = load.cursor.pos + queue.offset
            raise load.refuse("virtqueue-size", at, queue=index, received=queue.size, local=local.size)


def _length(blob: bytes, parts: _Parts, own: bytes, mine: _Parts) -> str | None:
    """Say what is strange about the lengths."""
    received, expected = parts.own_part(blob), mine.own_part(own)
    if received is None or expected is None:
        return "it ends before its queues do"
    more = received - expected
    if more % MAC_SIZE or not 0 <= more <= MAX_MACS * MAC_SIZE:
        return f"its own part has {received} bytes, the target's {expected}"
    for name, (start, size) in parts.subsections.items():
        wanted = _SIZES.get(name)
        if wanted is None and name in mine.subsections:
            wanted = mine.subsections[name][1]
        if size != wanted:
            return f"{name.decode()} at {start:#x} has {size} bytes, which is not what is known of it"
    return None


def _parts(blob: bytes, start: int, vectors: int) -> _Parts:
    """Find the parts of a blob."""
    at = start + CONFIG_SIZE + IRQ_STATE_SIZE
    at += vectors * MSIX_ENTRY_SIZE + -(-vectors // 8) + (2 if vectors else 0) + REGISTERS_SIZE
    at += 4 + int.from_bytes(blob[at : at + 4], "big")
    count = int.from_bytes(blob[at : at + 4], "big")
    size = QUEUE_SIZE + (2 if vectors else 0)
    end = at + 4 + count * size
    if count > MAX_QUEUES or end > len(blob):
        return _Parts([], None, {})
    queues = [_Queue(place, int.from_bytes(blob[place : place + 4], "big")) for place in range(at + 4, end, size)]
    heads = [found for found in _SUBSECTION.finditer(blob, end) if found["length"][0] == len(found["name"])]
    ends = [*(head.start() for head in heads[1:]), len(blob)]
    named = {h["name"]: (h.start(), stop - h.end()) for h, stop in zip(heads, ends, strict=False)}
    return _Parts(queues, end, named)
