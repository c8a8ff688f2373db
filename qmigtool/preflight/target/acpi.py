"""The maximum number of vCPUs of a machine, from the ACPI tables that QEMU built for it: a RAM block of a reference.

The MADT has an entry for every possible vCPU, plugged or not (hw/i386/acpi-common.c, ``acpi_build_madt``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.errors import QmigError

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream

__all__ = ["maxcpus_of"]

TABLES = "/rom@etc/acpi/tables"
MAX_TABLES = 2 << 20  # bytes; QEMU makes the block no larger
MADT, OEM = b"APIC", b"BOCHS "
OEM_AT, ENTRIES_AT = 10, 44
LOCAL_APIC, LOCAL_X2APIC = 0, 9


def maxcpus_of(stream: Stream) -> int | None:
    """Return the maximum number of vCPUs of the machine that saved a stream, or None if it has no ACPI tables."""
    size = next((block.used_length for block in stream.ram_blocks if block.idstr == TABLES), 0)
    if not 0 < size <= MAX_TABLES:
        return None
    try:
        data = stream.ram.read(TABLES, 0, size)
    except QmigError:
        return None
    at = data.find(MADT)
    while at >= 0:
        if data[at + OEM_AT : at + OEM_AT + len(OEM)] == OEM:
            return _vcpus(data[at : at + int.from_bytes(data[at + 4 : at + 8], "little")])
        at = data.find(MADT, at + 1)
    return None


def _vcpus(table: bytes) -> int | None:
    at, found = ENTRIES_AT, 0
    while at + 2 <= len(table) and table[at + 1]:
        found += table[at] in (LOCAL_APIC, LOCAL_X2APIC)
        at += table[at + 1]
    return found or None
