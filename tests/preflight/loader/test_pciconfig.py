"""Which bytes of a PCI Express port's configuration space QEMU compares: measured with 7.2 and 10.0."""

from qmigtool.preflight.loader.pciconfig import masks

EXPRESS = 0x54


def config(flags: int) -> bytes:
    """A configuration space with one capability: PCI Express."""
    data = bytearray(256)
    data[0x06] = 0x10
    data[0x34] = EXPRESS
    data[EXPRESS : EXPRESS + 4] = bytes([0x10, 0, 0x42, flags])
    return bytes(data)


def test_link_and_slot() -> None:
    # pcie-root-port of pc-q35-3.1 and 7.2: "Bad config data: i=0x60 read: 4 device: 11 cmask: ff wmask: 0 w1cmask:0",
    # and then "i=0x6e read: 0 device: 40 cmask: ff wmask: 0 w1cmask:19".
    port = masks(config(0x01))
    assert tuple(port[0x60]) == (0xFF, 0, 0)
    assert tuple(port[0x6E]) == (0xFF, 0, 0x19)
    assert 0x64 not in port  # Link Control is the guest's
    assert 0x66 not in port  # Link Status is not compared
    endpoint = masks(config(0))
    assert tuple(endpoint[0x60]) == (0xFF, 0, 0)
    assert 0x6E not in endpoint
