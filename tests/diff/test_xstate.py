"""Extended state by meaning: an initial component is an absent one, and each register has a name and a place."""

import struct

import qmigtool
from qmigtool.diff import DifferenceKind, default_noise
from qmigtool.xsave.components import COMPONENTS, USER_MASK
from qmigtool.xsave.registerfile import registers_in, x87_value
from tests.diff.comparing import compared, edited, places
from tests.rewrite.editing import sample

KVM = "kvm-avx512-7.2"


def test_a_declared_initial_component_equals_an_undeclared_one() -> None:
    """XSTATE_BV with PKRU, whose register is zero, and without: the same registers."""
    found = compared(KVM, edited(KVM, lambda r: r.set("cpu@0/env.xstate_bv", 0x2E7)))
    assert found.same
    assert [(d.where, d.rule, d.excused) for d in found.excused] == [
        ("cpu@0/env.xstate_bv", "xstate-bv-by-meaning", True)
    ]


def test_a_live_component_that_is_no_longer_declared_is_lost() -> None:
    """A hypervisor that restores the area initialises what XSTATE_BV has not: YMM's upper halves become zero."""
    found = compared(KVM, edited(KVM, lambda r: r.set("cpu@0/env.xstate_bv", 0xE3)))
    assert found.differences
    assert all(d.meaning.startswith("YMM") and d.b == 0 for d in found.differences)


def test_nothing_declared_is_nothing_restored() -> None:
    """Under a hypervisor XSTATE_BV 0 means that all registers are initialised; only TCG never declares any."""
    found = compared(KVM, edited(KVM, lambda r: r.set("cpu@0/env.xstate_bv", 0)))
    words = {d.meaning.split(":")[0].split("[")[0] for d in found.differences}
    assert {"FCW", "XMM1", "ST0", "k0"} <= words
    assert not found.same


def test_a_bit_that_no_component_has_is_a_difference() -> None:
    """KVM_SET_XSAVE answers EINVAL to it."""
    found = compared(KVM, edited(KVM, lambda r: r.set("cpu@0/env.xstate_bv", 1 << 40 | 0xE7)))
    assert places(found) == ["cpu@0/env.xstate_bv"]
    rule = next(rule for rule in default_noise().rules if rule.id == "xstate-bv-by-meaning")
    assert rule.mask == USER_MASK


def test_every_register_is_found_by_name_and_place() -> None:
    with qmigtool.open(sample(KVM)) as stream:
        data = bytearray(sample(KVM).read_bytes())
        subsection = stream.field("cpu@0/cpu/avx512/env.opmask_regs")
        xmm = stream.field("cpu@0/env.xmm_regs[0]")
    data[subsection.offset + 8 * 5 + 7] ^= 1  # the last byte of k5, big-endian: its lowest
    data[xmm.offset + 16 * 7] ^= 0x80  # the first byte of XMM7's lower half: its highest
    found = compared(KVM, bytes(data))
    words = {d.meaning: d for d in found.differences}
    assert set(words) == {"k5", "XMM7"}
    assert words["k5"].a ^ words["k5"].b == 1
    assert words["XMM7"].a ^ words["XMM7"].b == 1 << 63
    assert (words["k5"].where, words["k5"].offset) == ("cpu@0/cpu/avx512/env.opmask_regs[5]", subsection.offset + 40)
    assert (words["XMM7"].where, words["XMM7"].offset_b) == ("cpu@0/env.xmm_regs[0][7]", xmm.offset + 16 * 7)


def test_components_that_one_side_does_not_carry() -> None:
    more = edited(KVM, lambda r: r.add_subsection("cpu@0", "cpu/pkru", data=struct.pack(">I", 0x55555554)),
                  lambda r: r.set("cpu@0/env.xstate_bv", 0x2E7))  # fmt: skip
    found = compared(KVM, more)
    (difference,) = found.differences
    assert (difference.where, difference.kind) == ("cpu@0/cpu/pkru/env.pkru", DifferenceKind.CHANGED)
    assert (difference.a, difference.b, difference.offset) == (0, 0x55555554, None)


def test_a_component_that_nobody_knows_leaves_the_fields_to_be_compared() -> None:
    """XSTATE_BV bit 20 has no definition: what it holds cannot be told, the fields still can be."""
    changed = edited(KVM, lambda r: r.set("cpu@0/env.xstate_bv", 1 << 20 | 0xE7), lambda r: r.set("cpu@0/env.mxcsr", 0))
    assert "cpu@0/env.mxcsr" in places(compared(KVM, changed))


# Bytes of a component that are no register (SDM volume 1, 13.4 and 13.5), or one that QEMU does not migrate.
HOLES = {
    "x87": [5, *(at for start in range(34, 152, 16) for at in range(start, start + 6))],  # behind FTW, and each ST
    "BNDCSR": [*range(16, 64)],
    "PKRU": [*range(4, 8)],
    "LBR": [*range(16, 40)],  # LER_FROM, LER_TO, LER_INFO
}


def test_registers_cover_their_components_without_overlap() -> None:
    for bit, component in COMPONENTS.items():
        covered = [at for slot in registers_in(bit) for at in range(slot.offset, slot.offset + slot.size)]
        assert len(set(covered)) == len(covered), component.name
        assert sorted(covered + HOLES.get(component.name, [])) == [*range(component.size)], component.name


def test_x87_values() -> None:
    """Constants from the SDM's tables of x87 encodings: 1.0, pi as FLDPI loads it, specials."""
    assert x87_value(bytes.fromhex("0000000000000080ff3f")) == "1"
    assert x87_value(bytes.fromhex("35c26821a2da0fc90040")) == "3.14159265"
    assert x87_value(bytes(10)) == "0"
    assert x87_value(bytes.fromhex("0000000000000080ffff")) == "-infinity"
    assert x87_value(bytes.fromhex("00000000000000c0ff7f")) == "NaN"
    assert x87_value(bytes.fromhex("0000000000000080fe7f")) == "0x8000000000000000 * 2**16320"
