"""Facts about fields of single devices that no description contains, each with its place in QEMU's source."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qmigtool.parsers.vmdesc import Description

FIXED = frozenset(
    {
        *("bool", "buffer", "unused_buffer", "bitmap", "pci config", "pci irq state", "msix state", "shpc"),
        *("float64", "CPU_Double_U", "uint16_from_uint8", "int32_as_uint16", "tlb entry", "tlb_entry"),
        *("cpsr", "fpscr", "fpsr", "fpcr", "powered_off", "psr", "fsr", "xcc", "msr", "sr", "psw"),
        *("fpr", "avr", "vsr", "slbe", "cpu/altivec/vscr"),
        *("sreg", "rampD", "rampX", "rampY", "rampZ", "eind"),
    }
)
"""The types whose length is that of the field, in addition to the integers; others are known only to the device.

Those after the first line are registers that a CPU saves by its own function (``VMStateInfo`` in target/*/machine.c):
their length is the same in every stream.
"""

LOOKED_AT = frozenset({"pci config", "pci irq state", "nullptr"})
"""The types whose values are checked while they are read, and those whose name ends with equal or le."""

LISTS = ("qtailq", "qlist")

COUNTED: Mapping[tuple[str, str], str] = {
    ("hpet", "timer"): "num_timers",
    ("cpu", "cpreg_vmstate_indexes"): "cpreg_vmstate_array_len",
    ("cpu", "cpreg_vmstate_values"): "cpreg_vmstate_array_len",
    ("spapr_tce_table", "mig_table"): "mig_nb_table",
    ("spapr_pci", "msi_devs"): "msi_devs_num",
}
"""(vmsd, array) -> the earlier field with its length: the received value decides (VMSTATE_VARRAY of what is sent).

hw/timer/hpet.c up to 9.2, target/arm/machine.c, hw/ppc/spapr_iommu.c, hw/ppc/spapr_pci.c.
"""
COUNTED_BEFORE: Mapping[tuple[str, str], tuple[int, int]] = {("hpet", "timer"): (10, 0)}
"""(vmsd, array) of COUNTED -> the first version in which the target's count decides."""

SIZED: Mapping[tuple[str, str], str] = {
    ("tpm-emulator", "state_blobs.permanent.buffer"): "state_blobs.permanent.size",
    ("tpm-emulator", "state_blobs.volatil.buffer"): "state_blobs.volatil.size",
    ("tpm-emulator", "state_blobs.savestate.buffer"): "state_blobs.savestate.size",
    ("dbus-vmstate", "data"): "data_size",
    ("vmxnet3/mcast_list", "mcast_list"): "mcast_list_buff_size",
    ("uefi-vars", "pio_xfer_buffer"): "buf_size",
    ("uefi-variable", "name"): "name_size",
    ("uefi-variable", "data"): "data_size",
    ("uefi-variable-digest", "digest"): "digest_size",
    ("uefi-var-policy", "entry"): "entry_size",
    ("spapr_event_log_entry", "extended_log"): "extended_length",
    ("vmbus/vmbus_chan_req", "msg"): "msglen",
}
"""(vmsd, buffer) -> the earlier field with its size in bytes (VMSTATE_VBUFFER of a size that is sent).

This matters most in an element of a list: the target's body shows the length of one element only.
"""

ALIKE = frozenset({("globalstate", "runstate")})
"""(vmsd, field) whose length changed with a version together with the fields after it: the total length is equal."""

OWN_COUNTED = frozenset(
    {("memory hotplug state", "devs"), ("ahci", "dev"), ("xhci", "ports"), ("xhci", "slots"), ("xhci-core", "ports")}
)
"""(vmsd, array) whose number of elements depends on the target's options."""

VALIDATED = {
    ("hpet", "num_timers"): "num_timers must match",
    ("hpet", "num_timers_save"): "num_timers must match",
}
"""(vmsd, field) -> the name of the check that the field equals the target's."""
VALIDATES = (10, 0)
"""The first version that has these checks."""

CONDITIONAL = {"ide_drive": ("identify_set", "identify_data", 512)}
"""vmsd -> (flag field, field that is sent if the flag is not 0, its size in bytes).

This is the only conditional field that depends on the guest (hw/ide/core.c). The others depend on the machine, and then
the target's body shows whether they are sent.
"""

NOT_ALWAYS_SENT = frozenset({"audio", "pcspk", "smbus-eeprom"})
"""Sections that a target may have registered but does not send: their vmsd has a condition (``needed``).

audio/audio.c, hw/audio/pcspk.c, hw/i2c/smbus_eeprom.c.
"""
AUDIO = "audio"
SOUND = frozenset(
    {"ac97", "es1370", "sb16", "gus", "cs4231a", "adlib", "hda-audio", "intel-hda", "usb-audio", "virtio-sound-device"}
)
"""The vmsds of devices whose backend registers ``audio``."""

PER_VCPU = {("CPU hotplug state", "devs")}
"""(vmsd, array) with an element for each possible vCPU of the target, -smp maxcpus= (hw/acpi/cpu.c)."""

SINCE = {
    "cpu": {"env.xcr0": 12, "env.xstate_bv": 12, "env.xmm_regs[1]": 12},
    "i8254": {"channels[0].irq_disabled": 3},
    "pciespscsi": {"esp.mig_version_id": 2},
    "sysbusespscsi": {"esp.mig_version_id": 2},
}
"""vmsd -> field -> the first version of the body that has it, if there is no table of the target.

Unchanged from 5.2 to 11.1 (target/i386/machine.c, hw/timer/i8254_common.c, hw/scsi/esp-pci.c, hw/scsi/esp.c).
"""
X86_ONLY = frozenset({"cpu"})
"""Those of SINCE whose name other targets use for something else."""

_TWICE = {("PCIDevice", "config")}  # with mutually exclusive conditions: of 256 and of 4096 bytes


def plain_name(name: str, description: Description) -> str:
    """Return a field's name in QEMU: the vmdesc numbers fields of one vmsd that have the same name."""
    base, bracket, number = name.rpartition("[")
    if not bracket or not number[:-1].isdigit():
        return name
    names = {entry.name for entry in description.fields}
    return base if (description.name, base) in _TWICE or {f"{base}[0]", f"{base}[1]"} <= names else name
