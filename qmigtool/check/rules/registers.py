"""Rules over the control registers and MSRs of x86 vCPUs.

The contradictions are those of Intel's SDM (volume 3) and of Linux ``kvm_is_valid_sregs()``, which KVM_SET_SREGS asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qmigtool.check.rule import Context, Hit, Options, at, vcpu_rule
from qmigtool.cpu_x86 import HF_AVX_EN, HFLAGS, tcg_hflags

if TYPE_CHECKING:
    from qmigtool.cpu_x86 import VCpu

__all__ = ["RULES"]

CR0, CR4, EFER, CS = "env.cr[0]", "env.cr[4]", "env.efer", "env.segs[1]/flags"
PE, WP, NW, CD, PG = 1 << 0, 1 << 16, 1 << 29, 1 << 30, 1 << 31
PAE, PCIDE, OSXSAVE, CET = 1 << 5, 1 << 17, 1 << 18, 1 << 23
LME, LMA = 1 << 8, 1 << 10
DESC_L = 1 << 21  # of a segment's flags: 64-bit code


def _number(vcpu: VCpu, path: str) -> int:
    value = vcpu.device.number(path)
    return 0 if value is None else value & (1 << 64) - 1


@vcpu_rule(
    "cr0-legal",
    "CR0 does not contradict itself",
    "MOV to CR0 faults on such a value and KVM_SET_SREGS refuses it: the vCPU cannot go on as it was.",
)
def cr0_legal(_: Context, vcpu: VCpu, __: Options) -> Iterator[Hit]:
    cr0 = _number(vcpu, CR0)
    if cr0 & PG and not cr0 & PE:
        yield at(vcpu.device, CR0, f"CR0 is {cr0:#x}: paging (PG) without protected mode (PE)")
    if cr0 & NW and not cr0 & CD:
        yield at(vcpu.device, CR0, f"CR0 is {cr0:#x}: not write-through (NW) with the cache on (CD is 0)")
    if cr0 >> 32:
        yield at(vcpu.device, CR0, f"CR0 is {cr0:#x}, but its bits 63:32 are reserved")


@vcpu_rule(
    "cr4-legal",
    "CR4 does not contradict CR0 and EFER",
    "MOV to CR4 faults on such a value (SDM volume 3, 2.5 and 4.10.1): no guest can have come here.",
)
def cr4_legal(_: Context, vcpu: VCpu, __: Options) -> Iterator[Hit]:
    cr0, cr4, efer = (_number(vcpu, path) for path in (CR0, CR4, EFER))
    if cr4 & PCIDE and not efer & LMA:
        yield at(vcpu.device, CR4, f"CR4 is {cr4:#x}: PCIDE outside of long mode (EFER.LMA is 0)")
    if cr4 & CET and not cr0 & WP:
        yield at(vcpu.device, CR4, f"CR4 is {cr4:#x}: CET without CR0.WP")


@vcpu_rule(
    "long-mode",
    "EFER, CR0, CR4 and CS agree on long mode",
    "EFER.LMA is what EFER.LME and CR0.PG make of it, and 64-bit paging needs CR4.PAE. KVM_SET_SREGS refuses anything "
    "else (Linux kvm_is_valid_sregs).",
)
def long_mode(context: Context, vcpu: VCpu, _: Options) -> Iterator[Hit]:
    cr0, cr4, efer, cs = (_number(vcpu, path) for path in (CR0, CR4, EFER, CS))
    if efer & LME and cr0 & PG:
        if not efer & LMA:
            yield at(vcpu.device, EFER, f"EFER is {efer:#x}: LMA is 0 although LME and CR0.PG are 1")
        if not cr4 & PAE:
            yield at(vcpu.device, CR4, f"CR4 is {cr4:#x}: PAE is 0 in long mode")
    elif efer & LMA:
        yield at(vcpu.device, EFER, f"EFER is {efer:#x}: LMA is 1, but LME and CR0.PG are not both")
    elif cs & DESC_L and context.accelerator != "tcg":  # TCG keeps the raw descriptor, where the bit means nothing then
        yield at(vcpu.device, CS, f"CS is a 64-bit code segment (flags {cs:#x}) outside of long mode")


BASES = (
    ("env.segs[4]/base", "FS base"),
    ("env.segs[5]/base", "GS base"),
    ("env.kernelgsbase", "IA32_KERNEL_GS_BASE"),
    ("env.lstar", "IA32_LSTAR"),
    ("env.cstar", "IA32_CSTAR"),
    ("env.sysenter_esp", "IA32_SYSENTER_ESP"),
    ("env.sysenter_eip", "IA32_SYSENTER_EIP"),
)
LINEAR_BITS = 57  # with LA57, which a CPU may have whether CR4 says so or not


@vcpu_rule(
    "msr-canonical",
    "MSRs that hold addresses hold canonical ones",
    "WRMSR faults on others, and KVM refuses them: QEMU aborts as it loads (kvm_buf_set_msrs). TCG lets a guest write "
    "them.",
)
def msr_canonical(_: Context, vcpu: VCpu, __: Options) -> Iterator[Hit]:
    for path, name in BASES:
        value = _number(vcpu, path)
        if value >> LINEAR_BITS - 1 not in (0, (1 << 65 - LINEAR_BITS) - 1):
            yield at(vcpu.device, path, f"{name} is {value:#x}, which is not canonical")


@vcpu_rule(
    "xcr0-osxsave",
    "XCR0 is changed only with CR4.OSXSAVE",
    "XSETBV needs CR4.OSXSAVE, so this guest has switched it off again, which is rare (kexec), or a tool has changed "
    "one of the two.",
)
def xcr0_osxsave(_: Context, vcpu: VCpu, __: Options) -> Iterator[Hit]:
    cr4 = _number(vcpu, CR4)
    if vcpu.xcr0 != 1 and not cr4 & OSXSAVE:
        yield at(vcpu.device, CR4, f"CR4 is {cr4:#x}, without OSXSAVE, but XCR0 is {vcpu.xcr0:#x}")


BUSY_TSS = (3, 11)


@vcpu_rule(
    "tr-busy",
    "TR is a busy TSS under KVM",
    "VMX refuses to enter a guest whose TR has any other type: the vCPU stops with an internal error. KVM always sends "
    "a busy one; TCG leaves the descriptor's own type (SDM volume 3, checks on guest segment registers).",
)
def tr_busy(context: Context, vcpu: VCpu, _: Options) -> Iterator[Hit]:
    path = "env.tr/flags"
    flags = vcpu.device.number(path)
    if context.accelerator == "kvm" and flags is not None and flags >> 8 & 15 not in BUSY_TSS:
        yield at(vcpu.device, path, f"TR has type {flags >> 8 & 15} (flags {flags:#x}), not 3 or 11")


@vcpu_rule(
    "tcg-hflags",
    "TCG's hflags agree with XCR0 on AVX",
    "TCG takes env.hflags as it is, where every other accelerator computes it anew: without AVX_EN (bit 28) each AVX "
    "instruction is an invalid opcode to the guest.",
)
def tcg_hflags_avx(context: Context, vcpu: VCpu, _: Options) -> Iterator[Hit]:
    flags = vcpu.device.number(HFLAGS)
    if context.accelerator != "tcg" or flags is None:
        return
    if (flags ^ tcg_hflags(vcpu.device)) & HF_AVX_EN:
        state = "set" if flags & HF_AVX_EN else "clear"
        message = f"hflags is {flags:#x}: AVX_EN is {state}, but XCR0 is {vcpu.xcr0:#x} and CR4 {_number(vcpu, CR4):#x}"
        yield at(vcpu.device, HFLAGS, message)


MP_STATES = {0: "RUNNABLE", 1: "UNINITIALIZED", 2: "INIT_RECEIVED", 3: "HALTED", 4: "SIPI_RECEIVED", 9: "AP_RESET_HOLD"}


@vcpu_rule(
    "mp-state",
    "mp_state is one that an x86 vCPU can be in",
    "KVM_SET_MP_STATE refuses other values: QEMU 10.0 and later exit, 7.2 goes on without a word (KVM_MP_STATE_*).",
)
def mp_state(_: Context, vcpu: VCpu, __: Options) -> Iterator[Hit]:
    value = vcpu.device.number("env.mp_state")
    if value is not None and value not in MP_STATES:
        known = ", ".join(f"{number} {name}" for number, name in MP_STATES.items())
        yield at(vcpu.device, "env.mp_state", f"mp_state is {value}, not one of {known}")


@vcpu_rule(
    "fpregs-format",
    "x87 registers are in the format that QEMU reads",
    'env.fpregs_format_vmstate must be 0: QEMU refuses anything else ("Unsupported old non-softfloat CPU state").',
)
def fpregs_format(_: Context, vcpu: VCpu, __: Options) -> Iterator[Hit]:
    path = "env.fpregs_format_vmstate"
    if value := vcpu.device.number(path):
        yield at(vcpu.device, path, f"fpregs_format_vmstate is {value}")


RULES = (
    cr0_legal,
    cr4_legal,
    long_mode,
    msr_canonical,
    xcr0_osxsave,
    tr_busy,
    tcg_hflags_avx,
    mp_state,
    fpregs_format,
)
