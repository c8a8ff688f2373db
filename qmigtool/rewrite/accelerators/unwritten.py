"""What QEMU does not hand to a partition of Hyper-V's hypervisor, and what of it a vCPU has in use.

MSHV: seen in what QEMU 11.1.2 wrote to a stand-in of /dev/mshv. WHPX: read in QEMU 10.2 (``whpx_set_registers``).
Events that are queued are not here: rule KT11 drops them on the way to WHPX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.findings import Severity
from qmigtool.x86.traits import HYPERV, MSHV, WHPX

if TYPE_CHECKING:
    from qmigtool.devices.device import Device

__all__ = ["Unwritten", "unwritten"]

DR7_ENABLE = 0xFF  # L0 to G3
DEFAULT_PAT = 0x0007040600070406
DEFAULT_MISC = 1
APIC_ENABLED = 0x100  # SVR bit 8
ON_MSHV, ON_WHPX = frozenset({MSHV.name}), frozenset({WHPX.name})
E, W, N = Severity.ERROR, Severity.WARNING, Severity.NOTE


class Unwritten(NamedTuple):
    """State in use that the partition will not have: in which section and field, what, and how grave that is."""

    device: Device
    path: str
    what: str
    severity: Severity


class _Row(NamedTuple):
    """A field or subsection that is not written, from which of its numbers on that matters, and what to say then."""

    accelerators: Set[str]
    path: str
    severity: Severity
    what: str
    used: Callable[[int], object] = bool
    apic: bool = False


_ROWS = (
    _Row(HYPERV, "env.dr[7]", E, "debug registers are in use: DR7 {:#x}", lambda value: value & DR7_ENABLE),
    _Row(ON_WHPX, "env.pat", E, "PAT is {:#x}", lambda value: value != DEFAULT_PAT),
    _Row(ON_WHPX, "env.mtrr_deftype", W, "MTRRs are set up"),
    # cpu_common has what is halted (3).
    _Row(ON_MSHV, "env.mp_state", E, "mp_state is {}", lambda value: value in (1, 2)),
    _Row(ON_MSHV, "cpu/msr_tscdeadline/env.tsc_deadline", E, "the TSC deadline timer is armed"),
    _Row(ON_MSHV, "cpu/mpx/env.msr_bndcfgs", W, "IA32_BNDCFGS is {:#x}"),
    _Row(
        *(ON_MSHV, "cpu/msr_ia32_misc_enable/env.msr_ia32_misc_enable", N, "IA32_MISC_ENABLE is {:#x}"),
        lambda value: value != DEFAULT_MISC,
    ),
    _Row(
        *(ON_MSHV, "spurious_vec", E, "the local APIC is enabled: its timer, vectors and what is in service"),
        lambda value: value & APIC_ENABLED,
        apic=True,
    ),
)

_SUBSECTIONS = (
    (ON_WHPX, "cpu/xss", E, "cpu/xss is there"),
    (ON_WHPX, "cpu/cet", E, "cpu/cet is there"),
    (ON_WHPX, "cpu/msr_hyperv_hypercall", E, "the guest uses Hyper-V's hypercall"),
    (ON_WHPX, "cpu/msr_hyperv_time", E, "the guest uses Hyper-V's time"),
    # MSHV writes the MSR of the reference TSC page, and not the time that it counts from.
    (
        ON_MSHV,
        "cpu/msr_hyperv_time",
        W,
        "the guest uses Hyper-V's reference time, and the partition's goes on from its own",
    ),
    *(
        (HYPERV, f"cpu/msr_hyperv_{name}", E, f"the guest uses Hyper-V's {name}")
        for name in ("synic", "stimer", "vapic", "crash", "reenlightenment")
    ),
)


def unwritten(accelerator: str, cpu: Device, apic: Device | None) -> Iterator[Unwritten]:
    """Give what QEMU does not write to a partition, of a vCPU and its APIC, where it is not as after a reset."""
    for row in _ROWS:
        device = apic if row.apic else cpu
        if accelerator in row.accelerators and device is not None:
            value = device.word(row.path)
            if value is not None and row.used(value):
                yield Unwritten(device, row.path, row.what.format(value), row.severity)
    for accelerators, path, severity, what in _SUBSECTIONS:
        if accelerator in accelerators and cpu.subsection(path) is not None:
            yield Unwritten(cpu, path, what, severity)
