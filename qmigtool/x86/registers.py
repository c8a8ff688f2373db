"""The table of registers: the field of each, and the names of its bits.

From the Intel SDM, volumes 1 and 3, and the AMD APM, volume 2. Other modules look up bits by name: ``CR4["OSXSAVE"]``.

A view never replaces the number: it is shown next to it. Bits without a name here are shown by their position.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from qmigtool.xsave import COMPONENTS

__all__ = [
    *("CR0", "CR3", "CR4", "EFER", "EFLAGS", "FCW", "FSW", "HFLAGS", "MXCSR", "SEGMENT", "XCR0", "XFD", "XSS"),
    *("MSRS", "MTRRS", "REGISTERS", "SEGMENTS", "TSS_AVAILABLE", "TSS_BUSY", "TSS_MAKES_BUSY", "XSTATE_BV"),
    *("Msr", "Mtrr", "MtrrKind", "Register", "register_for", "register_name"),
]


@dataclass(frozen=True)
class Register:
    """A register of ``width`` bits; ``fields`` gives (name, lowest bit, number of bits), in ascending order.

    ``path`` is its field in an x86 ``cpu`` section, or empty where there are several of its kind.
    """

    name: str
    width: int
    fields: tuple[tuple[str, int, int], ...]
    path: str = ""

    def __getitem__(self, name: str) -> int:
        """The mask of a field: ``CR4["OSXSAVE"]`` is 1 << 18. Raises KeyError for an unknown name."""
        return self._masks[name]

    @cached_property
    def _masks(self) -> dict[str, int]:
        return {name: (1 << size) - 1 << low for name, low, size in self.fields}

    def part(self, value: int, name: str) -> int:
        """Return the number in a field of several bits: ``FSW.part(value, "TOP")``."""
        mask = self[name]
        return (value & mask) // (mask & -mask)

    @cached_property
    def named(self) -> int:
        """The bits that have a name."""
        return sum((1 << size) - 1 << low for _, low, size in self.fields)

    def describe(self, value: int) -> str:
        """Return the fields that are not zero, as in ``"PM UM OM ZM DM IM RC=2 FZ"``."""
        # Imported here: decoding a whole stream to JSON never needs it.
        from bitstring import Bits

        raw = Bits(value.to_bytes(self.width // 8, "big"))
        words = []
        for name, low, size in self.fields:
            part = raw[self.width - low - size : self.width - low]
            if part.u:
                words.append(name if size == 1 else f"{name}={part.u:#x}")
        rest = Bits((value & ~self.named).to_bytes(self.width // 8, "big"))
        words += [f"bit{self.width - 1 - pos}" for pos in sorted(rest.findall("0b1"), reverse=True)]
        return " ".join(words)


def _flags(names: str, start: int = 0) -> tuple[tuple[str, int, int], ...]:
    """Name single bits upwards from ``start``; ``-`` is a reserved one, ``NAME:2`` has two bits."""
    fields = []
    low = start
    for word in names.split():
        name, _, size = word.partition(":")
        width = int(size or 1)
        if name != "-":
            fields.append((name, low, width))
        low += width
    return tuple(fields)


_COMPONENTS = tuple((component.name, bit, 1) for bit, component in sorted(COMPONENTS.items()))

XCR0 = Register("XCR0", 64, _COMPONENTS, "env.xcr0")
XSTATE_BV = Register("XSTATE_BV", 64, _COMPONENTS, "env.xstate_bv")
XSS = Register("IA32_XSS", 64, _COMPONENTS, "cpu/xss/env.xss")
XFD = Register("IA32_XFD", 64, _COMPONENTS, "cpu/msr_xfd/env.msr_xfd")
MXCSR = Register("MXCSR", 32, _flags("IE DE ZE OE UE PE DAZ IM DM ZM OM UM PM RC:2 FZ - MM"), "env.mxcsr")
FCW = Register("FCW", 16, _flags("IM DM ZM OM UM PM - - PC:2 RC:2 X"), "env.fpuc")
FSW = Register("FSW", 16, _flags("IE DE ZE OE UE PE SF ES C0 C1 C2 TOP:3 C3 B"), "env.fpus_vmstate")
EFLAGS = Register(
    "EFLAGS", 64, _flags("CF - PF - AF - ZF SF TF IF DF OF IOPL:2 NT - RF VM AC VIF VIP ID"), "env.eflags"
)
CR0 = Register("CR0", 64, _flags("PE MP EM TS ET NE") + _flags("WP - AM", 16) + _flags("NW CD PG", 29), "env.cr[0]")
CR3 = Register("CR3", 64, (), "env.cr[3]")
CR4 = Register(
    "CR4",
    64,
    _flags("VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT UMIP LA57 VMXE SMXE - FSGSBASE PCIDE OSXSAVE KL SMEP")
    + _flags("SMAP PKE CET PKS UINTR", 21)
    + _flags("LASS LAM_SUP", 27)
    + _flags("FRED", 32),
    "env.cr[4]",
)
EFER = Register("EFER", 64, _flags("SCE") + _flags("LME - LMA NXE SVME LMSLE FFXSR TCE", 8), "env.efer")
HFLAGS = Register(  # HF_*_MASK in target/i386/cpu.h: QEMU's own; only the bits needed here
    "hflags",
    32,
    _flags("CPL:2") + _flags("IOPL:2", 12) + _flags("SMM - GUEST - SMAP - MPX_EN - UMIP AVX_EN", 19),
    "env.hflags",
)
SEGMENT = Register(  # of env.segs[], env.tr and env.ldt: the second word of a descriptor, without its base
    "flags", 32, _flags("TYPE:4 S DPL:2 P LIMIT:4 AVL L DB G", 8)
)

TSS_AVAILABLE, TSS_BUSY = (1, 9), (3, 11)
"""Types of TR's descriptor: of 16 bits, and of 32 or 64."""
TSS_MAKES_BUSY = 2
"""The bit of such a type that makes it a busy one."""

