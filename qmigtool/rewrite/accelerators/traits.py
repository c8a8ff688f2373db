"""In what accelerators differ, as far as a stream shows it.

Measured on the same guest saved under TCG and KVM by QEMU 7.2, 10.0 and 11.1; MSHV and WHPX from QEMU 11.1's sources,
MSHV's registers also from what its binary writes to a stand-in of /dev/mshv.
"""

from __future__ import annotations

from dataclasses import dataclass

from qmigtool.x86.accelerator import HYPERV
from qmigtool.xsave import SUPERVISOR_MASK
from qmigtool.xsave.check import MSHV_MASK
from qmigtool.xsave.components import AMX_MASK, CET_MASK

__all__ = ["TARGETS", "TRAITS", "Traits"]


@dataclass(frozen=True, slots=True)
class Traits:
    """One accelerator.

    ``hypervisor``: the CPU's own, which checks what it is given: every accelerator but TCG. ``physical_x87``:
    env.fpregs are physical registers, not ST order. ``declares``: env.xstate_bv says what is in use, and what it does
    not say is initialised on load. ``busy_tss``: TR is a busy TSS. ``in_kernel_irqchip``: PIC and PIT are the kernel's.
    ``mp_state``: whether a vCPU waits or is halted stands in env.mp_state. ``halted``: it stands in cpu_common and the
    APIC. ``ticks``: the guest's TSC is the ticks clock of section ``timer``, env.tsc is not used.
    ``recomputes_hflags``: env.hflags is made anew on load. ``queued_events``: events that were to be injected are
    taken from env and injected. ``sections``: those that only it has. ``components``: the user components that it can
    hold; ``supervisor``: the supervisor ones, as MSRs.
    """

    name: str
    hypervisor: bool = True
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

    @property
    def hyperv(self) -> bool:
        """Whether Hyper-V's hypervisor holds the registers."""
        return self.name in HYPERV


TRAITS = {
    traits.name: traits
    for traits in (
        Traits(
            "tcg",
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
        ),
        Traits("kvm", in_kernel_irqchip=True, sections=("kvmclock",)),
        # Its page is one of 4096 bytes, too small for AMX; its header file has no bit for PKRU and APX.
        Traits(
            "mshv",
            halted=True,
            sections=("mshv-clock", "mshv-apic"),
            components=MSHV_MASK & ~AMX_MASK,
            supervisor=CET_MASK,
        ),
        Traits("whpx", halted=True, queued_events=False, supervisor=0),
        Traits("hvf", halted=True),
    )
}
"""The accelerators that save x86 streams, by name."""

TARGETS = ("kvm", "tcg", "mshv", "whpx")
"""Those that a stream can be turned into."""
