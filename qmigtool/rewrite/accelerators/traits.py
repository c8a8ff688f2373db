"""In what accelerators differ, as far as a stream shows it.

Measured on the same guest saved under TCG and KVM by QEMU 7.2, 10.0 and 11.1; MSHV and WHPX from QEMU 11.1's sources,
MSHV's registers also from what its binary writes to a stand-in of /dev/mshv.
"""

from __future__ import annotations

from dataclasses import dataclass

from qmigtool.xsave.check import MSHV_MASK
from qmigtool.xsave.components import AMX_MASK

__all__ = ["TARGETS", "TRAITS", "Traits"]


@dataclass(frozen=True, slots=True)
class Traits:
    """One accelerator.

    ``physical_x87``: env.fpregs are physical registers, not ST order. ``declares``: env.xstate_bv says what is in use,
    and what it does not say is initialised on load. ``in_kernel_irqchip``: PIC and PIT are the kernel's. ``mp_state``:
    whether a vCPU waits or is halted stands in env.mp_state, not in cpu_common and the APIC. ``ticks``: the guest's TSC
    is the ticks clock of section ``timer``, env.tsc is not used. ``recomputes_hflags``: env.hflags is made anew on
    load. ``sections``: those that only it has. ``components``: the user components that it can hold.
    """

    name: str
    physical_x87: bool = False
    declares: bool = True
    in_kernel_irqchip: bool = False
    mp_state: bool = True
    ticks: bool = False
    recomputes_hflags: bool = True
    sections: tuple[str, ...] = ()
    components: int = (1 << 63) - 1

    @property
    def hyperv(self) -> bool:
        """Whether Hyper-V's hypervisor holds the registers."""
        return self.name in ("mshv", "whpx")


TRAITS = {
    traits.name: traits
    for traits in (
        Traits(
            "tcg",
            physical_x87=True,
            declares=False,
            mp_state=False,
            ticks=True,
            recomputes_hflags=False,
            components=0x21F,  # what -cpu max has: x87, SSE, AVX, MPX, PKRU
        ),
        Traits("kvm", in_kernel_irqchip=True, sections=("kvmclock",)),
        # Its page is one of 4096 bytes, too small for AMX; its header file has no bit for PKRU and APX.
        Traits("mshv", sections=("mshv-clock", "mshv-apic"), components=MSHV_MASK & ~AMX_MASK),
        Traits("whpx"),
        Traits("hvf"),
    )
}
"""The accelerators that save x86 streams, by name."""

TARGETS = ("kvm", "tcg", "mshv", "whpx")
"""Those that a stream can be turned into."""
