"""The opaque state of a virtio device, as it reads and checks it (``virtio_load`` in ``hw/virtio/virtio.c``).

No vmdesc describes it: a header of the transport (PCI or mmio), registers, the device's configuration, the queues, then
the device-specific part (:mod:`.virtioparts`) and subsections of ``virtio``. The target's body gives the length of the
header. Queues that a driver has set up are compared with their rings in guest memory.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.devices.blocknames import main_blocks
from qmigtool.parsers.pci import CONFIG_SIZE, PCI_CAP_ID_EXP, capability, virtio_configuration
from qmigtool.parsers.records import SectionType
from qmigtool.preflight.loader.pciconfig import compare_config, msix_entries
from qmigtool.preflight.loader.virtioparts import PARTS, Common, Strange
from qmigtool.preflight.loader.words import Refusal

if TYPE_CHECKING:
    from qmigtool.preflight.loader.state import Load

__all__ = ["Strange", "cut_virtio", "load_virtio"]

EXPRESS_SIZE = 4096
PCI_VERSION = 2
IRQ_STATE_SIZE, MSIX_ENTRY_SIZE, MMIO_HEAD = 16, 16, 12
MAX_QUEUES = 1024  # VIRTIO_QUEUE_MAX
NO_VECTOR = 0xFFFF
CHECKS_QUEUES = (11, 0)
"""The first version that compares a queue's size with its size at creation: 11.1 does, 10.0 does not."""
MARKS_BROKEN = (7, 2)
"""The first version that marks a device with an inconsistent ring as broken: 5.2 only logs it."""
WIDE_FEATURES = (11, 0)

F_VERSION_1, F_IOMMU, F_PACKED = 1 << 32, 1 << 33, 1 << 34
PAGE = 4096  # alignment of the used ring of a legacy PCI device
_TRANSPORT = 1 << 24 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 30 | F_VERSION_1 | 1 << 40
_OWN_BITS = (1 << 24) - 1
_NET = 0x101_79BF_8064
"""The features of virtio-net with any backend (10.0, 11.1: "Allowed features"); the rest depends on the backend."""

_SIZES = {
    **dict.fromkeys((b"virtio/device_endian", b"virtio/broken", b"virtio/start_on_kick"), 1),
    **dict.fromkeys((b"virtio/started", b"virtio/disabled"), 1),
    b"virtio/64bit_features": 8,
    b"virtio/128bit_features": 8,
    b"virtio/virtqueues": 16 * MAX_QUEUES,
    b"virtio/ringsize": 4 * MAX_QUEUES,
    b"virtio/packed_virtqueues": 10 * MAX_QUEUES,
    b"virtio/extra_state": 0,
    b"virtio_pci/modern_state": 28688,
    b"virtio_pci/modern_state/features128": 8,
    b"virtio_mmio/state": 8 + 27 * MAX_QUEUES,
}
"""Subsection -> bytes of its fields; arrays have MAX_QUEUES elements, and nested subsections follow."""


class Queue(NamedTuple):
    """A queue in the body; ``align`` is 0 on PCI."""

    offset: int
    num: int
    desc: int
    last_avail: int
    align: int
    vector: int


