"""The value of a field that was not sent: the value for which QEMU omits its subsection.

A subsection is sent if its ``needed`` function returns true (QEMU: ``migration/vmstate.c``), nearly always if the value
is not the reset value. That is zero except for the few fields below, each with its source.
"""

from __future__ import annotations

from typing import Any

from qmigtool.devices.schema.cpusection import CPU_SUBSECTIONS

__all__ = ["default_of"]

_DEFAULTS: dict[str, int] = {
    **{f"{one.name}/{path}": value for one in CPU_SUBSECTIONS for path, value in one.defaults.items()},
    "cpu_common/exception_index/exception_index": -1,  # cpu-common: no exception is pending
    "serial/poll/poll_msl": -1,  # hw/char/serial.c: the lines of the host are not polled
    "kbd_outport/outport": 3,  # hw/input/pckbd.c: KBD_OUT_RESET | KBD_OUT_A20
}


def default_of(path: str, value: Any) -> Any:
    """Return the default of the leaf at ``path`` (inside its device), in the type of ``value``."""
    known = _DEFAULTS.get(path)
    if known is not None and isinstance(value, int):
        return known
    if isinstance(value, bytes):
        return bytes(len(value))
    return type(value)()
