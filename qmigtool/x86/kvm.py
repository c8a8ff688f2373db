"""The vCPU state that KVM refuses: after the load QEMU sets the registers group by group, with one ioctl each.

QEMU 10.0 and later exit at the first refused group. 7.2 silently continues with the next vCPU: that group
and all following ones keep their reset values. A refused MSR aborts every version, with an assertion.

Everything here was seen with QEMU 7.2, 10.0 and 11.1 on a real /dev/kvm, except what ``source`` marks as only read.
State that depends on CPUID or the kernel version is not refused here (CR4.CET of a CPU without CET), or is
not ``certain``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from enum import IntEnum, StrEnum
from typing import NamedTuple

from qmigtool.x86.registers import CR0, CR3, CR4, EFER, EFLAGS, MSRS, MTRRS, SEGMENT, SEGMENTS, MtrrKind
from qmigtool.xsave.components import LEGACY_MASK, MXCSR_INIT, USER_MASK, check_xcr0, mask_names
from qmigtool.xsave.header import MXCSR_DEFINED

__all__ = [
    *("ADDRESSES", "MP_STATE", "NOT_STARTED", "Address", "Fault", "Group", "KvmRefusal", "MpState"),
    *("faults", "is_canonical", "linear_width", "lost_with", "refusals"),
]

Number = Callable[[str], int | None]
"""Returns the number in a field of section ``cpu``, by its path; None where the stream has none."""

CS_FLAGS = f"env.segs[{SEGMENTS.index('CS')}]/flags"
CR3_HIGH = 1 << 63 | 0x1FF << 52  # no CPU has more than 52 address bits; 62:61 are LAM's
NEVER_IN_CR4 = ~CR4.named & (1 << 64) - 1  # bits that no CPU has: 15, 26, 31:29, 63:33
FOREIGN_IN_CR4 = CR4["SMXE"] | CR4["KL"] | CR4["PKS"] | CR4["UINTR"]  # CPUs have them, KVM's guests do not
MTRR_TYPES = frozenset({0, 1, 4, 5, 6})
PHYSICAL = (1 << 52) - 1

MP_STATE = "env.mp_state"
"""The field with a vCPU's :class:`MpState`."""


class MpState(IntEnum):
    """The KVM_MP_STATE_* that an x86 vCPU can be in (linux/kvm.h)."""

    RUNNABLE = 0
    UNINITIALIZED = 1
    INIT_RECEIVED = 2
    HALTED = 3
    SIPI_RECEIVED = 4
    AP_RESET_HOLD = 9


NOT_STARTED = frozenset({MpState.UNINITIALIZED, MpState.INIT_RECEIVED})
"""The vCPU waits for an INIT or a SIPI."""


class Group(StrEnum):
    """The groups of registers, by QEMU's names in its error messages, in the order in which it sets them."""

    SREGS = "special registers"
    REGS = "general registers"
    XSAVE = "XSAVE"
    XCRS = "XCRs"
    MSRS = "MSRs"
    EVENTS = "vCPU events"
    MP_STATE = "MP state"
    DEBUG = "debug registers"


_HOLDS = {
    Group.SREGS: "the special registers",
    Group.REGS: "the general registers",
    Group.XSAVE: "the XSAVE state",
    Group.XCRS: "XCR0",
    Group.MSRS: "every MSR with the MTRRs",
    Group.EVENTS: "pending events",
    Group.MP_STATE: "mp_state",
    Group.DEBUG: "the debug registers",
}


def lost_with(group: Group) -> str:
    """Return what QEMU 7.2 drops where this group is refused: it and all following ones."""
    groups = list(_HOLDS)
    return ", ".join(_HOLDS[one] for one in groups[groups.index(group) :])


class KvmRefusal(NamedTuple):
    """An ioctl that fails: its group, the field that causes it, and the reason.

    ``name`` is short and the same for one kind of refusal. ``source`` names the check in Linux. ``msr`` is (number,
    value) of an MSR. If not ``certain``, some hosts accept it.
    """

    group: Group
    name: str
    path: str
    why: str
    source: str
    msr: tuple[int, int] | None = None
    certain: bool = True


class Fault(NamedTuple):
    """State that every ioctl accepts, but the CPU refuses to run (SDM volume 3, checks on guest state)."""

    name: str
    path: str
    why: str


class Address(NamedTuple):
    """A register that holds a linear address. ``msr`` is its number if KVM compares it when it is set."""

    path: str
    name: str
    msr: int | None = None


def _msr(name: str, *, compared: bool = True) -> Address:
    msr = MSRS[name]
    return Address(msr.path, f"IA32_{msr.name}", msr.number if compared else None)


