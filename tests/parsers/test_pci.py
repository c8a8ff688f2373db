"""The capability list of a PCI configuration space, on spaces made by hand (PCI Local Bus 3.0, 6.7)."""

from __future__ import annotations

from qmigtool.parsers.pci import capabilities, capability, express_capability

MSI, EXPRESS, MSIX = 0x05, 0x10, 0x11


def space(*entries: tuple[int, int, int], first: int = 0x40, listed: bool = True) -> bytes:
    """Make a space: (offset, id, next) each; ``listed`` is Capabilities List in the status register."""
    config = bytearray(256)
    config[0x06] = 0x10 if listed else 0
    config[0x34] = first
    for at, name, following in entries:
        config[at], config[at + 1] = name, following
    return bytes(config)


def test_a_list_is_followed() -> None:
    config = space((0x40, MSI, 0x60), (0x60, EXPRESS, 0xA3), (0xA0, MSIX, 0))  # the low bits are reserved
    assert list(capabilities(config)) == [(0x40, MSI), (0x60, EXPRESS), (0xA0, MSIX)]
    assert (capability(config, MSIX), capability(config, 0x09), express_capability(config)) == (0xA0, None, 0x60)


def test_a_list_that_the_status_register_does_not_announce_is_none() -> None:
    assert list(capabilities(space((0x40, MSIX, 0), listed=False))) == []
    assert capability(space((0x40, MSIX, 0), listed=False), MSIX) is None


def test_a_list_in_a_circle_ends() -> None:
    assert list(capabilities(space((0x40, MSI, 0x50), (0x50, MSIX, 0x40)))) == [(0x40, MSI), (0x50, MSIX)]


def test_places_outside_are_not_followed() -> None:
    assert list(capabilities(space(first=0x3C))) == []
    assert list(capabilities(b"\0" * 64)) == []
    assert list(capabilities(space((0xFC, EXPRESS, 0), first=0xFC))) == [(0xFC, EXPRESS)]
    assert express_capability(space((0xFC, EXPRESS, 0), first=0xFC)) is None  # its Device Capabilities would be outside
