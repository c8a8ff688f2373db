"""What a virtio PCI device checks of its own, opaque state (``virtio_load`` in ``hw/virtio/virtio.c``).

The beginning can be read without knowing the device: what the PCI device saves, MSI-X, and then the registers and the
queues. Behind the queues the device's own state follows, of which only it knows what it is.
"""

from __future__ import annotations

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
CHECKS_QUEUES = (11, 1)
"""The first version that compares a queue's size with the one it was made with."""


class _Queue(NamedTuple):
    """A queue in the blob."""

    offset: int
    size: int


def compare_virtio(load: Load, own: bytes | None) -> None:
    """Compare the virtio state that begins where the cursor is with the target's own.

    Raises :class:`~qmigtool.preflight.words.Refusal`.
    """
    start = virtio_configuration(own) if own is not None else None
    blob = load.cursor.peek(min(load.cursor.left, MAX_BLOB))
    if own is None or start is None or virtio_configuration(blob) is None:
        return
    try:
        config = own[start : start + CONFIG_SIZE]
        _config(load, blob, config, start)
        if load.words.family >= CHECKS_QUEUES:
            _queues(load, blob, own, config, start)
    except Refusal as refusal:
        load.words.wrap(refusal, "virtio")
        raise


def _config(load: Load, blob: bytes, config: bytes, start: int) -> None:
    try:
        compare_config(load, blob[start : start + CONFIG_SIZE], config, load.cursor.pos + start)
    except Refusal as refusal:
        load.words.wrap(refusal, "field", vmsd="PCIDevice", field="config")
        raise


def _queues(load: Load, blob: bytes, own: bytes, config: bytes, start: int) -> None:
    vectors = msix_entries(config)
    local, received = (_queues_of(one, start, vectors) for one in (own, blob))
    for index, (mine, queue) in enumerate(zip(local, received, strict=False)):
        if mine.size and queue.size > mine.size:
            at = load.cursor.pos + queue.offset
            raise load.refuse("virtqueue-size", at, queue=index, received=queue.size, local=mine.size)


def _queues_of(blob: bytes, start: int, vectors: int) -> list[_Queue]:
    """Return the queues of a blob; none if it ends before them."""
    at = start + CONFIG_SIZE + IRQ_STATE_SIZE
    at += vectors * MSIX_ENTRY_SIZE + -(-vectors // 8) + (2 if vectors else 0) + REGISTERS_SIZE
    at += 4 + int.from_bytes(blob[at : at + 4], "big")
    count = int.from_bytes(blob[at : at + 4], "big")
    size = QUEUE_SIZE + (2 if vectors else 0)
    places = range(at + 4, at + 4 + min(count, MAX_QUEUES) * size, size)
    if at + 4 + count * size > len(blob):
        return []
    return [_Queue(place, int.from_bytes(blob[place : place + 4], "big")) for place in places]
