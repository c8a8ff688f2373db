"""What KVM is given once all is loaded (``cpu_synchronize_all_post_init``), and what of it the kernel refuses.

10.0 and later end with a text at the first group of registers that is refused. 7.2 says nothing and goes on with the
next vCPU: that group and every later one keep what they had at reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from qmigtool.preflight.loader.state import Load

__all__ = ["put_registers"]

X87, SSE, AVX, MPX, AVX512, AMX = 1, 2, 4, 0x18, 0xE0, 0x60000
CR0_PE, CR0_NW, CR0_CD, CR0_PG = 1, 1 << 29, 1 << 30, 1 << 31
CR4_DEFINED = (1 << 33) - 1  # FRED is bit 32, and nothing is above it
MXCSR_DEFINED = 0x2FFFF  # bit 17 on AMD only
MP_STATE_LAST = 9  # KVM_MP_STATE_AP_RESET_HOLD
MSR_KERNEL_GS_BASE, MSR_LSTAR, MSR_CSTAR = 0xC0000102, 0xC0000082, 0xC0000083
SILENT = (7, 2)

Values = dict[str, Any]


class _Group(NamedTuple):
    """A group of registers, in the order in which they are put; ``wrong`` gives the values of its text, or None."""

    rule: str
    what: str
    wrong: Callable[[Load, Values], dict[str, Any] | None]


def put_registers(load: Load) -> None:
    """Put every vCPU's registers; raises :class:`~.words.Refusal` where QEMU ends.

    Only KVM is known: what MSHV or WHPX refuse, no QEMU has shown.
    """
    if load.target.accelerator != "kvm":
        return
    for instance, values in sorted(load.registers.items()):
        for index, group in enumerate(_GROUPS):
            found = group.wrong(load, values)
            if found is None:
                continue
            refusal = load.refuse(group.rule, None, f"cpu@{instance}", **found)
            if load.words.family == SILENT and not refusal.reports:
                lost = ", ".join(one.what for one in _GROUPS[index:])
                load.note(f"cpu@{instance}: KVM refuses {group.what}; QEMU 7.2 says nothing and drops {lost}")
                break
            raise refusal


def _sregs(load: Load, values: Values) -> dict[str, Any] | None:
    cr0, cr4 = values.get("env.cr[0]", 0), values.get("env.cr[4]", 0)
    bad = cr0 >> 32 or (cr0 & CR0_PG and not cr0 & CR0_PE) or (cr0 & CR0_NW and not cr0 & CR0_CD)
    return {} if bad or cr4 & ~CR4_DEFINED else None


def _xsave(load: Load, values: Values) -> dict[str, Any] | None:
    mask, features = load.target.xcr0, values.get("env.xstate_bv", 0)
    if mask is None:
        load.miss("the XCR0 that the target's vCPUs may have: XSTATE_BV and XCR0 were not compared with it")
    elif features & ~mask:
        return {}
    mxcsr = values.get("env.mxcsr", 0)
    return {} if features & (SSE | AVX) and mxcsr & ~MXCSR_DEFINED else None


def _xcr0(load: Load, values: Values) -> dict[str, Any] | None:
    xcr0, mask = values.get("env.xcr0"), load.target.xcr0
    if xcr0 is None:
        return None
    bad = not xcr0 & X87 or (xcr0 & AVX and not xcr0 & SSE) or (mask is not None and xcr0 & ~mask)
    for group in (MPX, AVX512, AMX):
        bad = bad or xcr0 & group not in (0, group)
    return {} if bad or (xcr0 & AVX512 and not xcr0 & AVX) else None


def _msrs(load: Load, values: Values) -> dict[str, Any] | None:
    for msr, name in ((MSR_CSTAR, "env.cstar"), (MSR_KERNEL_GS_BASE, "env.kernelgsbase"), (MSR_LSTAR, "env.lstar")):
        value = values.get(name, 0)
        if value + (1 << 47) & ((1 << 64) - 1) >= 1 << 48:  # not canonical with 48 bits; with 57 it may be
            if value + (1 << 56) & ((1 << 64) - 1) < 1 << 57:
                load.miss(f"whether the target's CPU has 57-bit addresses: {name} is {value:#x}")
                continue
            return {"msr": msr, "value": value}
    return None


def _mp_state(load: Load, values: Values) -> dict[str, Any] | None:
    return {} if values.get("env.mp_state", 0) > MP_STATE_LAST else None


_GROUPS = (
    _Group("kvm-sregs", "the special registers", _sregs),
    _Group("kvm-xsave", "the XSAVE state", _xsave),
    _Group("kvm-xcr0", "XCR0", _xcr0),
    _Group("kvm-msr", "the MSRs and events", _msrs),
    _Group("kvm-mp-state", "mp_state", _mp_state),
)
