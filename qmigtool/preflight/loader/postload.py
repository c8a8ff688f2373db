"""What KVM is given once all is loaded (``cpu_synchronize_all_post_init``), and what comes of what it refuses of it.

10.0 and later end with a text at the first group of registers that is refused. 7.2 says nothing and goes on with the
next vCPU: that group and every later one keep what they had at reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qmigtool.kvm import Group, lost_with, refusals

if TYPE_CHECKING:
    from qmigtool.kvm import Number
    from qmigtool.preflight.loader.state import Load

__all__ = ["put_registers"]

SILENT = (7, 2)
RULES = {
    Group.SREGS: "kvm-sregs",
    Group.XSAVE: "kvm-xsave",
    Group.XCRS: "kvm-xcr0",
    Group.MSRS: "kvm-msr",
    Group.MP_STATE: "kvm-mp-state",
}


def put_registers(load: Load) -> None:
    """Put every vCPU's registers; raises :class:`~.words.Refusal` where QEMU ends.

    Only KVM is known: what MSHV or WHPX refuse, no QEMU has shown.
    """
    if load.target.accelerator != "kvm":
        return
    if load.registers and load.target.xcr0 is None:
        load.miss("the XCR0 that the target's vCPUs may have: XSTATE_BV and XCR0 were not compared with it")
    for instance, values in sorted(load.registers.items()):
        label = f"cpu@{instance}"
        for found in refusals(_numbers(values), load.target.xcr0):
            if not found.certain:
                load.miss(f"{label}: whether the target's host takes it: {found.why}")
                continue
            words = dict(zip(("msr", "value"), found.msr or (), strict=False))
            refusal = load.refuse(RULES[found.group], None, label, **words)
            if load.words.family != SILENT or refusal.reports:
                raise refusal
            load.note(f"{label}: {found.why}; KVM refuses it, QEMU 7.2 says nothing and drops {lost_with(found.group)}")
            break


def _numbers(values: dict[str, Any]) -> Number:
    """Return a function from the path of a field to its number; arrays of 64-bit numbers are kept as bytes."""

    def number(path: str) -> int | None:
        value = values.get(path)
        if value is None and path.endswith("]"):
            base, _, index = path[:-1].rpartition("[")
            array, at = values.get(base), 8 * int(index)
            return int.from_bytes(array[at : at + 8], "big") if isinstance(array, bytes) else None
        return value if isinstance(value, int) else None

    return number
