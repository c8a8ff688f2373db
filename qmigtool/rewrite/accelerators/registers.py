"""Rules for the other registers of a vCPU."""

from __future__ import annotations

from qmigtool.findings import Severity
from qmigtool.rewrite import structure
from qmigtool.rewrite.accelerators.rule import Conversion, ConversionRule, Loss
from qmigtool.x86.kvm import MP_STATE, NOT_STARTED, MpState
from qmigtool.x86.lapic import LAPIC
from qmigtool.x86.registers import HFLAGS, SEGMENT, TSS_AVAILABLE, TSS_BUSY, TSS_MAKES_BUSY
from qmigtool.x86.vcpu import tcg_hflags

__all__ = ["RULES"]

TR_FLAGS = "env.tr/flags"
BUSY = TSS_MAKES_BUSY * (SEGMENT["TYPE"] & -SEGMENT["TYPE"])
APIC_SIPI, INTERRUPT_REQUEST = "apic_sipi", "interrupt_request"
CPU_INTERRUPT_HARD, CPU_INTERRUPT_EXITTB, CPU_INTERRUPT_POLL = 0x2, 0x4, 0x10


def busy_tss(conversion: Conversion) -> None:
    """Make TR a busy TSS."""
    for section, _ in conversion.cpus():
        flags = conversion.number(section, TR_FLAGS)
        if SEGMENT.part(flags, "TYPE") in TSS_AVAILABLE:
            conversion.assign(section, TR_FLAGS, flags | BUSY)


def available_tss(conversion: Conversion) -> None:
    """Make TR an available TSS."""
    for section, _ in conversion.cpus():
        flags = conversion.number(section, TR_FLAGS)
        if SEGMENT.part(flags, "TYPE") in TSS_BUSY:
            conversion.assign(section, TR_FLAGS, flags & ~BUSY)


def hidden_flags(conversion: Conversion) -> None:
    """Set env.hflags to the value that TCG would have."""
    for section, _ in conversion.cpus():
        conversion.assign(section, HFLAGS.path, tcg_hflags(section.device))


def to_mp_state(conversion: Conversion) -> None:
    """Set env.mp_state: the vCPU waits for a SIPI (2), is halted (3) or runs (0).

    TCG's wait_for_sipi is the state after an INIT. In mp_state 1 KVM waits for the INIT and ignores a SIPI (measured:
    an application processor starts from 2 and never from 1).
    """
    states = {section.label: MpState.RUNNABLE for section, _ in conversion.cpus()}
    for section, _, common in conversion.paired("cpu_common"):
        if conversion.number(common, "halted"):
            states[section.label] = MpState.HALTED
    for section, _, apic in conversion.paired(LAPIC):
        if conversion.number(apic, f"{APIC_SIPI}/wait_for_sipi"):
            states[section.label] = MpState.INIT_RECEIVED
    for section, _ in conversion.cpus():
        conversion.assign(section, MP_STATE, states[section.label].value)


def from_mp_state(conversion: Conversion) -> None:
    """Set the activity state in cpu_common and the APIC from env.mp_state."""
    for section, _, common in conversion.paired("cpu_common"):
        if conversion.number(section, MP_STATE) in NOT_STARTED | {MpState.HALTED}:
            conversion.assign(common, "halted", 1)
    for section, _, apic in conversion.paired(LAPIC):
        if conversion.number(section, MP_STATE) in NOT_STARTED:
            if apic.device.subsection(APIC_SIPI) is None:
                structure.add_subsection(conversion.draft, apic.label, APIC_SIPI, {"wait_for_sipi": 1})
            conversion.assign(apic, f"{APIC_SIPI}/wait_for_sipi", 1)
    for section, _ in conversion.cpus() if not conversion.target.mp_state else ():
        conversion.assign(section, MP_STATE, MpState.RUNNABLE.value)


def no_interrupt_request(conversion: Conversion) -> None:
    """Clear the requests that TCG raises again: an interrupt is pending in the interrupt controller."""
    harmless = CPU_INTERRUPT_HARD | CPU_INTERRUPT_EXITTB | CPU_INTERRUPT_POLL
    for common in conversion.draft.named("cpu_common"):
        request = conversion.number(common, INTERRUPT_REQUEST)
        conversion.assign(common, INTERRUPT_REQUEST, request & ~harmless)


RULES = (
    ConversionRule(
        "tr-busy",
        "a hypervisor expects a busy TSS in TR",
        "inferred",
        lambda source, target: target.busy_tss and not source.busy_tss,
        busy_tss,
        Loss("tr-type", Severity.NOTE, "TR is not a busy TSS"),
    ),
    ConversionRule(
        "tr-available",
        "TCG reads I/O permissions only from a TSS of type 9: otherwise #GP",
        "proved",
        lambda source, target: source.busy_tss and not target.busy_tss,
        available_tss,
        Loss("tr-type", Severity.ERROR, "TR is a busy TSS, in which TCG finds no I/O permission bitmap: #GP"),
    ),
    ConversionRule(
        "hidden-flags",
        "TCG does not recompute hflags: without AVX_EN the first AVX instruction is #UD",
        "proved",  # bit 28; the others are read in QEMU
        lambda source, target: source.recomputes_hflags and not target.recomputes_hflags,
        hidden_flags,
        Loss("hidden-flags", Severity.ERROR, "hflags lack the bits that TCG keeps there: AVX raises #UD"),
    ),
    ConversionRule(
        "mp-state",
        "env.mp_state must show that a vCPU waits or is halted: otherwise application processors run the BIOS",
        "proved",
        lambda source, target: target.mp_state and not source.mp_state,
        to_mp_state,
        Loss("vcpu-run-state", Severity.ERROR, "a vCPU that is halted or waits for its SIPI would run"),
    ),
    ConversionRule(
        "halted",
        "cpu_common and the APIC must show that a vCPU waits or is halted: otherwise it runs from the reset vector",
        "proved",
        lambda source, target: target.halted and not source.halted,
        from_mp_state,
        Loss("vcpu-run-state", Severity.ERROR, "a vCPU that is halted or waits for its SIPI would run"),
    ),
    ConversionRule(
        "interrupt-request",
        "the in-kernel interrupt controller keeps it, and nothing would clear the bits",
        "inferred",
        lambda source, target: not source.hypervisor and target.in_kernel_irqchip,
        no_interrupt_request,
        Loss("interrupt-request", Severity.NOTE, "TCG's own interrupt bits stay set"),
    ),
)
