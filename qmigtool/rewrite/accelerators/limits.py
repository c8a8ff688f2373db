"""What a target refuses to load, or loads and does not restore."""

from __future__ import annotations

from collections.abc import Iterator

from qmigtool.rewrite import structure
from qmigtool.rewrite.accelerators.rule import Conversion, Rule
from qmigtool.rewrite.draft import SectionDraft
from qmigtool.xsave import check_xcr0

__all__ = ["RULES"]

CR4 = "env.cr[4]"
CR4_LA57 = 1 << 12
CR0_PE, CR0_NW, CR0_CD, CR0_PG = 1, 1 << 29, 1 << 30, 1 << 31
CR4_PAE, CR4_PCIDE = 1 << 5, 1 << 17
EFER_LME = 1 << 8
MXCSR_DEFINED = 0x2FFFF  # 0xFFFF with Intel; AMD has MM in bit 17
MAX_MP_STATE = 10  # KVM_MP_STATE_AP_RESET_HOLD and what else there is
CPU_INTERRUPT_INIT = 0x400  # CPU_INTERRUPT_TGT_INT_1
HF_SMM, HF_GUEST = 1 << 19, 1 << 21
DR7_ENABLE = 0xFF  # L0 to G3
DEFAULT_PAT = 0x0007040600070406
SMBASE = 0x30000  # as a reset leaves it

CANONICAL = (
    *("env.kernelgsbase", "env.lstar", "env.cstar", "env.sysenter_esp", "env.sysenter_eip"),
    *("env.tr/base", "env.ldt/base", "env.gdt/base", "env.idt/base"),
    *(f"env.segs[{i}]/base" for i in range(6)),
)
# KVM's paravirtual MSRs: the field, and what is in it while the guest uses it.
PARAVIRTUAL = (
    ("env.system_time_msr", "kvmclock"),
    ("cpu/steal_time_msr/env.steal_time_msr", "steal time"),
    ("cpu/async_pf_msr/env.async_pf_en_msr", "asynchronous page faults"),
    ("cpu/async_pv_eoi_msr/env.pv_eoi_en_msr", "PV EOI"),
)
KVM_ONLY = {"cpu/nested_state": "nested virtualisation", "cpu/xen_vcpu": "Xen emulation"}


def canonical(conversion: Conversion) -> None:
    """Refuse addresses that no WRMSR takes."""
    for section, vcpu in conversion.cpus():
        width = 57 if conversion.number(section, CR4) & CR4_LA57 else 48
        for path in CANONICAL:
            value = conversion.number(section, path) % (1 << 64)
            high = value >> width - 1
            if high not in (0, (1 << 65 - width) - 1):
                conversion.lose(f"vCPU {vcpu.index}: {path} is {value:#x}, which is not canonical")
                low = value & (1 << width) - 1
                extended = low | ((1 << 64) - (1 << width) if low >> width - 1 else 0)
                conversion.assign(section, path, extended)


def illegal(conversion: Conversion) -> None:
    """Refuse register values that no hypervisor takes; there is nothing right to put in their place."""
    for section, vcpu in conversion.cpus():
        for reason in _illegal(conversion, section):
            conversion.lose(f"vCPU {vcpu.index}: {reason}")
        for reason in check_xcr0(vcpu.xcr0) if vcpu.xcr0 else ():
            conversion.lose(f"vCPU {vcpu.index}: {reason}")


def _illegal(conversion: Conversion, section: SectionDraft) -> Iterator[str]:
    mxcsr = conversion.number(section, "env.mxcsr")
    if mxcsr & ~MXCSR_DEFINED:
        yield f"MXCSR {mxcsr:#x} has reserved bits"
    cr0, cr4 = conversion.number(section, "env.cr[0]"), conversion.number(section, CR4)
    efer, state = conversion.number(section, "env.efer"), conversion.number(section, "env.mp_state")
    if cr0 & CR0_PG and not cr0 & CR0_PE:
        yield f"CR0 {cr0:#x} has PG without PE"
    if cr0 & CR0_NW and not cr0 & CR0_CD:
        yield f"CR0 {cr0:#x} has NW without CD"
    if cr0 & CR0_PG and efer & EFER_LME and not cr4 & CR4_PAE:
        yield f"long mode with paging, but CR4 {cr4:#x} has no PAE"
    if cr4 & CR4_PCIDE and not efer & EFER_LME:
        yield f"CR4 {cr4:#x} has PCIDE outside long mode"
    if state > MAX_MP_STATE:
        yield f"mp_state {state}"


