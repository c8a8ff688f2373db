"""Rules of a vCPU's other registers."""

from __future__ import annotations

from qmigtool.rewrite import structure
from qmigtool.rewrite.accelerators.rule import Conversion, Rule
from qmigtool.rewrite.draft import SectionDraft

__all__ = ["RULES"]

TR_FLAGS, HFLAGS, MP_STATE, TSC = "env.tr/flags", "env.hflags", "env.mp_state", "env.tsc"
CR4 = "env.cr[4]"
TYPE = 0xF00  # of a segment's flags: the descriptor's type, bits 11:8
BUSY = 0x200  # of the type of a TSS: 9 available, 11 busy (1 and 3 with 16 bits)
APIC_SIPI = "apic_sipi"
RUNNABLE, UNINITIALIZED, INIT_RECEIVED, HALTED = range(4)  # KVM_MP_STATE_*

# HF_*_MASK in target/i386/cpu.h
HF_IOPL, HF_SMAP, HF_MPX_EN, HF_UMIP, HF_AVX_EN = 3 << 12, 1 << 23, 1 << 25, 1 << 27, 1 << 28
CR4_UMIP, CR4_OSXSAVE, CR4_SMAP = 1 << 11, 1 << 18, 1 << 21


def busy_tss(conversion: Conversion) -> None:
    """Make TR a busy TSS."""
    for section, _ in conversion.cpus():
        flags = conversion.number(section, TR_FLAGS)
        if flags & TYPE in (0x100, 0x900):
            conversion.assign(section, TR_FLAGS, flags | BUSY)


def available_tss(conversion: Conversion) -> None:
    """Make TR an available TSS."""
    for section, _ in conversion.cpus():
        flags = conversion.number(section, TR_FLAGS)
        if flags & TYPE in (0x300, 0xB00):
            conversion.assign(section, TR_FLAGS, flags & ~BUSY)


def hidden_flags(conversion: Conversion) -> None:
    """Set the bits of env.hflags that TCG takes from there, and clear those that it does not know there."""
    for section, vcpu in conversion.cpus():
        cr4 = conversion.number(section, CR4)
        flags = conversion.number(section, HFLAGS) & ~HF_IOPL
        if cr4 & CR4_OSXSAVE and vcpu.xcr0 & 6 == 6:
            flags |= HF_AVX_EN
        if cr4 & CR4_UMIP:
            flags |= HF_UMIP
        if cr4 & CR4_SMAP:
            flags |= HF_SMAP
        bounds = conversion.number(section, "cpu/mpx/env.bndcs_regs.cfgu")
        if cr4 & CR4_OSXSAVE and vcpu.xcr0 & 0x18 == 0x18 and bounds & 1:
            flags |= HF_MPX_EN
        conversion.assign(section, HFLAGS, flags)


def to_mp_state(conversion: Conversion) -> None:
    """Say in env.mp_state whether a vCPU waits for a SIPI (2), is halted (3) or runs (0).

    TCG's wait_for_sipi is what follows an INIT. KVM ignores a SIPI where mp_state is 1, which waits for the INIT first
    (measured: an application processor starts from 2 and never from 1).
    """
    for section, vcpu in conversion.cpus():
        apic = _same(conversion, "apic", vcpu.index)
        common = _same(conversion, "cpu_common", vcpu.index)
        state = RUNNABLE
        if apic is not None and conversion.number(apic, f"{APIC_SIPI}/wait_for_sipi"):
            state = INIT_RECEIVED
        elif common is not None and conversion.number(common, "halted"):
            state = HALTED
        conversion.assign(section, MP_STATE, state)


def from_mp_state(conversion: Conversion) -> None:
    """Say in cpu_common and the APIC what env.mp_state says."""
    for section, vcpu in conversion.cpus():
        state = conversion.number(section, MP_STATE)
        if state not in (UNINITIALIZED, INIT_RECEIVED, HALTED):
            continue
        common = _same(conversion, "cpu_common", vcpu.index)
        if common is not None:
            conversion.assign(common, "halted", 1)
        apic = _same(conversion, "apic", vcpu.index)
        if state != HALTED and apic is not None:
            if apic.device.subsection(APIC_SIPI) is None:
                structure.add_subsection(
                    conversion.draft,
                    apic.label,
                    APIC_SIPI,
                    {"wait_for_sipi": 1},
                    edit=conversion.name,
                    why=conversion.why,
                )
            conversion.assign(apic, f"{APIC_SIPI}/wait_for_sipi", 1)
        if not conversion.target.mp_state:
            conversion.assign(section, MP_STATE, RUNNABLE)


def no_interrupt_request(conversion: Conversion) -> None:
    """Clear TCG's own bits."""
    for common in conversion.draft.named("cpu_common"):
        conversion.assign(common, "interrupt_request", 0)


def _same(conversion: Conversion, name: str, index: int) -> SectionDraft | None:
    found = (s for s in conversion.draft.named(name) if s.section.instance_id == index)
    return next(found, None)


RULES = (
    Rule(
        "TK7",
        "a hypervisor expects a busy TSS in TR",
        "inferred",
        lambda source, target: source.physical_x87 and not target.physical_x87,
        busy_tss,
    ),
    Rule(
        "KT3",
        "TCG looks for I/O permissions in a TSS of type 9 only: #GP else",
        "proved",
        lambda source, target: target.physical_x87 and not source.physical_x87,
        available_tss,
    ),
    Rule(
        "KT2",
        "TCG does not recompute hflags: without AVX_EN the first AVX instruction is #UD",
        "proved",  # bit 28; the others are read in QEMU
        lambda source, target: source.recomputes_hflags and not target.recomputes_hflags,
        hidden_flags,
    ),
    Rule(
        "TK5",
        "a vCPU that waits or is halted is so in env.mp_state: else application processors run the BIOS",
        "proved",
        lambda source, target: target.mp_state and not source.mp_state,
        to_mp_state,
    ),
    Rule(
        "KT7",
        "a vCPU that waits or is halted is so in cpu_common and in the APIC: else it runs from the reset vector",
        "proved",
        lambda source, target: source.mp_state and (not target.mp_state or target.hyperv),
        from_mp_state,
    ),
    Rule(
        "TK11",
        "bits of TCG's own, which nothing clears under KVM",
        "inferred",
        lambda source, target: not source.mp_state and target.in_kernel_irqchip,
        no_interrupt_request,
    ),
)
