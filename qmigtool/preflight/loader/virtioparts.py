"""The device-specific state of each virtio device, between its queues and the subsections of ``virtio``.

Each function skips the state that it knows and raises :class:`Strange` if it cannot find the end
(hw/net/virtio-net.c, hw/block/virtio-blk.c, hw/char/virtio-serial-bus.c, hw/virtio/virtio-balloon.c and others).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qmigtool.parsers.records import SectionType
from qmigtool.preflight.loader import virtiomem
from qmigtool.preflight.loader.words import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from qmigtool.preflight.loader.state import Load

__all__ = ["PARTS", "Common", "Strange"]

ELEMENT_SIZE = 49168  # VirtQueueElementOld of a 64-bit host
CTRL_GUEST_OFFLOADS = 2
MAX_ELEMENTS = 1024 * 64
SERIAL_PORTS = 32  # of one word of the map


class Strange(Exception):  # noqa: N818 - a signal
    """The state cannot be predicted; the text says why."""


class Common(NamedTuple):
    """Values of the preceding part: feature bits (the low word) of the stream and of the target, number of queues.

    ``packed`` is whether the device offers packed rings.
    """

    features: int
    own_features: int
    queues: int
    packed: bool


def _nothing(load: Load, common: Common, own: bytes) -> None:
    """Skip nothing: the device has no state of its own."""


def _net(load: Load, common: Common, own: bytes) -> None:
    cursor = load.cursor
    addresses = 6 * int.from_bytes(own[NET_TABLE : NET_TABLE + 4], "big")
    mine = own[:NET_TABLE] + own[NET_TABLE + addresses :]  # as if its table were empty
    cursor.skip(NET_TABLE)
    cursor.skip(6 * cursor.be32() + NET_VLANS)
    vnet_hdr = cursor.be32()
    cursor.skip(6)
    ufo = cursor.u8()
    if vnet_hdr and not any(mine[NET_VNET_HDR : NET_VNET_HDR + 4]):
        raise load.refuse("net-vnet-hdr", cursor.pos)
    if ufo and not any(mine[NET_SIZE - 1 : NET_SIZE]):
        raise Strange("it is unknown whether the target's backend has UFO")
    if _has_pairs(mine, common.own_features):
        # max_queue_pairs and curr_queue_pairs, be16 each, then tx_waiting of every other pair in use
        pairs, used = cursor.be16(), cursor.be16()
        if pairs != int.from_bytes(mine[NET_SIZE : NET_SIZE + 2], "big"):
            raise Strange(f"max_queue_pairs {pairs} must equal the target's")
        cursor.skip(4 * max(0, used - 1))
    if common.features >> CTRL_GUEST_OFFLOADS & 1:
        cursor.skip(NET_OFFLOADS)
    _subsections(load, NET_PREFIX, {})


NET_TABLE = 6 + 4 + 4 + 2 + 1 + 1  # after mac, tx_waiting, mergeable_rx_bufs, status, promisc, allmulti
NET_VLANS = 512
NET_VNET_HDR = NET_TABLE + 4 + NET_VLANS
NET_SIZE, NET_OFFLOADS = NET_VNET_HDR + 4 + 7, 8
NET_PREFIX = b"virtio-net-device/"


def _has_pairs(mine: bytes, features: int) -> bool:
    """Return whether the target's own part has numbers of queue pairs: its device has more than one."""
    end = mine.find(NET_PREFIX, NET_SIZE)
    size = len(mine) if end < 0 else end - 2
    return size - NET_SIZE - (NET_OFFLOADS if features >> CTRL_GUEST_OFFLOADS & 1 else 0) >= 4


def _blk(load: Load, common: Common, own: bytes) -> None:
    """(1, [queue], request)* 0."""
    cursor = load.cursor
    for _ in range(MAX_ELEMENTS):
        if not cursor.u8() or cursor.failed:
            return
        if common.packed:
            raise load.refuse("memory-split", cursor.pos)
        if common.queues > 1:
            cursor.be32()
        cursor.skip(ELEMENT_SIZE)
    raise Strange("its list of requests has no end")


def _serial(load: Load, common: Common, own: bytes) -> None:
    cursor = load.cursor
    ports = max(1, common.queues // 2 - 1)
    words = -(-ports // SERIAL_PORTS)
    cursor.skip(2 + 2 + 4)
    sent = cursor.take(4 * words)
    if sent != own[8 : 8 + 4 * words]:
        raise Strange("its ports differ from those of the target's reference")
    for _ in range(cursor.be32()):
        cursor.skip(4 + 1 + 1)
        if cursor.be32():
            cursor.skip(4 + 8 + ELEMENT_SIZE + (4 if common.packed else 0))
        if cursor.failed:
            return


def _balloon(load: Load, common: Common, own: bytes) -> None:
    load.cursor.skip(8)
    sizes = {b"virtio-balloon-device/free-page-report": 8, b"virtio-balloon-device/page-poison": 4}
    _subsections(load, b"virtio-balloon-device/", sizes)
    if load.cursor.peek(len(MISSPELT), 2) == MISSPELT:
        raise Strange("QEMU 5.2 names a subsection vitio-balloon-device/page-poison, and continues to read after it")


MISSPELT = b"vitio-balloon-device/"


def _iommu(load: Load, common: Common, own: bytes) -> None:
    if int.from_bytes(load.cursor.peek(4), "big"):
        raise Strange("its domains are in a device-specific format")
    load.cursor.skip(len(own))  # the same length as the target's, which has no domains either


MEM_LATE_SIZE = 16  # usable_region_size, requested_size: the rest is in a separate section


def _mem(load: Load, common: Common, own: bytes) -> None:
    """Compare the numbers that must equal the target's; skip the bitmap of plugged blocks (hw/virtio/virtio-mem.c)."""
    cursor = load.cursor
    if len(own) > MEM_LATE_SIZE:
        at, sent = cursor.pos, cursor.peek(virtiomem.SIZE).ljust(virtiomem.SIZE, b"\0")
        try:
            virtiomem.compare_memory(load, virtiomem.numbers(sent), virtiomem.numbers(own), at)
        except Refusal as refusal:
            load.words.wrap(refusal, "field", vmsd="virtio-mem-device", field="tmp")
            raise
    cursor.skip(len(own))


def _subsections(load: Load, prefix: bytes, sizes: dict[bytes, int]) -> None:
    """Skip the subsections of a device's own description."""
    cursor = load.cursor
    while cursor.look() == SectionType.QEMU_VM_SUBSECTION:
        length = cursor.peek(1, 1)[0] if cursor.left > 1 else 0
        name = cursor.peek(length, 2)
        if not name.startswith(prefix):
            return
        if name not in sizes:
            raise Strange(f"the format of the subsection {name.decode('latin-1')} is unknown")
        cursor.skip(2 + length + 4 + sizes[name])


PARTS: dict[str, Callable[[Load, Common, bytes], None]] = {
    **dict.fromkeys(("virtio-scsi", "virtio-rng", "virtio-input", "virtio-9p", "virtio-gpu"), _nothing),
    **dict.fromkeys(("vhost-vsock", "vhost-scsi", "vhost-user-blk", "vhost-user-scsi"), _nothing),
    "virtio-net": _net,
    "virtio-blk": _blk,
    "virtio-console": _serial,
    "virtio-serial": _serial,
    "virtio-balloon": _balloon,
    "virtio-iommu": _iommu,
    "virtio-mem": _mem,
}
"""The vmsd of a device -> the function that skips its own part: of the load, the part before, and the target's own."""
