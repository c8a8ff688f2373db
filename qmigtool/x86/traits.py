"""The table of accelerators: how they differ, as far as a stream shows it.

A new accelerator is a row here; what it does not write to a vCPU is in :mod:`qmigtool.rewrite.accelerators.unwritten`.

Measured on the same guest saved under TCG and KVM by QEMU 7.2, 10.0 and 11.1; MSHV and WHPX from QEMU 11.1's sources,
MSHV's registers also from what its binary writes to a stand-in of /dev/mshv.
"""

from __future__ import annotations

from dataclasses import dataclass

from qmigtool.xsave import SUPERVISOR_MASK
from qmigtool.xsave.check import MSHV_MASK
from qmigtool.xsave.components import AMX_MASK, CET_MASK, LEGACY_MASK, PAGE_SIZE

__all__ = ["HYPERV", "KVM", "MSHV", "NAMES", "TARGETS", "TCG", "TRAITS", "WHPX", "Traits", "traits_of"]


@dataclass(frozen=True, slots=True)
class Traits:
    """One accelerator: ``name`` is that of QEMU's ``-accel``, ``title`` its name in text.

    ``target``: a stream can be converted to it. ``hypervisor``: it runs on the CPU's virtualisation, which checks its
    state: every accelerator but TCG. ``hyperv``: that is Hyper-V's. ``kernel``: KVM's ioctls accept the registers,
    refuse groups of them, and provide KVM's paravirtual interfaces. ``physical_x87``: env.fpregs are physical
    registers, not in ST order. ``declares``: env.xstate_bv lists the components in use, and the others are initialised
    on load. ``busy_tss``: TR is a busy TSS. ``in_kernel_irqchip``: PIC and PIT are the kernel's. ``mp_state``:
    env.mp_state records whether a vCPU waits or is halted. ``halted``: cpu_common and the APIC record it. ``ticks``:
    the guest's TSC is the ticks clock of section ``timer``, env.tsc is not used. ``recomputes_hflags``: env.hflags is
    recomputed on load. ``queued_events``: pending events are read from env and injected. ``sections``: the sections
    that only it sends. ``components``: the user components that it supports; ``supervisor``: the supervisor components,
    as MSRs. ``same_everywhere``: these are the same on every host. ``page``: the size of the page in which it accepts
    an XSAVE area, if it does; ``oversized``: the components that are larger. ``foreign``: the effect of a component
    that its CPU does not have. ``unwritten``: the source for what QEMU does not write to its vCPUs. ``since``: the
    first version of QEMU that migrates it, if not every known one does.
    """

    name: str
    title: str
    target: bool = True
    hypervisor: bool = True
    hyperv: bool = False
    kernel: bool = False
    physical_x87: bool = False
    declares: bool = True
    busy_tss: bool = True
    in_kernel_irqchip: bool = False
    mp_state: bool = True
    halted: bool = False
    ticks: bool = False
    recomputes_hflags: bool = True
    queued_events: bool = True
    sections: tuple[str, ...] = ()
    components: int = (1 << 63) - 1
    supervisor: int = SUPERVISOR_MASK
    same_everywhere: bool = False
    page: int | None = None
    oversized: int = 0
    foreign: str = "a CPU cannot hold a component that it does not have (SDM volume 1, 13.3)"
    unwritten: str = ""
    since: tuple[int, int] | None = None

    def allowed(self, xcr0: int | None = None, xss: int | None = None) -> int:
        """Return the components that its vCPU can have, where XCR0 and IA32_XSS are limited to these masks, if known.

        x87 and SSE are in every vCPU (SDM volume 1, 13.3), and XCR0 limits no supervisor component.
        """
        user = self.components & ~SUPERVISOR_MASK
        supervisor = self.supervisor & SUPERVISOR_MASK
        if xcr0 is not None:
            user &= xcr0
        if xss is not None:
            supervisor &= xss
        return user | supervisor | LEGACY_MASK


_NO_PLACE = "the partition's XSAVE page has no place for it, and QEMU does not mask XSTATE_BV (read in QEMU 11.1)"

KVM = Traits(
    "kvm",
    "KVM",
    kernel=True,
    in_kernel_irqchip=True,
    sections=("kvmclock",),
    foreign="KVM refuses XCR0 for one bit that the host does not have: QEMU 10.0 and 11.1 then exit, 7.2 silently "
    "drops XCR0, every MSR, the MTRRs, pending events and mp_state (measured)",
)
TCG = Traits(
    "tcg",
    "TCG",
    hypervisor=False,
    physical_x87=True,
    declares=False,
    busy_tss=False,
    mp_state=False,
    halted=True,
    ticks=True,
    recomputes_hflags=False,
    queued_events=False,
    components=0x21F,  # what -cpu max has: x87, SSE, AVX, MPX, PKRU
    supervisor=0,
    same_everywhere=True,
    foreign="TCG keeps the bytes, but the guest's next such instruction is #UD (measured with QEMU 7.2, 10.0 and 11.1)",
)
MSHV = Traits(
    "mshv",
    "MSHV",
    hyperv=True,
    halted=True,
    sections=("mshv-clock", "mshv-apic"),
    components=MSHV_MASK & ~AMX_MASK,  # its header file has no bit for PKRU and APX
    oversized=AMX_MASK,
    supervisor=CET_MASK,
    same_everywhere=True,
    page=PAGE_SIZE,
    foreign=_NO_PLACE,
    unwritten="measured: what QEMU 11.1 writes to a stand-in of /dev/mshv",
    since=(11, 1),
)
WHPX = Traits(
    "whpx",
    "WHPX",
    hyperv=True,
    halted=True,
    queued_events=False,
    supervisor=0,
    foreign=_NO_PLACE,
    unwritten="read in QEMU 10.2",
    since=(11, 1),
)
HVF = Traits("hvf", "HVF", target=False, halted=True)

TRAITS = {traits.name: traits for traits in (KVM, TCG, MSHV, WHPX, HVF)}
"""The accelerators that save x86 streams, by name."""

NAMES = tuple(TRAITS)
TARGETS = tuple(name for name, traits in TRAITS.items() if traits.target)
"""The accelerators that a stream can be converted to."""
HYPERV = frozenset(name for name, traits in TRAITS.items() if traits.hyperv)
"""The accelerators whose registers are held by Hyper-V's hypervisor."""

_UNKNOWN = Traits("", "an unknown accelerator")


def traits_of(name: str | None) -> Traits:
    """Return the traits of an accelerator; for an unknown name, traits without consequences."""
    return TRAITS.get(name or "", _UNKNOWN)
