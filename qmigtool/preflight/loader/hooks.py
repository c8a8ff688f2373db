"""Checks of devices after their section is read (``post_load``), as far as they depend on the section and RAM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qmigtool.devices.blocknames import main_blocks
from qmigtool.parsers.globalstate import RUN_STATE, RUN_STATES, run_state_name
from qmigtool.preflight.loader import armregisters, virtiomem
from qmigtool.preflight.loader.armregisters import COUNT, OWN, compare_registers
from qmigtool.preflight.loader.state import signed
from qmigtool.x86.registers import HFLAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qmigtool.preflight.loader.state import Load

__all__ = ["HOOKS", "PLACED", "RECORDED"]

VAPIC_INACTIVE = 0
ROM_BLOCK_SIZE = 512
ROM_SIGNATURE = b"\x55\xaa"
LSR_TEMT = 0x40
HOST_PAGE = 4096
AHCI_MAX_CMDS = 32

_WORD64 = (1 << 64) - 1
# fw_cfg's field with the size of a table -> the RAM block of the table
_TABLES = {
    "table_mr_size": "/rom@etc/acpi/tables",
    "linker_mr_size": "/rom@etc/table-loader",
    "rsdp_mr_size": "/rom@etc/acpi/rsdp",
}
_NCQ_FIELDS = ("used", "halt", "cmd", "slot", "tag")
_NCQ_COMMANDS = (0x60, 0x61, 0x63, 0x64, 0x65)  # is_ncq in hw/ide/ahci.c
_NCQ_BAD, _PORT_BAD = "a command is wrong", "a port is wrong"  # keys of values: errors found in inner structures

Values = dict[str, Any]


def _cpu(load: Load, values: Values, hook: Mapping[str, Any], instance: int) -> None:
    if COUNT in values:
        compare_registers(load, values, hook, instance)
        return
    if values.get("env.fpregs_format_vmstate"):
        raise load.refuse("non-softfloat", **hook)
    if values.get(HFLAGS.path, 0) & HFLAGS["GUEST"] and not any(name.startswith("cpu/nested_state") for name in values):
        raise load.refuse("guest-mode", **hook)
    received, asked = values.get("cpu/tsc_khz/env.tsc_khz"), load.target.tsc_khz
    if received and asked and received != asked:
        raise load.refuse("tsc-frequency", **hook)


def _globalstate(load: Load, values: Values, hook: Mapping[str, Any], instance: int) -> None:
    text = values.get(RUN_STATE)
    if isinstance(text, bytes):
        name = run_state_name(text)
        if name not in RUN_STATES:
            raise load.refuse("runstate", received=name, **hook)


def _vapic(load: Load, values: Values, hook: Mapping[str, Any], instance: int) -> None:
    """Check that the option ROM that patches accesses to the TPR is in main memory, with its size in its third byte.

    ``vapic_post_load``, ``vapic_map_rom_writable`` in hw/i386/vapic.c.
    """
    address = values.get("rom_state_paddr", 0)
    if values.get("state", VAPIC_INACTIVE) == VAPIC_INACTIVE and not address:
        return
    place = (address & ~(ROM_BLOCK_SIZE - 1)) + 2
    blocks = main_blocks(block.idstr for block in load.ram.state.blocks)
    takes = {block: _has_rom(load, block, place) for block in blocks}
    if set(takes.values()) == {False}:
        raise load.refuse("hook", **hook)
    if set(takes.values()) == {True}:
        return
    if sum(_has_signature(load, block, place - 2) for block in blocks) == 1:
        return  # only the block that is low memory contains it
    what, label = f"whether the option ROM that patches the TPR is at {address:#x}", f"kvm-tpr-opt@{instance}"
    if len(blocks) == 1:
        shared = "x-ignore-shared" in load.capabilities
        who = "the shared memory decides" if shared else "the other channels of the stream (--channel) decide"
        load.doubt(f"{what}: the file does not contain {blocks[0]} there; {who} it", label)
    else:
        load.doubt(f"{what}: it depends on which block is low memory ({', '.join(blocks) or 'none is known'})", label)


def _has_signature(load: Load, block: str, place: int) -> bool:
    if place + len(ROM_SIGNATURE) > (load.ram.length(block) or 0):
        return False
    return load.memory.read(block, place, len(ROM_SIGNATURE)) == ROM_SIGNATURE


def _has_rom(load: Load, block: str, place: int) -> bool | None:
    """Return whether a ROM's size is at ``place`` of a block; None if the file does not contain it."""
    if place >= (load.ram.length(block) or 0):
        return False
    found = load.memory.read(block, place, 1)
    return None if found is None else found != b"\0"