def system_management(conversion: Conversion) -> None:
    """Say that firmware uses SMM: not every KVM has it, and MSHV and WHPX have not."""
    for section, vcpu in conversion.cpus():
        if conversion.number(section, "env.hflags") & HF_SMM:
            conversion.lose(f"vCPU {vcpu.index}: it is in system management mode")
        if conversion.number(section, "env.smbase") not in (0, SMBASE):
            conversion.note(f"vCPU {vcpu.index}: its firmware has set up SMM; the target must have it (KVM: smm=on)")


def pending_init(conversion: Conversion) -> None:
    """Refuse a vCPU with an INIT that TCG has not yet taken: its registers are not those of a reset."""
    for common in conversion.draft.named("cpu_common"):
        if conversion.number(common, "interrupt_request") & CPU_INTERRUPT_INIT:
            conversion.lose(f"vCPU {common.section.instance_id}: an INIT is pending")


def nested(conversion: Conversion) -> None:
    """Refuse nested guests and Xen's: their state is KVM's own."""
    for section, vcpu in conversion.cpus():
        if conversion.number(section, "env.hflags") & HF_GUEST:
            conversion.lose(f"vCPU {vcpu.index}: it is inside a nested guest")
        for name, title in KVM_ONLY.items():
            if section.device.subsection(name) is not None:
                conversion.lose(f"vCPU {vcpu.index}: {title} ({name})")
                structure.drop_subsection(conversion.draft, f"{section.label}/{name}", conversion.name, conversion.why)


def paravirtual(conversion: Conversion) -> None:
    """Say which of KVM's services a guest uses that nobody will serve any more."""
    for path, title in PARAVIRTUAL:
        users = [str(vcpu.index) for section, vcpu in conversion.cpus() if conversion.number(section, path) & 1]
        if users:
            conversion.note(f"vCPU {' '.join(users)}: {title} is set up, which only KVM keeps up to date")
    deadline = [
        str(vcpu.index)
        for section, vcpu in conversion.cpus()
        if conversion.number(section, "cpu/msr_tscdeadline/env.tsc_deadline")
    ]
    if deadline and not conversion.target.declares:
        conversion.note(f"vCPU {' '.join(deadline)}: the TSC deadline timer is armed, which TCG has not")


def not_restored(conversion: Conversion) -> None:
    """Say what QEMU does not hand to Hyper-V's hypervisor."""
    for section, vcpu in conversion.cpus():
        if _debug(section):
            conversion.draft.losses.append(f"vCPU {vcpu.index}: debug registers in use are not restored (MS5)")
        if conversion.target.name == "whpx":
            pat = conversion.number(section, "env.pat")
            if pat != DEFAULT_PAT:
                conversion.draft.losses.append(f"vCPU {vcpu.index}: PAT {pat:#x} is not restored (MS5)")
        for name in ("cpu/msr_hyperv_synic", "cpu/msr_hyperv_stimer"):
            if section.device.subsection(name) is not None:
                conversion.draft.losses.append(f"vCPU {vcpu.index}: {name} is not restored (MS5)")
    if conversion.target.name == "mshv":
        conversion.note("QEMU 11.1 restores neither the local APICs' registers nor the partition's reference time")
    else:
        conversion.note("WHPX restores no MTRRs, no pending events and no Hyper-V MSRs")


def _debug(section: SectionDraft) -> bool:
    registers = section.device.get("env.dr")
    value = registers.value if registers is not None else None
    return isinstance(value, list) and len(value) == 8 and bool(value[7] & DR7_ENABLE)


RULES = (
    Rule(
        "TK8",
        "TCG does not check addresses; KVM refuses the MSR, and QEMU aborts",
        "proved",
        lambda source, target: not source.declares and target.declares,
        canonical,
    ),
    Rule(
        "TK9",
        "a hypervisor refuses the whole group of registers (QEMU before 10 then silently drops it)",
        "proved",
        lambda source, target: target.declares,
        illegal,
    ),
    Rule(
        "TK10",
        "firmware may wait for an SMI that never comes",
        "proved",  # for a VM that was saved while its firmware ran
        lambda source, target: target.declares and not source.declares,
        system_management,
    ),
    Rule(
        "TK12",
        "only TCG keeps it, and a SIPI would start the vCPU with what its registers hold",
        "proved",  # without it: an AP parked under TCG 7.2 ends the VM
        lambda source, target: not source.mp_state and target.mp_state,
        pending_init,
    ),
    Rule(
        "MS3",
        "nested virtualisation and Xen emulation are KVM's own state",
        "source",
        lambda source, target: source.name == "kvm",
        nested,
    ),
    Rule(
        "KT9",
        "what KVM serves, nobody else does",
        "inferred",
        lambda source, target: source.name == "kvm",
        paravirtual,
    ),
    Rule(
        "MS5",
        "QEMU does not write it to the partition",
        "source",
        lambda source, target: target.hyperv,
        not_restored,
    ),
)
