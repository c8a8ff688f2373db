"""Standard offsets by CPU family, for kernel logs that have compacted offsets only."""

import pytest

from qmigtool.errors import UnsupportedError
from qmigtool.xsave import parse_cpuid_dump
from tests.xsave.cputext.texts import case, dmesg


def test_dmesg_has_compacted_offsets():
    with pytest.raises(
        UnsupportedError, match=r"neither the standard offsets nor the vendor: PKRU is at 2688 on Intel, 2432 on AMD"
    ):
        parse_cpuid_dump(case("dmesg.txt"), "dmesg.txt")
    told = case("dmesg.txt") + "[    0.1] smpboot: CPU0: {} (family: 0x19, model: 0x1, stepping: 0x1)\n"
    assert parse_cpuid_dump(told.format("AMD EPYC 7763 64-Core Processor"), "d").standard_offset(9) == 2432
    cpu = parse_cpuid_dump(told.format("Intel(R) Core(TM) Ultra 5"), "d")
    assert (cpu.standard_offset(9), cpu.standard_size(), cpu.compacted_size(0x207)) == (2688, 2696, 840)


def test_dmesg_where_only_one_family_is_possible():
    mpx = dmesg(0x1F, [(2, 576, 256), (3, 832, 64), (4, 896, 64)], 960)
    cpu = parse_cpuid_dump(mpx, "d")
    assert ([cpu.standard_offset(bit) for bit in (2, 3, 4)], cpu.standard_size()) == ([576, 960, 1024], 1088)
    assert parse_cpuid_dump(dmesg(7, [(2, 576, 256)], 832), "d").standard_size() == 832
    tiles = [
        (2, 576, 256),
        (5, 832, 64),
        (6, 896, 512),
        (7, 1408, 1024),
        (9, 2432, 8),
        (17, 2496, 64),
        (18, 2560, 8192),
    ]
    cpu = parse_cpuid_dump(dmesg(0x602E7, tiles, 10752), "d")
    assert (cpu.standard_size(), cpu.compacted_size(0x602E7)) == (11008, 10752)
