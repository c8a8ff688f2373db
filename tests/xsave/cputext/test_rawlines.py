"""Lines of registers: kcpuid, InstLatx64, xen-cpuid, the tables of a VirtualBox log."""

import pytest

from qmigtool.errors import XsaveError
from qmigtool.xsave import layout, parse_cpuid_dump
from qmigtool.xsave.cpuid import missing_rows, parse_cpuid_rows
from tests.xsave.cputext.texts import SPR, ZEN4, case, kcpuid, virtualbox_tables, xen


@pytest.mark.parametrize("cpu", [ZEN4, SPR], ids=lambda cpu: cpu.name)
def test_lines_of_registers(cpu):
    for text in (kcpuid(cpu), xen(cpu), virtualbox_tables(cpu, cpu), kcpuid(cpu).replace("\n", "\r\n")):
        assert dict(parse_cpuid_dump(text, "pasted").leaf) == dict(cpu.leaf)


def test_kcpuid_names_every_leaf():
    (block,) = parse_cpuid_rows(kcpuid(ZEN4))
    assert [(line.leaf, line.subleaf) for line in block.lines][:3] == [(0, 0), (0xD, 0), (0xD, 1)]
    assert block.lines[-1][:2] == (0xE, 0)


def test_instlatx64_without_colons():
    cpu = parse_cpuid_dump(case("instlat-mendocino-nocolon.txt"), "mendocino")
    assert (cpu.user_mask, cpu.xcr0_mask, cpu.standard_size()) == (0x7, 0x207, 832)
    assert "64" in cpu.absent[9]
    assert len(parse_cpuid_rows(case("instlat-mendocino-nocolon.txt"))) == 8
    with_colons = case("instlat-mendocino-nocolon.txt").replace("  \t", ": ")
    assert parse_cpuid_dump(with_colons, "mendocino") == cpu


def test_xen_has_several_policies():
    text = xen(SPR) + xen(SPR, "Host") + xen(layout("intel-hsw"), "PV Max")
    with pytest.raises(XsaveError, match=r"raw and host: .*0x602e7; pv-max: .*0x7.*: x#raw or x#pv-max$"):
        parse_cpuid_dump(text, "x")
    assert parse_cpuid_dump(text, "x", cpu="PV-Max").user_mask == 7
    cut = parse_cpuid_dump(case("xencpuid.txt"), "xencpuid.txt")
    assert (cut.user_mask, cut.xcr0_mask, cut.xss_mask) == (0x7, 0x602E7, 0xDD00)
    assert "opmask ZMM_Hi256 Hi16_ZMM PT PKRU" in missing_rows(cut)
