"""State that QEMU does not write to a partition of Hyper-V's hypervisor and that a vCPU uses.

MSHV: from the writes of QEMU 11.1.2 to a stand-in for /dev/mshv. WHPX: from the source of QEMU 10.2
(``whpx_set_registers``). Queued events are not here: rule queued-event drops them in conversions to WHPX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.findings import Severity
from qmigtool.x86.kvm import MP_STATE, NOT_STARTED
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
    """State in use that the partition will not have: section, field, description and severity."""

    device: Device
    path: str
    what: str
    severity: Severity


class _Row(NamedTuple):
    """A field that is not written, when its value matters (``used``), and the description."""

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
    # cpu_common has what is halted.
    _Row(ON_MSHV, MP_STATE, E, "mp_state is {}", lambda value: value in NOT_STARTED),
    _Row(ON_MSHV, "cpu/msr_tscdeadline/env.tsc_deadline", E, "the TSC deadline timer is armed"),
    _Row(ON_MSHV, "cpu/mpx/env.msr_bndcfgs", W, "IA32_BNDCFGS is {:#x}"),
    _Row(
        *(ON_MSHV, "cpu/msr_ia32_misc_enable/env.msr_ia32_misc_enable", N, "IA32_MISC_ENABLE is {:#x}"),
        lambda value: value != DEFAULT_MISC,
    ),
    _Row(
        *(ON_MSHV, "spurious_vec", E, "the local APIC is enabled: its timer, vectors and in-service interrupts"),
        lambda value: value & APIC_ENABLED,
        apic=True,
    ),
)

_SUBSECTIONS = (
    (ON_WHPX, "cpu/xss", E, "cpu/xss is present"),
    (ON_WHPX, "cpu/cet", E, "cpu/cet is present"),
    (ON_WHPX, "cpu/msr_hyperv_hypercall", E, "the guest uses Hyper-V's hypercall"),
    (ON_WHPX, "cpu/msr_hyperv_time", E, "the guest uses Hyper-V's time"),
    # MSHV writes the MSR of the reference TSC page, but not the time base.
    (
        ON_MSHV,
        "cpu/msr_hyperv_time",
        W,
        "the guest uses Hyper-V's reference time, and the partition continues from its own time",
    ),
    *(
        (HYPERV, f"cpu/msr_hyperv_{name}", E, f"the guest uses Hyper-V's {name}")
        for name in ("synic", "stimer", "vapic", "crash", "reenlightenment")
    ),
)


def unwritten(accelerator: str, cpu: Device, apic: Device | None) -> Iterator[Unwritten]:
    """Yield the state of a vCPU and its APIC that QEMU does not write to a partition and that is not in reset state."""
    for row in _ROWS:
        device = apic if row.apic else cpu
        if accelerator in row.accelerators and device is not None:
            value = device.word(row.path)
            if value is not None and row.used(value):
                yield Unwritten(device, row.path, row.what.format(value), row.severity)
    for accelerators, path, severity, what in _SUBSECTIONS:
        if accelerator in accelerators and cpu.subsection(path) is not None:
            yield Unwritten(cpu, path, what, severity)
