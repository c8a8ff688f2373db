"""What a target refuses to load, or loads and does not restore."""

from __future__ import annotations

from collections.abc import Iterator

from qmigtool.cpu_x86 import HFLAGS
from qmigtool.rewrite import structure
from qmigtool.rewrite.accelerators.rule import Conversion, Rule
from qmigtool.rewrite.sectiondraft import SectionDraft
from qmigtool.xsave import check_xcr0

__all__ = ["RULES"]

CR4 = "env.cr[4]"
CR4_LA57 = 1 << 12
CR0_PE, CR0_NW, CR0_CD, CR0_PG = 1, 1 << 29, 1 << 30, 1 << 31
CR4_PAE, CR4_PCIDE = 1 << 5, 1 << 17
EFER_LME = 1 << 8
MXCSR_DEFINED = 0x2FFFF  # 0xFFFF with Intel; AMD has MM in bit 17
MAX_MP_STATE = 10  # KVM_MP_STATE_AP_RESET_HOLD and what else there is
CPU_INTERRUPT_INIT, CPU_INTERRUPT_SIPI = 0x400, 0x800
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
OWN = {
    "cpu/nested_state": "nested virtualisation",
    "cpu/svm_guest": "nested virtualisation",
    "cpu/svn_npt": "nested virtualisation",
    "cpu/xen_vcpu": "Xen emulation",
}
HYPERV = ("cpu/msr_hyperv_synic", "cpu/msr_hyperv_stimer")
# Field, its value if nothing is queued, and what it is.
QUEUED = (
    ("env.interrupt_injected", -1, "interrupt"),
    ("env.exception_nr", -1, "exception"),
    ("env.nmi_injected", 0, "NMI"),
    ("env.nmi_pending", 0, "NMI"),
)


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
        for reason in (*_illegal(conversion, section), *(check_xcr0(vcpu.xcr0) if vcpu.xcr0 else ())):
            conversion.refuse(f"vCPU {vcpu.index}: {reason}")


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
    """Refuse a vCPU inside SMM, and say that firmware uses it: not every KVM has it, and MSHV and WHPX have not."""
    for section, vcpu in conversion.cpus():
        if conversion.number(section, HFLAGS) & HF_SMM:
            conversion.refuse(f"vCPU {vcpu.index}: it is in system management mode")
        if conversion.number(section, "env.smbase") not in (0, SMBASE):
            conversion.note(
                f"vCPU {vcpu.index}: its firmware has set up SMM; the target must have it "
                "(KVM: smm=on; MSHV and WHPX have none)"
            )


def pending_init(conversion: Conversion) -> None:
    """Drop an INIT or a SIPI that TCG has not yet taken: with it, the registers are not those of a reset."""
    for _, vcpu, common in conversion.beside("cpu_common"):
        request = conversion.number(common, "interrupt_request")
        if request & (CPU_INTERRUPT_INIT | CPU_INTERRUPT_SIPI):
            conversion.lose(f"vCPU {vcpu.index}: an INIT or a SIPI is pending")
            conversion.assign(common, "interrupt_request", request & ~(CPU_INTERRUPT_INIT | CPU_INTERRUPT_SIPI))


def nested(conversion: Conversion) -> None:
    """Refuse a vCPU inside a nested guest; drop what else there is of nested guests and of Xen's."""
    for section, vcpu in conversion.cpus():
        if conversion.number(section, HFLAGS) & HF_GUEST:
            conversion.refuse(f"vCPU {vcpu.index}: it is inside a nested guest")
        for name, title in OWN.items():
            if section.device.subsection(name) is not None:
                conversion.lose(f"vCPU {vcpu.index}: {title} ({name})")
                structure.drop_subsection(conversion.draft, f"{section.label}/{name}")


def queued(conversion: Conversion) -> None:
    """Drop the events that the source was about to inject, and that the target does not look for."""
    for section, vcpu in conversion.cpus():
        for path, none, title in QUEUED:
            value = section.device.number(path)
            if value is not None and value != none:
                conversion.lose(f"vCPU {vcpu.index}: {title} {value} is queued ({path})")
                conversion.assign(section, path, none)


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
    if deadline and not conversion.target.hypervisor:
        conversion.note(f"vCPU {' '.join(deadline)}: the TSC deadline timer is armed, which TCG has not")


def not_restored(conversion: Conversion) -> None:
    """Say what QEMU does not hand to Hyper-V's hypervisor."""
    whpx = conversion.target.name == "whpx"
    for section, vcpu in conversion.cpus():
        lost = []
        debug = section.device.get("env.dr")
        value = debug.value if debug is not None else None
        if isinstance(value, list) and len(value) == 8 and value[7] & DR7_ENABLE:
            lost.append("debug registers in use")
        pat = conversion.number(section, "env.pat")
        if whpx and pat != DEFAULT_PAT:
            lost.append(f"PAT {pat:#x}")
        lost += [name for name in HYPERV if section.device.subsection(name) is not None]
        for what in lost:
            conversion.note(f"vCPU {vcpu.index}: QEMU does not restore {what}")
    conversion.note(
        "WHPX restores no MTRRs, no pending events and no Hyper-V MSRs"
        if whpx
        else "QEMU 11.1 restores neither the local APICs' registers nor the partition's reference time"
    )


RULES = (
    Rule(
        "TK8",
        "TCG does not check addresses; KVM refuses the MSR, and QEMU aborts",
        "proved",
        lambda source, target: target.hypervisor and not source.hypervisor,
        canonical,
    ),
    Rule(
        "TK9",
        "a hypervisor refuses the whole group of registers (QEMU before 10 then silently drops it)",
        "proved",
        lambda source, target: target.hypervisor,
        illegal,
    ),
    Rule(
        "TK10",
        "firmware may wait for an SMI that never comes",
        "proved",  # for a VM that was saved while its firmware ran
        lambda source, target: target.hypervisor,
        system_management,
    ),
    Rule(
        "TK12",
        "only TCG keeps it, and a SIPI would start the vCPU with what its registers hold",
        "inferred",  # seen with an AP parked under TCG 7.2: the VM ended at its SIPI
        lambda source, target: target.hypervisor and not source.hypervisor,
        pending_init,
    ),
    Rule(
        "MS3",
        "state of nested guests, and of Xen's, is the accelerator's own",
        "source",
        lambda source, target: True,
        nested,
    ),
    Rule(
        "KT11",
        "it is in none of the target's registers: the interrupt controllers show what was pending",
        "inferred",
        lambda source, target: source.queued_events and not target.queued_events,
        queued,
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