def _serial(load: Load, values: Values, hook: Mapping[str, Any], instance: int) -> None:
    """Check that the transmitter is empty (LSR.TEMT) or retries: ``serial_post_load`` in hw/char/serial.c."""
    status = values.pop("lsr", values.pop("serial/lsr", None))
    retry = values.pop("serial/tsr/tsr_retry", 0)
    if status is None:
        return  # the device around the registers, which have been checked
    empty = bool(status & LSR_TEMT)
    if bool(retry) is empty:
        text = f"tsr empty, tsr_retry={signed(retry)}" if empty else "tsr not empty, tsr_retry=0"
        raise load.refuse("serial-transmitter", text=text, **hook)


def _fw_cfg_sizes(load: Load, values: Values, hook: Mapping[str, Any], instance: int) -> None:
    """Check the size of ACPI tables: QEMU resizes their RAM blocks, and aborts if it cannot (hw/nvram/fw_cfg.c)."""
    for name, idstr in _TABLES.items():
        block = (load.target.blocks or {}).get(idstr)
        size = -(-values.get(f"fw_cfg/acpi_mr/{name}", 0) // HOST_PAGE) * HOST_PAGE & _WORD64
        if block is not None and block.max_length is not None and size > block.max_length:
            raise load.refuse("fw-cfg-resize", block=idstr, received=size, local=block.max_length)


def _ncq(load: Load, values: Values, hook: Mapping[str, Any], instance: int) -> None:
    """Check that an NCQ command is in use if and only if it waits, and then is valid and in its own slot."""
    used, halt, command, slot, tag = (values.get(f"ncq state/{name}", 0) for name in _NCQ_FIELDS)
    if bool(used) != bool(halt) or (halt and (command not in _NCQ_COMMANDS or slot != tag)):
        values[_NCQ_BAD] = True
    elif halt:
        load.doubt("ahci: whether the commands that the ports wait for are at their addresses: guest memory decides it")


def _ahci_port(load: Load, values: Values, hook: Mapping[str, Any], instance: int) -> None:
    command, busy = values.get("ahci port/port_regs.cmd", 0), values.get("ahci port/busy_slot", -1)
    bad = values.pop(_NCQ_BAD, False) or not -1 <= busy < AHCI_MAX_CMDS
    for start, running, engine in ((1 << 0, 1 << 15, "DMA"), (1 << 4, 1 << 14, "FIS RX")):
        if command & running and not command & start:
            values.setdefault(
                _PORT_BAD, f"AHCI: {engine} engine should be off, but status bit indicates it is still running."
            )
    if bad:
        values.setdefault(_PORT_BAD, "")


def _ahci(load: Load, values: Values, hook: Mapping[str, Any], instance: int) -> None:
    """Refuse the first invalid port (``ahci_state_post_load`` in hw/ide/ahci.c)."""
    text = values.pop(_PORT_BAD, None)
    if text is not None:
        raise load.refuse("ahci-engine" if text else "hook", text=text, **hook)


def _virtio_mem(load: Load, values: Values, hook: Mapping[str, Any], instance: int) -> None:
    """Compare the numbers that have just been read with the target's, which were stored with them."""
    names = [f"{virtiomem.VMSD}/{name}" for name in virtiomem.FIELDS]
    own = [values.get(OWN + name) for name in virtiomem.FIELDS]
    if all(name in values for name in names) and all(own):
        received = tuple(values[name] for name in names)
        mine = virtiomem.numbers(b"".join(filter(None, own)))
        virtiomem.compare_memory(load, received, mine, load.cursor.pos - virtiomem.SIZE, hook)


HOOKS: dict[str, Callable[[Load, Values, Mapping[str, Any], int], None]] = {
    "cpu": _cpu,
    "globalstate": _globalstate,
    "kvm-tpr-opt": _vapic,
    "serial": _serial,
    "fw_cfg/acpi_mr": _fw_cfg_sizes,
    "ncq state": _ncq,
    "ahci port": _ahci_port,
    "ahci": _ahci,
    virtiomem.VMSD: _virtio_mem,
}

LISTED = armregisters.LISTED | {(virtiomem.VMSD, name) for name in virtiomem.FIELDS}
"""(vmsd, field) whose value in the target's body is stored, too, under a name that begins with :data:`OWN`."""
PLACED = frozenset({"segment", "mtrr_var"})
"""Structs that occur several times: their fields are stored by path."""
RECORDED = PLACED | frozenset(
    {
        *("cpu", "cpu/tsc_khz", "cpu/nested_state", "globalstate", "kvm-tpr-opt", "hpet", "ide_drive"),
        *("serial", "serial/tsr", "fw_cfg/acpi_mr", "ncq state", "ahci port"),
        *("tpm-emulator", "dbus-vmstate", "vmxnet3", "spapr_tce_table", "spapr_pci", "pciespscsi", "sysbusespscsi"),
        *("uefi-vars", "uefi-variable", "uefi-variable-digest", "uefi-var-policy"),
        *("spapr_event_log_entry", "vmbus/vmbus_chan_req"),
        virtiomem.VMSD,
    }
)
"""The vmsds whose plain fields are stored while they are read: those of hooks, and the counts of arrays."""