REGISTERS: dict[str, Register] = {
    register.path.rpartition("/")[2]: register
    for register in (XCR0, XSTATE_BV, XSS, MXCSR, FCW, FSW, EFLAGS, CR0, CR4, EFER, XFD)
}
"""Last part of the path of a field in an x86 ``cpu`` section -> the register that is shown bit by bit."""


class Msr(NamedTuple):
    """An MSR: its number, its name, and the field of an x86 ``cpu`` section that holds it."""

    number: int
    name: str
    path: str


_SHSTK = "cpu/cet/cpu/cet_shstk"

MSRS: dict[str, Msr] = {
    msr.name: msr
    for msr in (
        Msr(0x10, "TSC", "env.tsc"),
        Msr(0x3B, "TSC_ADJUST", "cpu/msr_tsc_adjust/env.tsc_adjust"),
        Msr(0x48, "SPEC_CTRL", "cpu/spec_ctrl/env.spec_ctrl"),
        Msr(0x174, "SYSENTER_CS", "env.sysenter_cs"),
        Msr(0x175, "SYSENTER_ESP", "env.sysenter_esp"),
        Msr(0x176, "SYSENTER_EIP", "env.sysenter_eip"),
        Msr(0x277, "PAT", "env.pat"),
        Msr(0x6A0, "U_CET", "cpu/cet/env.u_cet"),
        Msr(0x6A2, "S_CET", "cpu/cet/env.s_cet"),
        Msr(0x6A4, "PL0_SSP", "cpu/msr_pl0_ssp/env.pl0_ssp"),
        Msr(0x6A5, "PL1_SSP", f"{_SHSTK}/env.pl1_ssp"),
        Msr(0x6A6, "PL2_SSP", f"{_SHSTK}/env.pl2_ssp"),
        Msr(0x6A7, "PL3_SSP", f"{_SHSTK}/env.pl3_ssp"),
        Msr(0x6A8, "INTERRUPT_SSP_TABLE", f"{_SHSTK}/env.int_ssp_table"),
        Msr(0xDA0, "XSS", XSS.path),
        Msr(0x40000000, "HV_GUEST_OS_ID", "cpu/msr_hyperv_hypercall/env.msr_hv_guest_os_id"),
        Msr(0x40000001, "HV_HYPERCALL", "cpu/msr_hyperv_hypercall/env.msr_hv_hypercall"),
        Msr(0x40000021, "HV_REFERENCE_TSC", "cpu/msr_hyperv_time/env.msr_hv_tsc"),
        Msr(0x40000080, "HV_SCONTROL", "cpu/msr_hyperv_synic/env.msr_hv_synic_control"),
        Msr(0x40000082, "HV_SIEFP", "cpu/msr_hyperv_synic/env.msr_hv_synic_evt_page"),
        Msr(0x40000083, "HV_SIMP", "cpu/msr_hyperv_synic/env.msr_hv_synic_msg_page"),
        Msr(0xC0000080, "EFER", EFER.path),
        Msr(0xC0000081, "STAR", "env.star"),
        Msr(0xC0000082, "LSTAR", "env.lstar"),
        Msr(0xC0000083, "CSTAR", "env.cstar"),
        Msr(0xC0000084, "SFMASK", "env.fmask"),
        Msr(0xC0000102, "KERNEL_GS_BASE", "env.kernelgsbase"),
        Msr(0xC0000103, "TSC_AUX", "env.tsc_aux"),
    )
}
"""The MSRs by name, in ascending order of their numbers; Intel's names without ``IA32_``. MTRRs are in MTRRS."""


