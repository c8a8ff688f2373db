"""The registers that KVM is given after everything is loaded (``cpu_synchronize_all_post_init``), and its refusals.

10.0 and later end with an error at the first group of registers that is refused. 7.2 continues silently with the next
vCPU: that group and every later one keep their reset values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qmigtool.x86.kvm import Group, lost_with, refusals
from qmigtool.x86.traits import traits_of
from qmigtool.xsave import mask_names

if TYPE_CHECKING:
    from qmigtool.preflight.loader.state import Load
    from qmigtool.x86.kvm import KvmRefusal, Number

__all__ = ["NOT_SILENT", "put_registers"]

NOT_SILENT = (8, 2)
"""The first version that is known to end if KVM refuses a group of registers."""
RULES = {
    Group.SREGS: "kvm-sregs",
    Group.XSAVE: "kvm-xsave",
    Group.XCRS: "kvm-xcr0",
    Group.MSRS: "kvm-msr",
    Group.MP_STATE: "kvm-mp-state",
}


def put_registers(load: Load) -> None:
    """Set every vCPU's registers; raises :class:`~.words.Refusal` if QEMU ends.

    Only KVM is known: no test has shown what MSHV or WHPX refuse.
    """
    accelerator = load.target.accelerator
    for instance, values in sorted(load.registers.items()):
        label, number = f"cpu@{instance}", _numbers(values)
        found = list(refusals(number, load.target.xcr0))
        if accelerator is None and found:
            load.doubt(f"{found[0].why}: KVM would refuse it; the target's accelerator decides it", label)
        if traits_of(accelerator).kernel:
            _components(load, label, number)
            _refuse(load, label, found)


def _components(load: Load, label: str, number: Number) -> None:
    """Doubt that the host has the components that the vCPU has enabled, if the host's components are not known."""
    lacking = load.target.unknown_components((number("env.xcr0") or 0) | (number("env.xstate_bv") or 0))
    if lacking and load.since(NOT_SILENT):
        names = " ".join(mask_names(lacking))
        load.doubt(f"whether the host has {names}: a CPUID dump, a CPU model or a layout decides it", label)


def _refuse(load: Load, label: str, refused: list[KvmRefusal]) -> None:
    for found in refused:
        if not found.certain:
            load.doubt(f"{found.why}: some hosts accept it; the target's KVM decides it", label)
            continue
        words = dict(zip(("msr", "value"), found.msr or (), strict=False))
        refusal = load.refuse(RULES[found.group], None, label, **words)
        if load.since(NOT_SILENT) or refusal.reports:
            raise refusal
        load.note(f"{found.why}; KVM refuses it, QEMU 7.2 silently drops {lost_with(found.group)}", label)
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
