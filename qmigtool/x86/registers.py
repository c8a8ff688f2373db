"""Register views: what the bits of a decoded number are called (Intel SDM volumes 1 and 3, AMD APM volume 2).

A view never replaces the number: it stands beside it. Bits without a name here are shown by their position.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from qmigtool.xsave import COMPONENTS

__all__ = ["REGISTERS", "Register", "register_for", "register_name"]


@dataclass(frozen=True)
class Register:
    """A register of ``width`` bits; ``fields`` gives (name, lowest bit, number of bits), in ascending order."""

    name: str
    width: int
    fields: tuple[tuple[str, int, int], ...]

    @cached_property
    def named(self) -> int:
        """The bits that some field names."""
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

XCR0 = Register("XCR0", 64, _COMPONENTS)
XSTATE_BV = Register("XSTATE_BV", 64, _COMPONENTS)
XSS = Register("IA32_XSS", 64, _COMPONENTS)
MXCSR = Register("MXCSR", 32, _flags("IE DE ZE OE UE PE DAZ IM DM ZM OM UM PM RC:2 FZ - MM"))
FCW = Register("FCW", 16, _flags("IM DM ZM OM UM PM - - PC:2 RC:2 X"))
FSW = Register("FSW", 16, _flags("IE DE ZE OE UE PE SF ES C0 C1 C2 TOP:3 C3 B"))
EFLAGS = Register("EFLAGS", 64, _flags("CF - PF - AF - ZF SF TF IF DF OF IOPL:2 NT - RF VM AC VIF VIP ID"))
CR0 = Register("CR0", 64, _flags("PE MP EM TS ET NE") + _flags("WP - AM", 16) + _flags("NW CD PG", 29))
CR4 = Register(
    "CR4",
    64,
    _flags("VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMMEXCPT UMIP LA57 VMXE SMXE - FSGSBASE PCIDE OSXSAVE KL SMEP")
    + _flags("SMAP PKE CET PKS UINTR", 21)
    + _flags("LASS LAM_SUP", 27)
    + _flags("FRED", 32),
)
EFER = Register("EFER", 64, _flags("SCE") + _flags("LME - LMA NXE SVME LMSLE FFXSR TCE", 8))

REGISTERS: dict[str, Register] = {
    "env.xcr0": XCR0,
    "env.xstate_bv": XSTATE_BV,
    "env.xss": XSS,
    "env.mxcsr": MXCSR,
    "env.fpuc": FCW,
    "env.fpus_vmstate": FSW,
    "env.eflags": EFLAGS,
    "env.cr[0]": CR0,
    "env.cr[4]": CR4,
    "env.efer": EFER,
    "env.msr_xfd": Register("IA32_XFD", 64, _COMPONENTS),
}
"""vmstate field of an x86 ``cpu`` section -> the register it holds."""


def register_for(device: str, field: str) -> Register | None:
    """Return the register that a field of a device holds, or None if it has no view; subsections are passed by."""
    return REGISTERS.get(field.rpartition("/")[2]) if device == "cpu" else None


_GENERAL = ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", *(f"R{i}" for i in range(8, 16)))
_SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS")
# The order of QEMU's R_EAX... and R_ES... (target/i386/cpu.h), and MSRs by Intel's names.
_NAMES = {
    **{f"env.regs[{i}]": name for i, name in enumerate(_GENERAL)},
    **{f"env.segs[{i}]": name for i, name in enumerate(_SEGMENTS)},
    **{f"env.cr[{i}]": f"CR{i}" for i in range(5)},
    **{f"env.dr[{i}]": f"DR{i}" for i in range(8)},
    "env.eip": "RIP",
    "env.ldt": "LDTR",
    "env.tr": "TR",
    "env.gdt": "GDTR",
    "env.idt": "IDTR",
    "env.star": "STAR",
    "env.lstar": "LSTAR",
    "env.cstar": "CSTAR",
    "env.fmask": "SFMASK",
    "env.kernelgsbase": "KERNEL_GS_BASE",
    "env.pat": "IA32_PAT",
    "env.tsc": "TSC",
    "env.tsc_aux": "TSC_AUX",
    "env.sysenter_cs": "SYSENTER_CS",
    "env.sysenter_esp": "SYSENTER_ESP",
    "env.sysenter_eip": "SYSENTER_EIP",
}


def register_name(device: str, field: str) -> str | None:
    """Return what the field of a device is called outside QEMU (``env.regs[0]`` is ``RAX``), or None."""
    if device != "cpu":
        return None
    view = register_for(device, field)
    name, _, part = field.partition("/")
    known = view.name if view is not None else _NAMES.get(name)
    return f"{known} {part}" if known and part and view is None else known