class MtrrKind(StrEnum):
    """The kind of an MTRR."""

    DEFAULT = "default type"
    FIXED = "types of fixed ranges"
    BASE = "base of a variable range"
    MASK = "mask of a variable range"


class Mtrr(NamedTuple):
    """One MTRR: its MSR, its name, its field; ``order`` counts those of its kind."""

    number: int
    name: str
    path: str
    kind: MtrrKind
    order: int = 0


_FIXED_MTRRS = (0x250, 0x258, 0x259, *range(0x268, 0x270))
MTRRS: tuple[Mtrr, ...] = (
    Mtrr(0x2FF, "MTRR_DEF_TYPE", "env.mtrr_deftype", MtrrKind.DEFAULT),
    *(Mtrr(n, f"MTRR_FIX_{n:X}", f"env.mtrr_fixed[{i}]", MtrrKind.FIXED, i) for i, n in enumerate(_FIXED_MTRRS)),
    *(
        one
        for i in range(8)
        for one in (
            Mtrr(0x200 + 2 * i, f"MTRR_PHYSBASE{i}", f"env.mtrr_var[{i}]/base", MtrrKind.BASE, i),
            Mtrr(0x201 + 2 * i, f"MTRR_PHYSMASK{i}", f"env.mtrr_var[{i}]/mask", MtrrKind.MASK, i),
        )
    ),
)
"""The MTRRs in the order in which QEMU passes them to KVM."""


def register_for(device: str, field: str) -> Register | None:
    """Return the register that a field of a device holds, or None if it has no view; subsections are skipped."""
    return REGISTERS.get(field.rpartition("/")[2]) if device == "cpu" else None


_GENERAL = ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", *(f"R{i}" for i in range(8, 16)))
SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS")
# The order of QEMU's R_EAX... and R_ES... (target/i386/cpu.h).
_NAMES = {
    **{f"env.regs[{i}]": name for i, name in enumerate(_GENERAL)},
    **{f"env.segs[{i}]": name for i, name in enumerate(SEGMENTS)},
    **{f"env.cr[{i}]": f"CR{i}" for i in range(5)},
    **{f"env.dr[{i}]": f"DR{i}" for i in range(8)},
    "env.eip": "RIP",
    "env.ldt": "LDTR",
    "env.tr": "TR",
    "env.gdt": "GDTR",
    "env.idt": "IDTR",
    **{msr.path: msr.name for msr in MSRS.values()},
    "env.pat": "IA32_PAT",
}


def register_name(device: str, field: str) -> str | None:
    """Return the name of a device's field outside QEMU (``env.regs[0]`` is ``RAX``), or None."""
    if device != "cpu":
        return None
    view = register_for(device, field)
    name, _, part = field.partition("/")
    known = view.name if view is not None else _NAMES.get(name)
    return f"{known} {part}" if known and part and view is None else known
