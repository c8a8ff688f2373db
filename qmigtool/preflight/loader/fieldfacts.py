"""What no description says of fields: facts of single devices, from QEMU's source, each with its place there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmigtool.parsers.vmdesc import Description

FIXED = frozenset(
    {
        *("bool", "buffer", "unused_buffer", "bitmap", "pci config", "pci irq state", "msix state", "shpc"),
        *("float64",),
    }
)
"""The types whose length is the field's, beside the integers; of everything else only the device knows it."""

LOOKED_AT = frozenset({"pci config", "pci irq state", "nullptr"})
"""The types whose values are checked while they are read, beside those whose name ends with equal or le."""

LISTS = ("qtailq", "qlist")

COUNTED = {("hpet", "timer"): "num_timers"}
"""(vmsd, array) -> the earlier field that has its length: what is received decides (hw/timer/hpet.c, up to 9.2)."""

VALIDATED = {
    ("hpet", "num_timers"): "num_timers must match",
    ("hpet", "num_timers_save"): "num_timers must match",
}
"""(vmsd, field) -> the name of the check that it equals the target's."""
VALIDATES = (10, 0)
"""The first version that has these checks."""

CONDITIONAL = {"ide_drive": ("identify_set", "identify_data", 512)}
"""vmsd -> (field that tells, field that is there if that is not 0, its bytes).

Of all fields with a condition this is the one that depends on what the guest has done (hw/ide/core.c). The others
depend on the machine, and then the target's own body has them or has them not.
"""

PER_VCPU = {("CPU hotplug state", "devs")}
"""(vmsd, array) with an element for each vCPU that the target can have (hw/acpi/cpu.c)."""

SINCE = {
    "cpu": {"env.xcr0": 12, "env.xstate_bv": 12, "env.xmm_regs[1]": 12},
    "i8254": {"channels[0].irq_disabled": 3},
}
"""vmsd -> field -> the version of the body from which on it is there, for want of a table of the target.

Unchanged from 5.2 to 11.1 (target/i386/machine.c, hw/timer/i8254_common.c).
"""

_TWICE = {("PCIDevice", "config")}  # under conditions that exclude each other: of 256 and of 4096 bytes


def plain_name(name: str, description: Description) -> str:
    """Return a field's own name: where several of one vmsd have the same, the vmdesc numbers them."""
    base, bracket, number = name.rpartition("[")
    if not bracket or not number[:-1].isdigit():
        return name
    names = {entry.name for entry in description.fields}
    return base if (description.name, base) in _TWICE or {f"{base}[0]", f"{base}[1]"} <= names else name
