"""What a virtio PCI device checks of its own, opaque state (``virtio_load`` in ``hw/virtio/virtio.c``).

No vmdesc describes it, but it is known how it begins and how it ends: what the PCI device saves, MSI-X, registers, the
device's configuration, the queues; then the device's own part, and subsections of ``virtio``. The part in between is
compared by its length with the target's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.parsers.pci import CONFIG_SIZE, virtio_configuration
from qmigtool.parsers.records import QEMU_VM_SECTION_FOOTER
from qmigtool.preflight.loader import virtiomem
from qmigtool.preflight.loader.pciconfig import compare_config, msix_entries
from qmigtool.preflight.loader.words import Refusal

if TYPE_CHECKING:
    from qmigtool.preflight.loader.state import Load

__all__ = ["Strange", "compare_virtio", "cut_virtio"]

IRQ_STATE_SIZE, MSIX_ENTRY_SIZE = 16, 16
# status and isr u8, queue_sel be16, guest features be32
REGISTERS_SIZE = 1 + 1 + 2 + 4
QUEUE_SIZE = 4 + 8 + 2  # vring.num, descriptor address, last_avail_idx; with MSI-X, a vector besides
MAX_QUEUES = 1024  # VIRTIO_QUEUE_MAX
MAX_BLOB = 1 << 20
MAC_SIZE, MAX_MACS = 6, 64  # what virtio-net's table of addresses adds (hw/net/virtio-net.c)
CHECKS_QUEUES = (11, 0)
"""The first version that compares a queue's size with the one it was made with: 11.1 does, 10.0 does not."""

MAX_HEAD = 6 + 64  # of a subsection of virtio; the longest name has 26 bytes
_EXTRA_STATE = b"virtio/extra_state"
EXTRA_HEAD = 6 + len("virtio_pci/modern_state")
_SUBSECTION = re.compile(rb"\x05(?P<length>.)(?P<name>virtio/[a-z0-9_]+)\x00\x00\x00\x01", re.DOTALL)
# Bytes of the subsections that do not depend on the transport; arrays have MAX_QUEUES elements.
_SIZES = {
    **dict.fromkeys((b"virtio/device_endian", b"virtio/broken", b"virtio/start_on_kick"), 1),
    **dict.fromkeys((b"virtio/started", b"virtio/disabled"), 1),
    b"virtio/64bit_features": 8,
    b"virtio/virtqueues": 16 * MAX_QUEUES,
    b"virtio/ringsize": 4 * MAX_QUEUES,
}


class Strange(Exception):  # noqa: N818 - a signal
    """The state is of a kind of which nothing can be told; the text says why."""


class _Queue(NamedTuple):
    """A queue in the blob."""

    offset: int
    size: int


class _Parts(NamedTuple):
    """The queues of a blob and where they end (None if it ends before), and its subsections: name -> (start, bytes)."""

    queues: list[_Queue]
    queues_end: int | None
    subsections: dict[bytes, tuple[int, int]]

    def own_part(self, blob: bytes) -> int | None:
        """The bytes between the queues and the subsections."""
        if self.queues_end is None:
            return None
        return min((start for start, _ in self.subsections.values()), default=len(blob)) - self.queues_end


def compare_virtio(load: Load, own: bytes | None, vmsd: str) -> int:
    """Compare the virtio state that begins where the cursor is with the target's own, of the device of this ``vmsd``.

    Returns how many bytes the target reads. Raises :class:`~.words.Refusal`, and :class:`Strange` if
    the device's own part is unlike the target's.
    """
    start = virtio_configuration(own) if own is not None else None
    blob = load.cursor.peek(MAX_BLOB)
    if own is None or start is None:
        raise Strange("the target's own is not known")
    if virtio_configuration(blob) is None:
        raise Strange("it does not begin with a PCI device")
    config = own[start : start + CONFIG_SIZE]
    vectors = msix_entries(config)
    mine, parts = _parts(own, start, vectors), _parts(blob, start, vectors, bounded=False)
    try:
        _config(load, blob, config, start)
        if load.since(CHECKS_QUEUES):
            _queues(load, mine, parts)
    except Refusal as refusal:
        load.words.wrap(refusal, "virtio")
        raise
    early = any(name.endswith(virtiomem.EARLY) for name, _ in load.target.sections or ())
    return _read(load, blob, parts, own, mine, sized=vmsd == virtiomem.DEVICE and not early)


