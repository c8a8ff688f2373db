"""Windows' XSTATE of a CONTEXT_EX is recognised by its size."""

import struct

import pytest

from qmigtool.errors import UnsupportedError
from qmigtool.xsave.holders import find_area


def test_windows_xstate_of_other_features():
    for mask, size in ((0x4, 256), (0x1807 & ~3, 256 + 40), (0x60004, 256 + 64 + 8192), (0x800, 16)):
        head = struct.pack("<QQ", mask, mask | 1 << 63) + bytes(48)
        with pytest.raises(UnsupportedError, match="Windows"):
            find_area(head + b"x" * size, "w")
    short = struct.pack("<QQ", 4, 4 | 1 << 63) + bytes(48) + bytes(200)
    assert find_area(short, "w").data == short  # no whole one: what it is, is for others to say