ADDRESSES = (
    _msr("SYSENTER_ESP", compared=False),  # KVM silently makes these two canonical
    _msr("SYSENTER_EIP", compared=False),
    # In QEMU's order, which decides the MSR that its message names.
    _msr("CSTAR"),
    _msr("KERNEL_GS_BASE"),
    _msr("LSTAR"),
    # KVM accepts these; VM entry fails, or the CPU truncates them (AMD).
    Address("env.tr/base", "TR base"),
    Address("env.ldt/base", "LDTR base"),
    Address("env.gdt/base", "GDTR base"),
    Address("env.idt/base", "IDTR base"),
    *(Address(f"env.segs[{i}]/base", f"{name} base") for i, name in enumerate(SEGMENTS)),
)
"""The registers that contain linear addresses."""


def is_canonical(address: int, width: int) -> bool:
    """Return whether all bits from ``width`` - 1 on are the same."""
    return address >> width - 1 in (0, (1 << 65 - width) - 1)


def linear_width(number: Number) -> int:
    """Return how many bits of an address count: 57 with CR4.LA57, else 48."""
    return 57 if _word(number, CR4.path) & CR4["LA57"] else 48


def refusals(
    number: Number, xcr0: int | None = None, *, groups: Collection[Group] = tuple(Group)
) -> Iterator[KvmRefusal]:
    """Yield everything that KVM refuses of a vCPU, in QEMU's order.

    ``xcr0``: the user components that the host allows a guest; None if not known. Only ``groups`` are checked.
    """
    if Group.SREGS in groups:
        yield from _special_registers(number)
    if Group.XSAVE in groups:
        yield from _xsave(number, xcr0)
    if Group.XCRS in groups:
        yield from _xcr0(number, xcr0)
    if Group.MSRS in groups:
        yield from _msrs(number)
    if Group.MP_STATE in groups:
        yield from _mp_state(number)


def faults(number: Number) -> Iterator[Fault]:
    """Yield the state that KVM accepts but no Intel CPU runs."""
    cr0, cr4, efer = (_word(number, register.path) for register in (CR0, CR4, EFER))
    if cr4 & CR4["PCIDE"] and not efer & EFER["LMA"]:
        yield Fault("cr4", CR4.path, f"CR4 is {cr4:#x}: PCIDE outside of long mode (EFER.LMA is 0)")
    if cr4 & CR4["CET"] and not cr0 & CR0["WP"]:
        yield Fault("cr4", CR4.path, f"CR4 is {cr4:#x}: CET without CR0.WP")


def _word(number: Number, path: str) -> int:
    value = number(path)
    return 0 if value is None else value & (1 << 64) - 1


def _special_registers(number: Number) -> Iterator[KvmRefusal]:
    """KVM_SET_SREGS (CR0 since Linux 6.6)."""
    cr0, cr3, cr4, efer = (_word(number, register.path) for register in (CR0, CR3, CR4, EFER))

    def made(name: str, path: str, why: str) -> KvmRefusal:
        source = "kvm_is_valid_sregs" if name == "long-mode" else f"kvm_is_valid_{name[:3]}"
        return KvmRefusal(Group.SREGS, name, path, why, source)

    if efer & EFER["LME"] and cr0 & CR0["PG"]:
        if not efer & EFER["LMA"]:
            yield made("long-mode", EFER.path, f"EFER is {efer:#x}: LMA is 0 although LME and CR0.PG are 1")
        if not cr4 & CR4["PAE"]:
            yield made("long-mode", CR4.path, f"CR4 is {cr4:#x}: PAE is 0 in long mode")
        if cr3 & CR3_HIGH:
            yield made("long-mode", CR3.path, f"CR3 is {cr3:#x}, whose bits {cr3 & CR3_HIGH:#x} are reserved")
    elif efer & EFER["LMA"]:
        yield made("long-mode", EFER.path, f"EFER is {efer:#x}: LMA is 1, but LME and CR0.PG are not both")
    elif (cs := _word(number, CS_FLAGS)) & SEGMENT["L"] and not _word(number, EFLAGS.path) & EFLAGS["VM"]:
        yield made("long-mode", CS_FLAGS, f"CS is a 64-bit code segment (flags {cs:#x}) outside of long mode")
    if cr4 & NEVER_IN_CR4:
        yield made("cr4", CR4.path, f"CR4 is {cr4:#x}, whose bits {cr4 & NEVER_IN_CR4:#x} are reserved")
    if cr4 & FOREIGN_IN_CR4:
        yield made(
            "cr4-foreign", CR4.path, f"CR4 is {cr4:#x}, whose bits {cr4 & FOREIGN_IN_CR4:#x} KVM's guests do not have"
        )
    if cr0 & CR0["PG"] and not cr0 & CR0["PE"]:
        yield made("cr0", CR0.path, f"CR0 is {cr0:#x}: paging (PG without PE)")
    if cr0 & CR0["NW"] and not cr0 & CR0["CD"]:
        yield made("cr0", CR0.path, f"CR0 is {cr0:#x}: not write-through with the cache on (NW without CD)")
    if cr0 >> 32:
        yield made("cr0", CR0.path, f"CR0 is {cr0:#x}, but its bits 63:32 are reserved")


