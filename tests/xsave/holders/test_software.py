"""The software bytes of a signal frame: XCR0 and the size of the area."""

import struct

from qmigtool.xsave import layout
from qmigtool.xsave.holders.software import software_bytes, software_misfit
from tests.xsave.holders.areas import AREA


def test_software_bytes():
    assert software_bytes(AREA) == (0xE7, None)
    frame = bytearray(AREA + b"EXPF")
    struct.pack_into("<IIQI", frame, 464, 0x46505853, 2432 + 4, 0xE7, 2432)
    assert software_bytes(bytes(frame)) == (0xE7, 2432)
    for behind, said in ((b"", True), (b"EX", True), (bytes(99), True), (b"EXPG", False), (b"\1" * 99, False)):
        assert (software_bytes(bytes(frame[:2432]) + behind) is not None) is said
    for mask in (0, 1, 0x6, 0x1807, 0x27, 1 << 63 | 3, 0xCCCCCCCCCCCCCCCC):
        other = bytearray(AREA)
        struct.pack_into("<Q", other, 464, mask)
        assert software_bytes(bytes(other)) is None
    assert software_bytes(AREA[:500]) is None
    assert software_bytes(AREA[:500] + b"\1" + AREA[501:]) is None


def test_software_bytes_contradict_a_layout():
    assert software_misfit(AREA, layout("amd-zen4")) is None
    words = "an area with XCR0 0xe7 has 2432 bytes, but one of intel-spr has 2688"
    assert words in software_misfit(AREA, layout("intel-spr"))
    assert software_misfit(AREA, layout("intel-hsw")) is None  # it has no AVX-512: XSTATE_BV is what tells
    assert software_misfit(AREA + bytes(4096 - len(AREA)), layout("intel-spr")) is None
    frame = bytearray(AREA + bytes(4096 - len(AREA)))
    struct.pack_into("<IIQI", frame, 464, 0x46505853, 2436, 0xE7, 2432)
    assert words in software_misfit(bytes(frame), layout("intel-spr"))
    assert software_misfit(bytes(frame), layout("amd-zen5")) is None
