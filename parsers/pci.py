"""PCI configuration space as devices save it, and its capabilities (QEMU: ``hw/pci/pci.c``, ``pcie.c``, PCI 3.0).

Little-endian, as in the device; 256 bytes, 4096 for PCI Express.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = [
    "CONFIG_SIZE",
    "PCI_EXP_DEVCAP",
    "capabilities",
    "capability",
    "express_capability",
    "extended_capability",
    "virtio_configuration",
]

CONFIG_SIZE, EXPRESS_CONFIG_SIZE = 256, 4096
PCI_STATUS, PCI_STATUS_CAP_LIST, PCI_CAPABILITY_LIST = 0x06, 0x10, 0x34
PCI_CAP_ID_VNDR, PCI_CAP_ID_EXP, PCI_CAP_ID_MSIX = 0x09, 0x10, 0x11
PCI_EXP_DEVCAP = 4
PCI_EXP_LNKCAP = 12  # in the capability: le32, speed in bits 3:0, width in bits 9:4
"""Device Capabilities in the PCI Express capability; bit 5 (of the first byte) is Extended Tag Field Supported."""
PCI_EXT_CAP_ID_ERR = 0x0001
PCI_ERR_UNCOR_MASK = 8
"""The mask of uncorrectable errors in the Advanced Error Reporting capability."""


def capabilities(config: bytes) -> Iterator[tuple[int, int]]:
    """Yield (offset, id) of each capability in the list of a configuration space; stops at a cycle."""
    if len(config) < CONFIG_SIZE or not config[PCI_STATUS] & PCI_STATUS_CAP_LIST:
        return
    at, seen = config[PCI_CAPABILITY_LIST] & ~3, set()
    while 0x40 <= at < CONFIG_SIZE and at not in seen:
        yield at, config[at]
        seen.add(at)
        at = config[at + 1] & ~3


def capability(config: bytes, wanted: int) -> int | None:
    """Return the offset of the first capability with an id, or None."""
    return next((at for at, name in capabilities(config) if name == wanted), None)


def express_capability(config: bytes) -> int | None:
    """Return the offset of the PCI Express capability in a configuration space, with Device Capabilities, or None."""
    at = capability(config, PCI_CAP_ID_EXP)
    return at if at is not None and at < CONFIG_SIZE - PCI_EXP_DEVCAP else None


def extended_capability(config: bytes, wanted: int = PCI_EXT_CAP_ID_ERR) -> int | None:
    """Return the offset of an extended capability (by default Advanced Error Reporting), or None."""
    at, seen = CONFIG_SIZE, set()
    while CONFIG_SIZE <= at <= min(len(config), EXPRESS_CONFIG_SIZE) - 16 and at not in seen:
        header = int.from_bytes(config[at : at + 4], "little")
        if header & 0xFFFF == wanted:
            return at
        seen.add(at)
        at = header >> 20 & ~3
    return None


def virtio_configuration(blob: bytes) -> int | None:
    """Return the offset of the configuration space in a virtio PCI device's field (type ``virtio``), or None.

    ``virtio_pci_save_config``: a PCI device's be32 version, its configuration space, and more.
    """
    return 4 if len(blob) >= 4 + CONFIG_SIZE and blob[:4] == b"\0\0\0\2" else None
