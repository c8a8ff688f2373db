"""PCI configuration space as the target compares it (``get_pci_config_device`` in ``hw/pci/pci.c``).

QEMU compares the bits that are in a device's cmask and that the guest cannot write (wmask, w1cmask). No stream contains
a device's masks. But the configuration space that the target saved has the header and the list of capabilities, and
QEMU derives their masks by rules (``pci_init_cmask``, ``pci_add_capability``). Only bytes whose masks follow from these
rules are compared here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qmigtool.parsers.pci import (
    CONFIG_SIZE,
    PCI_CAP_ID_EXP,
    PCI_CAP_ID_MSIX,
    PCI_CAP_ID_VNDR,
    PCI_CAPABILITY_LIST,
    PCI_EXP_LNKCAP,
    PCI_STATUS,
    PCI_STATUS_CAP_LIST,
    capabilities,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qmigtool.preflight.loader.state import Load

__all__ = ["Masks", "compare_config", "masks", "msix_entries"]

# Vendor and device id, revision and class, header type (without the multifunction bit's neighbours none is writable).
_HEADER = (*range(4), *range(8, 12), 0x0E)
# For a port with a slot (bit 8 of PCI Express Capabilities); PCI_EXP_HP_EV_SUPPORTED: the events that QEMU knows.
SLOT_IMPLEMENTED, SLOT_CAPABILITIES, SLOT_STATUS, SLOT_EVENTS = 0x01, 20, 26, 0x19
VIRTIO_PCI_CAP_PCI_CFG = 5  # the guest can write its fields


class Masks(NamedTuple):
    """The masks of one byte."""

    cmask: int
    wmask: int
    w1cmask: int

    @property
    def compared(self) -> int:
        """The bits that must be equal."""
        return self.cmask & ~self.wmask & ~self.w1cmask


_READ_ONLY = Masks(0xFF, 0, 0)


def masks(config: bytes) -> dict[int, Masks]:
    """Return the masks of the bytes whose masks follow from a device's own configuration space."""
    found = dict.fromkeys((*_HEADER, PCI_CAPABILITY_LIST), _READ_ONLY)
    found[PCI_STATUS] = Masks(PCI_STATUS_CAP_LIST, 0, 0)
    for at, name in capabilities(config):
        found |= {at + i: m for i, m in _capability(config, at, name) if at + i < CONFIG_SIZE}
    return found


def compare_config(load: Load, received: bytes, own: bytes, offset: int) -> None:
    """Compare the stream's configuration space with the target's; raises :class:`~.words.Refusal`."""
    if len(own) < CONFIG_SIZE or len(received) < CONFIG_SIZE:
        return
    for at, mask in sorted(masks(own).items()):
        if (received[at] ^ own[at]) & mask.compared:
            raise load.refuse(
                "pci-config",
                offset + at,
                at=at,
                received=received[at],
                local=own[at],
                cmask=mask.cmask,
                wmask=mask.wmask,
                w1cmask=mask.w1cmask,
            )


def msix_entries(config: bytes) -> int:
    """Return the number of MSI-X vectors of a device; 0 if it has no MSI-X."""
    for at, name in capabilities(config):
        if name == PCI_CAP_ID_MSIX and at + 4 <= len(config):
            return (int.from_bytes(config[at + 2 : at + 4], "little") & 0x7FF) + 1
    return 0


def _capability(config: bytes, at: int, name: int) -> Iterator[tuple[int, Masks]]:
    """Yield (offset inside it, masks) of the bytes of one capability that the guest cannot write."""
    yield from ((i, _READ_ONLY) for i in (0, 1))
    if name == PCI_CAP_ID_MSIX:
        # Table size; then enable and mask all, which the guest writes; then the location of table and PBA.
        yield 2, _READ_ONLY
        yield 3, Masks(0xFF, 0xC0, 0)
        yield from ((i, _READ_ONLY) for i in range(4, 12))
    elif name == PCI_CAP_ID_EXP:
        # PCI Express Capabilities, Device Capabilities and Link Capabilities
        yield from ((i, _READ_ONLY) for i in (*range(2, 8), *range(PCI_EXP_LNKCAP, PCI_EXP_LNKCAP + 4)))
        if config[at + 3] & SLOT_IMPLEMENTED and at + SLOT_STATUS < CONFIG_SIZE:
            # Slot Capabilities; Slot Status, in which the guest clears events, but not the presence of a card.
            yield from ((i, _READ_ONLY) for i in range(SLOT_CAPABILITIES, SLOT_CAPABILITIES + 4))
            yield SLOT_STATUS, Masks(0xFF, 0, SLOT_EVENTS)
    elif name == PCI_CAP_ID_VNDR and at + 4 <= CONFIG_SIZE and config[at + 3] != VIRTIO_PCI_CAP_PCI_CFG:
        yield from ((i, _READ_ONLY) for i in range(2, max(2, config[at + 2])))
