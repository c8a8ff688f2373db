"""Rules over the control registers and MSRs of x86 vCPUs.

They find values that KVM refuses (:mod:`qmigtool.x86.kvm`), or that contradict each other by Intel's SDM, volume 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qmigtool.check.rule import Context, Options, at, vcpu_rule
from qmigtool.findings import Finding
from qmigtool.findings.model import Wide
from qmigtool.x86 import kvm
from qmigtool.x86.registers import CR4, HFLAGS, SEGMENT, TSS_BUSY
from qmigtool.x86.traits import TCG, traits_of
from qmigtool.x86.vcpu import tcg_hflags

if TYPE_CHECKING:
    from qmigtool.x86.vcpu import VCpu

__all__ = ["RULES"]

LINEAR_BITS = 57  # with LA57, which a CPU may have whether CR4 enables it or not


def _number(vcpu: VCpu, path: str) -> int:
    return vcpu.device.word(path) or 0


def _refused(vcpu: VCpu, group: kvm.Group, name: str) -> Iterator[Finding]:
    for refusal in kvm.refusals(vcpu.device.number, groups=(group,)):
        if refusal.name == name and refusal.certain:
            yield at(vcpu.device, refusal.path, refusal.why)


@vcpu_rule(
    "cr0-legal",
    "CR0 does not contradict itself",
    "MOV to CR0 faults on such a value and KVM_SET_SREGS refuses it: the vCPU cannot continue with it.",
    severity="error",
)
def cr0_legal(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    yield from _refused(vcpu, kvm.Group.SREGS, "cr0")


@vcpu_rule(
    "cr4-legal",
    "CR4 has no reserved bit and does not contradict CR0 and EFER",
    "MOV to CR4 faults on such a value (SDM volume 3, 2.5 and 4.10.1): no guest can reach this state.",
    severity="error",
)
def cr4_legal(context: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    yield from _refused(vcpu, kvm.Group.SREGS, "cr4")
    if traits_of(context.accelerator).kernel:
        yield from _refused(vcpu, kvm.Group.SREGS, "cr4-foreign")
    for fault in kvm.faults(vcpu.device.number):
        yield at(vcpu.device, fault.path, fault.why)


@vcpu_rule(
    "long-mode",
    "EFER, CR0, CR3, CR4 and CS agree on long mode",
    "EFER.LMA is what EFER.LME and CR0.PG make of it, and 64-bit paging needs CR4.PAE. KVM_SET_SREGS refuses anything "
    "else (Linux kvm_is_valid_sregs).",
    severity="error",
)
def long_mode(context: Context, vcpu: VCpu, _: Options) -> Iterator[Finding]:
    for hit in _refused(vcpu, kvm.Group.SREGS, "long-mode"):
        # TCG keeps the raw descriptor, where the bit then has no meaning.
        if hit.path != kvm.CS_FLAGS or context.accelerator != TCG.name:
            yield hit


@vcpu_rule(
    "msr-canonical",
    "Registers that hold addresses hold canonical ones",
    "WRMSR faults on others, and KVM refuses some: QEMU aborts on load (kvm_buf_set_msrs). With the rest, no Intel CPU "
    "can run the vCPU. TCG lets a guest write them.",
    because="TCG lets a guest write them",
)
def msr_canonical(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    for address in kvm.ADDRESSES:
        value = _number(vcpu, address.path)
        if not kvm.is_canonical(value, LINEAR_BITS):
            yield at(vcpu.device, address.path, f"{address.name} is {value:#x}, which is not canonical")


@vcpu_rule(
    "mtrr-legal",
    "MTRRs have memory types and no reserved bit",
    "WRMSR faults on others, and KVM refuses them: QEMU aborts on load (kvm_buf_set_msrs). TCG lets a guest write "
    "them.",
    because="TCG lets a guest write them",
)
def mtrr_legal(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    yield from _refused(vcpu, kvm.Group.MSRS, "mtrr")


@vcpu_rule(
    "xcr0-osxsave",
    "XCR0 is changed only with CR4.OSXSAVE",
    "XSETBV needs CR4.OSXSAVE, so this guest has cleared it again, which is rare (kexec), or a tool has changed "
    "one of the two.",
    severity="note",
)
def xcr0_osxsave(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    cr4 = _number(vcpu, CR4.path)
    if vcpu.xcr0 != 1 and not cr4 & CR4["OSXSAVE"]:
        yield at(
            vcpu.device, CR4.path, f"CR4 is {cr4:#x}, without OSXSAVE, but XCR0 is {vcpu.xcr0:#x}", xcr0=Wide(vcpu.xcr0)
        )


@vcpu_rule(
    "tr-busy",
    "TR is a busy TSS under KVM",
    "VMX refuses to enter a guest whose TR has any other type: the vCPU stops with an internal error. KVM always sends "
    "a busy one; TCG leaves the descriptor's own type (SDM volume 3, checks on guest segment registers).",
    because="SVM takes it",
)
def tr_busy(context: Context, vcpu: VCpu, _: Options) -> Iterator[Finding]:
    path = "env.tr/flags"
    flags = vcpu.device.number(path)
    if traits_of(context.accelerator).kernel and flags is not None and SEGMENT.part(flags, "TYPE") not in TSS_BUSY:
        yield at(
            vcpu.device,
            path,
            f"TR has type {SEGMENT.part(flags, 'TYPE')} (flags {flags:#x}), not 3 or 11",
            type=SEGMENT.part(flags, "TYPE"),
        )


@vcpu_rule(
    "tcg-hflags",
    "TCG's hflags agree with XCR0 on AVX",
    "TCG uses env.hflags unchanged; every other accelerator computes it again: without AVX_EN (bit 28) each AVX "
    "instruction is an invalid opcode to the guest.",
)
def tcg_hflags_avx(context: Context, vcpu: VCpu, _: Options) -> Iterator[Finding]:
    flags = vcpu.device.number(HFLAGS.path)
    if context.accelerator != TCG.name or flags is None:
        return
    if (flags ^ tcg_hflags(vcpu.device)) & HFLAGS["AVX_EN"]:
        state = "set" if flags & HFLAGS["AVX_EN"] else "clear"
        message = (
            f"hflags is {flags:#x}: AVX_EN is {state}, but XCR0 is {vcpu.xcr0:#x} and CR4 {_number(vcpu, CR4.path):#x}"
        )
        yield at(vcpu.device, HFLAGS.path, message)


@vcpu_rule(
    "mp-state",
    "mp_state is one that an x86 vCPU can be in",
    "KVM_SET_MP_STATE refuses other values: QEMU 10.0 and later exit, 7.2 continues silently (KVM_MP_STATE_*).",
    severity="error",
)
def mp_state(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    yield from _refused(vcpu, kvm.Group.MP_STATE, "mp-state")


@vcpu_rule(
    "fpregs-format",
    "x87 registers are in the format that QEMU reads",
    'env.fpregs_format_vmstate must be 0: QEMU refuses anything else ("Unsupported old non-softfloat CPU state").',
    severity="error",
)
def fpregs_format(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    path = "env.fpregs_format_vmstate"
    if value := vcpu.device.number(path):
        yield at(vcpu.device, path, f"fpregs_format_vmstate is {value}")


RULES = (
    cr0_legal,
    cr4_legal,
    long_mode,
    msr_canonical,
    mtrr_legal,
    xcr0_osxsave,
    tr_busy,
    tcg_hflags_avx,
    mp_state,
    fpregs_format,
)
