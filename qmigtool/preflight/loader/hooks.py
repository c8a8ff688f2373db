"""What devices check once their section is read (``post_load``), as far as the section and RAM decide it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qmigtool.parsers.globalstate import RUN_STATE, RUN_STATES, run_state_name
from qmigtool.preflight.loader.ramblocks import LOW, PACKED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qmigtool.preflight.loader.state import Load

__all__ = ["HOOKS", "RECORDED"]

HF_GUEST = 1 << 21  # target/i386/cpu.h: the vCPU runs a nested guest
VAPIC_INACTIVE = 0
ROM_BLOCK_SIZE = 512

Values = dict[str, Any]


def _cpu(load: Load, values: Values, hook: Mapping[str, Any], instance: int) -> None:
    if values.get("env.fpregs_format_vmstate"):
        raise load.refuse("non-softfloat", **hook)
    if values.get("env.hflags", 0) & HF_GUEST and not any(name.startswith("cpu/nested_state") for name in values):
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
    """The option ROM that patches accesses to the TPR must lie in main memory already, with its size in its third byte.

    ``vapic_post_load``, ``vapic_map_rom_writable`` in hw/i386/vapic.c.
    """
    address = values.get("rom_state_paddr", 0)
    if values.get("state", VAPIC_INACTIVE) == VAPIC_INACTIVE and not address:
        return
    if load.capabilities or load.postcopy:
        return  # memory comes in other ways than by records
    main = load.ram.main()
    size = load.ram.length(main) if main is not None else None
    place = (address & ~(ROM_BLOCK_SIZE - 1)) + 2
    if main is None or size is None:
        return
    if place >= size:
        raise load.refuse("hook", **hook)
    page, offset = divmod(place, load.ram.page_size)
    at = load.ram.low.get((main, page))
    if place >= LOW or at == PACKED:
        load.miss(f"the option ROM that patches the TPR, at {address:#x}")
        return
    if at is None or not load.cursor.data[at + offset]:
        raise load.refuse("hook", **hook)


HOOKS: dict[str, Callable[[Load, Values, Mapping[str, Any], int], None]] = {
    "cpu": _cpu,
    "globalstate": _globalstate,
    "kvm-tpr-opt": _vapic,
}

RECORDED = frozenset({"cpu", "cpu/tsc_khz", "cpu/nested_state", "globalstate", "kvm-tpr-opt", "hpet", "ide_drive"})
"""The vmsds whose plain fields are kept while they are read: those of hooks, and what counts an array."""
