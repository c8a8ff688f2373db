"""What a field holds that was not sent: the value for which QEMU leaves its subsection out.

A subsection is sent when its ``needed`` function says so (QEMU: ``migration/vmstate.c``), and that is nearly always
"when the value is not the one that a reset gives": zero but for the few below. The source of each is named.
"""

from __future__ import annotations

from typing import Any

from qmigtool.devices.schema.cpusubsections import CPU_SUBSECTIONS

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
