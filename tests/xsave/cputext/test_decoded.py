"""The decoded text of `cpuid` gives the rows that `cpuid -r` gives."""

import contextlib

import pytest

from qmigtool.errors import QmigError, XsaveError
from qmigtool.xsave import layout, parse_cpuid_dump
from qmigtool.xsave.cpuid import missing_rows
from tests.xsave.cputext.texts import SPR, ZEN4, case, decoded


def same(found, cpu):
    """The rows of a CPU, without the sizes for the current XCR0 and IA32_XSS that not every text has."""
    assert dict(found.rows) == dict(cpu.rows)
    assert (found.xcr0_mask, found.xss_mask, found.features) == (cpu.xcr0_mask, cpu.xss_mask, cpu.features)
    return True


@pytest.mark.parametrize("cpu", [ZEN4, SPR, layout("amd-bulldozer")], ids=lambda cpu: cpu.name)
@pytest.mark.parametrize("halves", [False, True])
def test_decoded_cpuid(cpu, halves):
    text = decoded(cpu, halves=halves)
    assert same(parse_cpuid_dump(text, "pasted"), cpu)
    assert same(parse_cpuid_dump("> " + text.replace("\n", "\n> "), "quoted"), cpu)
    assert same(parse_cpuid_dump(text.replace("=", "=3D"), "mailed"), cpu)


def test_decoded_cpuid_of_several_cpus():
    text = decoded(SPR) + decoded(layout("intel-skl")).replace("CPU 0", "CPU 12")
    with pytest.raises(XsaveError, match=r"CPU 0 has .*0x602e7; CPU 12 has .*0x1f\); name one: x#0 or x#12"):
        parse_cpuid_dump(text, "x")
    assert same(parse_cpuid_dump(text, "x", cpu="12"), layout("intel-skl"))


def test_decoded_cpuid_that_is_cut():
    cpu = parse_cpuid_dump(case("dec.cpuid"), "dec.cpuid")
    assert (cpu.xcr0_mask, cpu.xss_mask, cpu.user_mask, cpu.features) == (0x602E7, 0x3900, 0x7, 0x3)
    assert missing_rows(cpu).startswith(
        "dec.cpuid is truncated: it advertises opmask ZMM_Hi256 Hi16_ZMM PT PKRU CET_U CET_S HDC XTILECFG XTILEDATA"
    )
    text = decoded(ZEN4)
    # It ends behind PKRU's size: without its offset PKRU is missing, not at 0.
    cut = parse_cpuid_dump(text[: text.index("PKRU save state byte offset")], "cut")
    assert (cut.user_mask, set(cut.absent)) == (0xE7, {9, 11, 12})


@pytest.mark.parametrize("number", ["08", "010", "0x", "99999999999", "0xffffffffffffffffff", "-1", ""])
def test_odd_numbers_in_decoded_text(number):
    text = decoded(ZEN4)
    for old in ("0xd/9", "0x00000988", "0x0000000000001800", "0x00000100"):
        with contextlib.suppress(QmigError):
            parse_cpuid_dump(text.replace(old, old.replace(old.rsplit("/", 1)[-1], number)), "odd")