def _xsave(number: Number, xcr0: int | None) -> Iterator[KvmRefusal]:
    """KVM_SET_XSAVE: MXCSR is checked if x87, SSE or AVX is declared."""
    declared = _word(number, "env.xstate_bv")
    mxcsr = number("env.mxcsr")
    mxcsr = MXCSR_INIT if mxcsr is None else mxcsr & (1 << 32) - 1
    allowed = USER_MASK if xcr0 is None else xcr0 | LEGACY_MASK
    if wrong := declared & ~allowed:
        why = f"XSTATE_BV is {declared:#x}: {' '.join(mask_names(wrong))} cannot be set there"
        yield KvmRefusal(Group.XSAVE, "xstate-bv", "env.xstate_bv", why, "validate_user_xstate_header")
    if declared & 7 and (wrong := mxcsr & ~MXCSR_DEFINED):
        why = f"MXCSR is {mxcsr:#x}, whose bits {wrong:#x} are reserved"
        yield KvmRefusal(Group.XSAVE, "mxcsr", "env.mxcsr", why, "copy_uabi_to_xstate")
    elif declared & 7 and mxcsr >> 17:
        why = f"MXCSR is {mxcsr:#x}: bit 17 is AMD's, and not every host has it"
        yield KvmRefusal(Group.XSAVE, "mxcsr", "env.mxcsr", why, "copy_uabi_to_xstate", certain=False)


def _xcr0(number: Number, allowed: int | None) -> Iterator[KvmRefusal]:
    """KVM_SET_XCRS."""
    value = number("env.xcr0")
    if value is None:
        return
    value &= (1 << 64) - 1
    reasons = check_xcr0(value)
    if not reasons and allowed is not None and (foreign := value & ~(allowed | 1)):
        reasons = [f"the host's mask {allowed:#x} does not have {' '.join(mask_names(foreign))}"]
    for reason in reasons:
        why = f"XCR0 is {value:#x}, but {reason}"
        yield KvmRefusal(Group.XCRS, "xcr0", "env.xcr0", why, "__kvm_set_xcr")


def _msrs(number: Number) -> Iterator[KvmRefusal]:
    """KVM_SET_MSRS."""
    width = linear_width(number)
    for path, name, msr in ADDRESSES:
        value = _word(number, path)
        if msr is not None and not is_canonical(value, width):
            # Before 6.13 CR4.LA57 decides, since then the host's support.
            certain = not is_canonical(value, 57)
            why = f"{name} is {value:#x}, which is not canonical{'' if certain else ' without 57-bit addresses'}"
            yield KvmRefusal(Group.MSRS, "canonical", path, why, "__kvm_set_msr", (msr, value), certain)
    for mtrr in MTRRS:
        value = _word(number, mtrr.path)
        if not _LEGAL_MTRR[mtrr.kind](value):
            why = f"the MTRR {mtrr.number:#x} is {value:#x}, which has reserved bits or no memory type"
            yield KvmRefusal(Group.MSRS, "mtrr", mtrr.path, why, "kvm_mtrr_valid", (mtrr.number, value))


def _mp_state(number: Number) -> Iterator[KvmRefusal]:
    """KVM_SET_MP_STATE."""
    state = number(MP_STATE)
    if state is not None and state not in [*MpState]:
        known = ", ".join(f"{one.value} {one.name}" for one in MpState)
        why = f"mp_state is {state}, not one of {known}"
        yield KvmRefusal(Group.MP_STATE, "mp-state", MP_STATE, why, "kvm_arch_vcpu_ioctl_set_mpstate")


def _is_default(value: int) -> bool:
    return not value & ~0xCFF and value & 0xFF in MTRR_TYPES


def _is_fixed(value: int) -> bool:
    return all(value >> shift & 0xFF in MTRR_TYPES for shift in range(0, 64, 8))


def _is_base(value: int) -> bool:
    return not value & (~PHYSICAL | 0xF00) and value & 0xFF in MTRR_TYPES


def _is_mask(value: int) -> bool:
    return not value & 0x7FF  # QEMU truncates the high bits


_LEGAL_MTRR: dict[MtrrKind, Callable[[int], bool]] = {
    MtrrKind.DEFAULT: _is_default,
    MtrrKind.FIXED: _is_fixed,
    MtrrKind.BASE: _is_base,
    MtrrKind.MASK: _is_mask,
}
