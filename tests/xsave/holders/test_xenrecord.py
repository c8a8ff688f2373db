"""A save record of Xen."""

import struct

from qmigtool.xsave.holders import find_area
from tests.support import casefiles


def test_a_record_of_xen():
    data = casefiles.read("xsave", "xen_xsave.rec")
    found = find_area(data, "xen_xsave.rec")
    assert (found.data, found.xcr0, found.layout) == (data[32:], 0xE7, None)
    assert "vCPU 0 in xen_xsave.rec, a save record of Xen; XCR0 0xe7" in found.note
    other = struct.pack("<HHIQQQ", 16, 3, 24 + 2696, 0x602E7, 0x7, 0x2E7) + bytes(2696)
    assert "vCPU 3" in find_area(other, "x").note
    assert find_area(other, "x").xcr0 == 7
    for wrong in (
        other[:-1],
        struct.pack("<HHIQQQ", 16, 3, 24 + 2696, 0x602E7, 0x7, 0x3) + other[32:],
        b"\x11" + other[1:],
    ):
        assert find_area(wrong, "x").data == wrong
