import pytest

from qmigtool.x86.registers import REGISTERS, register_for

LITERALS = [
    ("env.mxcsr", 0x1F80, "IM DM ZM OM UM PM"),
    ("env.mxcsr", 0x9FC0, "DAZ IM DM ZM OM UM PM FZ"),
    ("env.mxcsr", 0x6000, "RC=0x3"),
    ("env.fpuc", 0x037F, "IM DM ZM OM UM PM PC=0x3 bit6"),
    ("env.fpus_vmstate", 0x3801, "IE TOP=0x7"),
    ("env.fpus_vmstate", 0xC700, "C0 C1 C2 C3 B"),
    ("env.xcr0", 0xE7, "x87 SSE AVX opmask ZMM_Hi256 Hi16_ZMM"),
    ("env.xcr0", 0x60200, "PKRU XTILECFG XTILEDATA"),
    ("env.xss", 0x1800, "CET_U CET_S"),
    ("env.efer", 0xD01, "SCE LME LMA NXE"),
    ("env.cr[0]", 0x80050033, "PE MP ET NE WP AM PG"),
    ("env.cr[4]", 0x40620, "PAE OSFXSR OSXMMEXCPT OSXSAVE"),
    ("env.cr[4]", 1 << 21 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25, "SMAP PKE CET PKS UINTR"),
    ("env.eflags", 0x3246, "PF ZF IF IOPL=0x3 bit1"),
    ("env.eflags", 2, "bit1"),
    ("env.xcr0", 0, ""),
    ("env.xcr0", 1 << 63 | 1 << 20, "bit20 bit63"),
    ("env.msr_xfd", 1 << 18, "XTILEDATA"),
]


@pytest.mark.parametrize(("field", "value", "words"), LITERALS)
def test_words(field, value, words):
    assert register_for("cpu", field).describe(value) == words


@pytest.mark.parametrize("name", REGISTERS)
def test_fields_do_not_overlap_and_fit(name):
    register = REGISTERS[name]
    seen = 0
    for _, low, size in register.fields:
        mask = (1 << size) - 1 << low
        assert not seen & mask
        seen |= mask
    assert seen == register.named
    assert seen < 1 << register.width
    register.describe((1 << register.width) - 1)


def test_other_devices_have_none():
    assert register_for("apic", "env.mxcsr") is None
    assert register_for("cpu", "env.tsc") is None
