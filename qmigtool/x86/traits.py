"""The one table of accelerators: in what they differ, as far as a stream shows it.

Whoever adds one adds a row here; what it does not write to a vCPU is in :mod:`qmigtool.rewrite.accelerators.unwritten`.

Measured on the same guest saved under TCG and KVM by QEMU 7.2, 10.0 and 11.1; MSHV and WHPX from QEMU 11.1's sources,
MSHV's registers also from what its binary writes to a stand-in of /dev/mshv.
"""

from __future__ import annotations

from dataclasses import dataclass

from qmigtool.xsave import SUPERVISOR_MASK
from qmigtool.xsave.check import MSHV_MASK
from qmigtool.xsave.components import AMX_MASK, CET_MASK

__all__ = ["HYPERV", "KVM", "MSHV", "NAMES", "TARGETS", "TCG", "TRAITS", "WHPX", "Traits", "traits_of"]


@dataclass(frozen=True, slots=True)
class Traits:
    """One accelerator: ``name`` as QEMU's ``-accel`` has it, ``title`` as people write it.

    ``target``: a stream can be turned into its. ``hypervisor``: the CPU's own, which checks what it is given: every
    accelerator but TCG. ``hyperv``: that is Hyper-V's. ``kernel``: KVM's ioctls take the registers, refuse groups of
    them, and serve what a guest knows of KVM. ``physical_x87``: env.fpregs are physical registers, not ST order.
    ``declares``: env.xstate_bv says what is in use, and what it does not say is initialised on load. ``busy_tss``: TR
    is a busy TSS. ``in_kernel_irqchip``: PIC and PIT are the kernel's. ``mp_state``: whether a vCPU waits or is halted
    stands in env.mp_state. ``halted``: it stands in cpu_common and the APIC. ``ticks``: the guest's TSC is the ticks
    clock of section ``timer``, env.tsc is not used. ``recomputes_hflags``: env.hflags is made anew on load.
    ``queued_events``: events that were to be injected are taken from env and injected. ``sections``: those that only it
    has. ``components``: the user components that it can hold; ``supervisor``: the supervisor ones, as MSRs.
    ``same_everywhere``: so it is on every host. ``page``: the bytes of the page in which it takes an XSAVE area, if it
    does. ``foreign``: what becomes of a component that its CPU does not have. ``unwritten``: how it is known what QEMU
    does not write to its vCPUs.
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
    foreign: str = "what the CPU has not it cannot hold (SDM volume 1, 13.3)"
    unwritten: str = ""


_NO_PLACE = "the partition's XSAVE page has no place for it, and QEMU does not mask XSTATE_BV (read in QEMU 11.1)"

KVM = Traits(
    "kvm",
    "KVM",
    kernel=True,
    in_kernel_irqchip=True,
    sections=("kvmclock",),
    foreign="KVM refuses all of XCR0 for one bit that the host has not: QEMU 10.0 and 11.1 then end, 7.2 silently "
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
    components=MSHV_MASK & ~AMX_MASK,  # its header file has no bit for PKRU and APX; AMX is too large for its page
    supervisor=CET_MASK,
    same_everywhere=True,
    page=4096,
    foreign=_NO_PLACE,
    unwritten="seen in what QEMU 11.1 wrote to a stand-in of /dev/mshv",
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
)
HVF = Traits("hvf", "HVF", target=False, halted=True)

TRAITS = {traits.name: traits for traits in (KVM, TCG, MSHV, WHPX, HVF)}
"""The accelerators that save x86 streams, by name."""

NAMES = tuple(TRAITS)
TARGETS = tuple(name for name, traits in TRAITS.items() if traits.target)
"""Those that a stream can be turned into."""
HYPERV = frozenset(name for name, traits in TRAITS.items() if traits.hyperv)
"""Those under which Hyper-V's hypervisor holds the registers."""

_UNKNOWN = Traits("", "an unknown accelerator")


def traits_of(name: str | None) -> Traits:
    """Return the traits of an accelerator; for a name that is not known, those that nothing follows from."""
    return TRAITS.get(name or "", _UNKNOWN)