def cut_virtio(load: Load) -> Refusal:
    """Refuse a state in which the file ends; what is printed of its inside is not known."""
    refusal = load.refuse("body-cut", vmsd="")
    refusal.cause = ""
    load.words.wrap(refusal, "virtio")
    return refusal


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


def _read(load: Load, blob: bytes, parts: _Parts, own: bytes, mine: _Parts, *, sized: bool) -> int:
    """Return where the target is when it has read the state: behind the last subsection that it recognises.

    ``sized`` says that virtio-mem's numbers are at the head of the device's own part.
    """
    expected = mine.own_part(own)
    if parts.queues_end is None or expected is None:
        raise Strange("it ends before its queues do")
    first = parts.queues_end + expected
    if sized and expected > virtiomem.SIZE and mine.queues_end is not None:
        received = virtiomem.numbers(blob[parts.queues_end :])
        place = load.cursor.pos + parts.queues_end
        try:
            virtiomem.compare_memory(load, received, virtiomem.numbers(own[mine.queues_end :]), place)
        except Refusal as refusal:
            load.words.wrap(refusal, "field", vmsd="virtio-mem-device", field="tmp")
            load.words.wrap(refusal, "virtio")
            raise
    places = range(first, first + MAX_MACS * MAC_SIZE + 1, MAC_SIZE)
    at = next((place for place in places if _ends(blob, place)), None)
    if at is None:
        raise Strange(f"nothing that is known follows its own part, which has {expected} bytes in the target")
    while head := _SUBSECTION.match(load.cursor.peek(MAX_HEAD, at)):
        name, at = head["name"], at + head.end()
        size = mine.subsections[name][1] if name in mine.subsections else _SIZES.get(name)
        if size is None:
            raise Strange(f"the subsection {name.decode()} is not known")
        if name == _EXTRA_STATE:
            # What the transport adds is a subsection of its own, with its head.
            stop = mine.subsections[name][0] + head.end()
            if load.cursor.peek(EXTRA_HEAD, at) != own[stop : stop + EXTRA_HEAD]:
                raise Strange(f"the head inside {name.decode()} is another one")
        at += size
    return at


def _ends(blob: bytes, at: int) -> bool:
    """Say whether the device's own part may end here: at a subsection, or at the footer."""
    return blob[at : at + 1] == bytes([QEMU_VM_SECTION_FOOTER]) or _SUBSECTION.match(blob, at) is not None


def _parts(blob: bytes, start: int, vectors: int, *, bounded: bool = True) -> _Parts:
    """Find the parts of a blob; of one that is not ``bounded`` no subsections, for it is not known where it ends."""
    at = start + CONFIG_SIZE + IRQ_STATE_SIZE
    at += vectors * MSIX_ENTRY_SIZE + -(-vectors // 8) + (2 if vectors else 0) + REGISTERS_SIZE
    at += 4 + int.from_bytes(blob[at : at + 4], "big")
    count = int.from_bytes(blob[at : at + 4], "big")
    size = QUEUE_SIZE + (2 if vectors else 0)
    end = at + 4 + count * size
    if count > MAX_QUEUES or end > len(blob):
        return _Parts([], None, {})
    queues = [_Queue(place, int.from_bytes(blob[place : place + 4], "big")) for place in range(at + 4, end, size)]
    heads = list(_SUBSECTION.finditer(blob, end)) if bounded else []
    ends = [*(head.start() for head in heads[1:]), len(blob)]
    named = {h["name"]: (h.start(), stop - h.end()) for h, stop in zip(heads, ends, strict=False)}
    return _Parts(queues, end, named)
