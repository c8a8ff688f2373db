"""Linux' boot messages about the FPU."""

import pytest

from qmigtool.errors import XsaveError
from qmigtool.xsave import parse_cpuid_dump
from tests.xsave.cputext.texts import dmesg


@pytest.mark.parametrize(("cpu", "word"), [("AMD EPYC 9654", "AuthenticAMD"), ("Intel(R) Xeon(R)", "GenuineIntel")])
def test_dmesg_tells_the_vendor(cpu, word):
    assert parse_cpuid_dump(dmesg(7, [(2, 576, 256)], 832, cpu=cpu), "d").vendor == word


def test_dmesg_with_supervisor_state_and_standard_offsets():
    cet = dmesg(0xA07, [(2, 576, 256), (9, 832, 8), (11, 840, 16)], 856, cpu="AMD EPYC 9654")
    cpu = parse_cpuid_dump(cet, "d")
    assert (cpu.user_mask, cpu.supervisor_mask, cpu.standard_offset(9)) == (0x207, 0x800, 2432)
    standard = dmesg(0x207, [(2, 576, 256), (9, 2688, 8)], 2696, "standard")
    assert parse_cpuid_dump(standard, "d").standard_offset(9) == 2688


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (dmesg(0x207, [(2, 576, 256)], 840), r"no line xstate_offset\[9\]"),
        (dmesg(0x207, [(2, 576, 256), (9, 840, 8)], 848, cpu="AMD X"), "PKRU at 840 .* put it at 832"),
        (dmesg(7, [(2, 576, 256)], 832).replace("Enabled", "Disabled"), "Enabled xstate features"),
    ],
)
def test_dmesg_that_contradicts_itself(text, words):
    with pytest.raises(XsaveError, match=words):
        parse_cpuid_dump(text, "d")
