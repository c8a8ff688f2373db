"""Rules for state that a target refuses to load, or loads and does not restore."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qmigtool.findings import Severity
from qmigtool.findings.model import Wide
from qmigtool.rewrite import structure
from qmigtool.rewrite.accelerators.rule import Conversion, ConversionRule, Loss
from qmigtool.rewrite.accelerators.unwritten import unwritten
from qmigtool.rewrite.sectiondraft import SectionDraft
from qmigtool.x86.kvm import ADDRESSES, faults, is_canonical, linear_width, refusals
from qmigtool.x86.lapic import LAPIC, pairs
from qmigtool.x86.registers import HFLAGS
from qmigtool.xsave import SUPERVISOR_MASK
from qmigtool.xsave.components import MXCSR_INIT

if TYPE_CHECKING:
    from qmigtool.x86.vcpu import VCpu

__all__ = ["RULES"]

CPU_INTERRUPT_INIT, CPU_INTERRUPT_SIPI = 0x400, 0x800
SMBASE = 0x30000  # as a reset leaves it

# KVM's paravirtual MSRs: the field, and the service that the guest uses if it is set.
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
# Field, its value if nothing is queued, and its meaning.
QUEUED = (
    ("env.interrupt_injected", -1, "interrupt"),
    ("env.exception_nr", -1, "exception"),
    ("env.nmi_injected", 0, "NMI"),
    ("env.nmi_pending", 0, "NMI"),
)


def canonical(conversion: Conversion) -> None:
    """Refuse addresses that are not canonical: those that KVM refuses, and those that no CPU accepts."""
    for section, _ in conversion.cpus():
        width = linear_width(section.device.number)
        for address in ADDRESSES:
            value = section.device.word(address.path) or 0
            if not is_canonical(value, width):
                low = value & (1 << width) - 1
                extended = low | ((1 << 64) - (1 << width) if low >> width - 1 else 0)
                what = f"{value:#x} is not canonical"
                conversion.lose(section, address.path, what, Wide(value), expected=Wide(extended))
                conversion.assign(section, address.path, extended)


def illegal(conversion: Conversion) -> None:
    """Refuse register values that no hypervisor accepts; no replacement would be correct."""
    for section, vcpu in conversion.cpus():
        if reasons := list(_illegal(conversion, section, vcpu)):
            conversion.refuse(f"vCPU {vcpu.index}: {'; '.join(reasons)}")


def _illegal(conversion: Conversion, section: SectionDraft, vcpu: VCpu) -> Iterator[str]:
    """Apply KVM's rules to the vCPU as it will be: XSTATE_BV as the later rules leave it."""
    declared = vcpu.xstate_bv if conversion.source.declares else vcpu.live & ~SUPERVISOR_MASK
    if conversion.mask is not None:
        declared &= conversion.target.allowed(conversion.mask)
    if vcpu.mxcsr != MXCSR_INIT:
        declared |= 2

    def number(path: str) -> int | None:
        return declared if path == "env.xstate_bv" else section.device.number(path)

    # Skip what only KVM does not know, and what non-canonical has checked.
    passed = set() if conversion.target.kernel else {"cr4-foreign", "xstate-bv"}
    if not conversion.source.hypervisor:
        passed.add("canonical")
    for refusal in refusals(number):
        if refusal.certain and refusal.name not in passed:
            yield refusal.why
    for fault in faults(number):
        yield fault.why


def system_management(conversion: Conversion) -> None:
    """Refuse a vCPU in SMM, and note if firmware uses SMM: not every KVM has it, and no partition of Hyper-V does."""
    target = conversion.target
    hint = f"{target.title} does not have it" if target.hyperv else f"{target.title}: smm=on"
    for section, vcpu in conversion.cpus():
        if conversion.number(section, HFLAGS.path) & HFLAGS["SMM"]:
            conversion.refuse(f"vCPU {vcpu.index}: it is in system management mode")
        if conversion.number(section, "env.smbase") not in (0, SMBASE):
            conversion.note(f"vCPU {vcpu.index}: its firmware has set up SMM; the target must have it ({hint})")


def pending_init(conversion: Conversion) -> None:
    """Drop an INIT or a SIPI that TCG has not yet processed: while it is pending, the registers are not reset."""
    for _, _, common in conversion.paired("cpu_common"):
        request = conversion.number(common, "interrupt_request")
        if request & (CPU_INTERRUPT_INIT | CPU_INTERRUPT_SIPI):
            kept = request & ~(CPU_INTERRUPT_INIT | CPU_INTERRUPT_SIPI)
            what = "an INIT or a SIPI is pending"
            conversion.lose(common, "interrupt_request", what, Wide(request), expected=Wide(kept))
            conversion.assign(common, "interrupt_request", kept)