@dataclass(slots=True)
class _State:
    """The parts of a body that are compared."""

    vectors: int = 0
    features: int = 0
    queues: list[Queue] = field(default_factory=list)
    rings: list[tuple[int, int]] = field(default_factory=list)
    names: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _Own:
    """The parts of the target's own body."""

    blob: bytes
    pci: bool
    config: bytes = b""
    vectors: int = 0
    head: int = 0
    queues: list[Queue] = field(default_factory=list)
    part: bytes = b""
    packed: bool = False
    features: int = 0

    @classmethod
    def of(cls, blob: bytes, mmio: bool) -> _Own:
        """Split the target's own body; raises :class:`Strange` if it is of another transport."""
        if mmio:
            own = cls(blob, pci=False, head=MMIO_HEAD)
        else:
            start = virtio_configuration(blob)
            if start is None:
                raise Strange("the target's state does not begin with a PCI device")
            config = blob[start : start + CONFIG_SIZE]
            size = EXPRESS_SIZE if capability(config, PCI_CAP_ID_EXP) is not None else CONFIG_SIZE
            config, vectors = blob[start : start + size], msix_entries(config)
            table = vectors * MSIX_ENTRY_SIZE + -(-vectors // 8) + (2 if vectors else 0)
            own = cls(blob, True, config, vectors, start + size + IRQ_STATE_SIZE + table)
        own._queues()
        return own

    def _queues(self) -> None:
        blob, at = self.blob, self.head + 8
        self.features = int.from_bytes(blob[at - 4 : at], "big")
        at += 4 + int.from_bytes(blob[at : at + 4], "big")
        count = int.from_bytes(blob[at : at + 4], "big")
        at += 4
        size = self.record
        if count > MAX_QUEUES or at + count * size > len(blob):
            raise Strange("the target's state has no queues")
        self.queues = [self.queue(blob[at + i * size : at + (i + 1) * size], 0) for i in range(count)]
        at += count * size
        end = min((found for name in _SIZES if (found := blob.find(_head(name), at)) >= 0), default=len(blob))
        self.part = blob[at:end]
        self.packed = _head(b"virtio/packed_virtqueues") in blob

    @property
    def record(self) -> int:
        """The size of the record of one queue."""
        return 14 + (0 if self.pci else 4) + (2 if self.vectors else 0)

    def queue(self, raw: bytes, offset: int) -> Queue:
        """Decode the record of a queue."""
        if self.pci:
            num, desc, last, *rest = struct.unpack(">IQH" + ("H" if self.vectors else ""), raw)
            return Queue(offset, num, desc, last, 0, rest[0] if rest else NO_VECTOR)
        num, align, desc, last = struct.unpack(">IIQH", raw)
        return Queue(offset, num, desc, last, align, NO_VECTOR)


def _head(name: bytes) -> bytes:
    return bytes([SectionType.QEMU_VM_SUBSECTION, len(name)]) + name + b"\0\0\0\1"


def load_virtio(load: Load, own: bytes | None, label: str, device: str | None) -> None:
    """Read the virtio state at the cursor as the target does; ``device`` is its vmsd.

    Raises :class:`~.words.Refusal`, and :class:`Strange` if the rest cannot be predicted.
    """
    if own is None:
        raise Strange("the target's state of this device is unknown")
    part = PARTS.get(device or "")
    if part is None:
        raise Strange(f"the format of {device} is unknown")
    mine = _Own.of(own, label.startswith("virtio-mmio"))
    state = _State(mine.vectors)
    try:
        _transport(load, mine)
        low = _common(load, mine, state, label)
        part(load, Common(low, mine.features, len(state.queues), mine.packed), mine.part)
        state.features = low
        _subsections(load, state)
        if load.cursor.failed:
            return
        _features(load, mine, state, label, device or "")
        _rings(load, state, label)
    except Refusal as refusal:
        load.words.wrap(refusal, "virtio")
        raise


def cut_virtio(load: Load) -> Refusal:
    """Return the refusal of a truncated state; the messages from inside it are not known."""
    refusal = load.refuse("body-cut", vmsd="")
    refusal.cause = ""
    load.words.wrap(refusal, "virtio")
    return refusal


def _transport(load: Load, mine: _Own) -> None:
    cursor = load.cursor
    if not mine.pci:
        cursor.skip(MMIO_HEAD)
        return
    start = cursor.pos
    version = cursor.be32()
    if version > PCI_VERSION:
        raise load.refuse("not-less-or-equal", start, received=version, local=PCI_VERSION)
    at, config = cursor.pos, cursor.take(len(mine.config))
    try:
        compare_config(load, config, mine.config, at)
    except Refusal as refusal:
        load.words.wrap(refusal, "field", vmsd="PCIDevice", field="config")
        raise
    cursor.skip(mine.head - 4 - len(mine.config) - (2 if mine.vectors else 0))
    if mine.vectors:
        at, vector = cursor.pos, cursor.be16()
        _vector(load, vector, mine.vectors, at)


def _vector(load: Load, vector: int, vectors: int, at: int) -> None:
    if vector != NO_VECTOR and vector >= vectors:
        raise load.refuse("virtio-vector", at)


def _common(load: Load, mine: _Own, state: _State, label: str) -> int:
    """Read registers, configuration and queues; return the low word of the features."""
    cursor = load.cursor
    cursor.skip(2)
    at, selected = cursor.pos, cursor.be16()
    if selected >= MAX_QUEUES:
        raise load.refuse("virtio-queue-sel", at)
    low = cursor.be32()
    cursor.skip(cursor.be32())
    at, count = cursor.pos, cursor.be32()
    if count > MAX_QUEUES:
        raise load.refuse("virtqueues", at, received=count)
    for index in range(count):
        at = cursor.pos
        queue = mine.queue(cursor.take(mine.record), at)
        if cursor.failed:
            return low
        state.queues.append(queue)
        if index < len(mine.queues):
            local = mine.queues[index].num
            if local and queue.num > local and load.since(CHECKS_QUEUES):
                raise load.refuse("virtqueue-size", at, queue=index, received=queue.num, local=local)
        elif load.since(CHECKS_QUEUES):
            load.doubt(f"virtio: the size of the target's queue {index} is unknown; its queue-size decides it", label)
        if not queue.desc and queue.last_avail:
            raise load.refuse("virtqueue-address", at, queue=index, received=queue.last_avail)
        _vector(load, queue.vector, mine.vectors if mine.pci else NO_VECTOR, at)
    return low


def _subsections(load: Load, state: _State) -> None:
    cursor = load.cursor
    while cursor.look() == SectionType.QEMU_VM_SUBSECTION:
        length = cursor.peek(1, 1)[0] if cursor.left > 1 else 0
        at, name = cursor.pos, cursor.peek(length, 2)
        if not name.startswith((b"virtio/", b"virtio_pci/", b"virtio_mmio/")):
            return
        known = name in _SIZES and (name != b"virtio/128bit_features" or load.since(WIDE_FEATURES))
        if not known:
            raise load.refuse("unknown-subsection", at, name=name.decode("latin-1"), vmsd="virtio")
        cursor.skip(2 + length)
        version = cursor.be32() & 0xFF
        if version > 1:
            raise load.refuse("version-too-new", at, vmsd=name.decode(), received=version, local=1)
        raw = cursor.take(_SIZES[name])
        state.names.add(name)
        if name == b"virtio/64bit_features":
            state.features = int.from_bytes(raw, "big")
        elif name == b"virtio/virtqueues":
            words = struct.unpack(f">{2 * MAX_QUEUES}Q", raw)
            state.rings = list(zip(words[::2], words[1::2], strict=True))


def _features(load: Load, mine: _Own, state: _State, label: str, device: str) -> None:
    """Doubt features that only some targets offer: no stream contains the features that the target offers."""
    offered = _TRANSPORT | (_NET if device == "virtio-net" else _OWN_BITS) | (F_PACKED if mine.packed else 0)
    odd = state.features & ~offered
    if odd:
        load.doubt(
            f"virtio: whether the target's device offers features {odd:#x}, which the driver has accepted: "
            "x-query-virtio-status of such a device in use there decides it",
            label,
        )


def _rings(load: Load, state: _State, label: str) -> None:
    """Compare the queues in use with their rings in guest memory."""
    if state.features & F_PACKED:
        return  # nothing is compared
    for index, queue in enumerate(state.queues):
        if not queue.desc:
            continue
        if not queue.num:
            load.doubt(
                f"virtio: queue {index} is in use and has no descriptors: QEMU may abort; the target itself decides it",
                label,
            )
            continue
        indexes = None if state.features & F_IOMMU else _indexes(load, state, index, queue)
        if indexes is None:
            load.doubt(
                f"virtio: whether the rings of queue {index} match its last_avail_idx {queue.last_avail:#x}: "
                "guest memory that the file does not contain decides it",
                label,
            )
            continue
        avail, used = indexes
        delta = avail - queue.last_avail & 0xFFFF
        if delta > queue.num:
            # QEMU does not check this queue any further.
            if load.since(MARKS_BROKEN):
                words = {"size": queue.num, "avail": avail, "last": queue.last_avail, "delta": delta}
                load.warn("virtqueue-broken", queue=index, **words)
            load.dies(label, f"queue {index} is inconsistent: the device stops, and so does the guest")
        elif queue.last_avail - used & 0xFFFF > queue.num:
            at, last = queue.offset, queue.last_avail
            raise load.refuse("virtqueue-used", at, queue=index, size=queue.num, last=last, used=used)


def _indexes(load: Load, state: _State, index: int, queue: Queue) -> tuple[int, int] | None:
    """Return the indexes of the available and the used ring, or None if they cannot be read."""
    if state.features & F_VERSION_1:
        if index >= len(state.rings):
            return None
        avail, used = state.rings[index]
    else:
        align = queue.align or PAGE
        avail = queue.desc + 16 * queue.num
        used = -(-(avail + 4 + 2 * queue.num) // align) * align
    blocks = main_blocks(block.idstr for block in load.ram.state.blocks)
    found = []
    for address in (avail, used):
        place = load.memory.place(address + 2, 2, blocks)
        raw = load.memory.read(*place, 2) if place is not None else None
        if raw is None:
            return None
        found.append(int.from_bytes(raw, "little"))
    return found[0], found[1]