def nested(conversion: Conversion) -> None:
    """Refuse a vCPU in a nested guest; drop the other state of nested guests and of Xen emulation."""
    for section, vcpu in conversion.cpus():
        if conversion.number(section, HFLAGS.path) & HFLAGS["GUEST"]:
            conversion.refuse(f"vCPU {vcpu.index}: it is inside a nested guest")
        for name, title in OWN.items():
            if section.device.subsection(name) is not None:
                conversion.lose(section, name, title)
                structure.drop_subsection(conversion.draft, f"{section.label}/{name}")


def queued(conversion: Conversion) -> None:
    """Drop events that are queued for injection if the target does not read them."""
    for section, _ in conversion.cpus():
        for path, none, title in QUEUED:
            value = section.device.number(path)
            if value is not None and value != none:
                conversion.lose(section, path, f"{title} {value} is queued", value, expected=none)
                conversion.assign(section, path, none)


def paravirtual(conversion: Conversion) -> None:
    """Note the services of KVM that the guest uses and that the target does not provide."""
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
        conversion.note(f"vCPU {' '.join(deadline)}: the TSC deadline timer is armed, which TCG does not have")


def not_restored(conversion: Conversion) -> None:
    """Note the state that QEMU does not write to Hyper-V's hypervisor."""
    lapics = conversion.draft.named(LAPIC)
    cpus = list(conversion.cpus())
    lapic_of = {section.label: lapic.device for (section, _), lapic in pairs(cpus, lapics) or ()}
    for section, vcpu in cpus:
        apic = lapic_of.get(section.label)
        for lost in unwritten(conversion.target.name, section.device, apic):
            conversion.note(f"vCPU {vcpu.index}: QEMU does not restore this state: {lost.what}")


RULES = (
    ConversionRule(
        "non-canonical",
        "TCG does not check addresses; KVM refuses the MSR and QEMU aborts, or no Intel CPU can run the vCPU",
        "proved",
        lambda source, target: target.hypervisor and not source.hypervisor,
        canonical,
        Loss("non-canonical", Severity.ERROR, "an address that no WRMSR accepts: QEMU aborts"),
    ),
    ConversionRule(
        "illegal-registers",
        "a hypervisor refuses the whole group of registers (QEMU before 10 then silently drops it)",
        "proved",
        lambda source, target: target.hypervisor,
        illegal,
        Loss("illegal-registers", Severity.ERROR, "a register value that no hypervisor accepts"),
    ),
    ConversionRule(
        "smm",
        "firmware may wait for an SMI that never comes",
        "proved",  # for a VM that was saved while its firmware ran
        lambda source, target: target.hypervisor,
        system_management,
        Loss("smm", Severity.NOTE, "system management mode"),
    ),
    ConversionRule(
        "pending-init",
        "only TCG saves it, and a SIPI would start the vCPU with its current registers",
        "inferred",  # seen with an AP parked under TCG 7.2: the VM ended at its SIPI
        lambda source, target: target.hypervisor and not source.hypervisor,
        pending_init,
        Loss("pending-init", Severity.ERROR, "an INIT or SIPI is pending, which only TCG keeps"),
    ),
    ConversionRule(
        "nested-state",
        "state of nested guests and of Xen emulation is specific to the accelerator",
        "source",
        lambda source, target: True,
        nested,
        Loss("nested-state", Severity.ERROR, "state of nested guests or of Xen is specific to the accelerator"),
    ),
    ConversionRule(
        "queued-event",
        "the target has no register for it: the interrupt controllers show what was pending",
        "inferred",
        lambda source, target: source.queued_events and not target.queued_events,
        queued,
        Loss("queued-event", Severity.ERROR, "an event that was about to be injected is not checked for"),
    ),
    ConversionRule(
        "paravirtual",
        "only KVM provides it",
        "inferred",
        lambda source, target: source.kernel,
        paravirtual,
        Loss("paravirtual", Severity.WARNING, "the target does not provide the paravirtual features that KVM provided"),
    ),
    ConversionRule(
        "not-written",
        "QEMU does not write it to the partition",
        "source",
        lambda source, target: target.hyperv,
        not_restored,
        None,
    ),
)
