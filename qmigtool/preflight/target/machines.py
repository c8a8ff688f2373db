"""Names of machine types: QEMU never writes an alias such as ``pc`` into a stream, but the name of the newest one."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from qmigtool.devices.machinetypes import ALIASES, UNVERSIONED, VERSIONED, is_x86_machine, machine_type
from qmigtool.errors import UsageError
from qmigtool.x86.lapic import LAPIC
from qmigtool.x86.traits import KVM

if TYPE_CHECKING:
    from qmigtool.preflight.target.model import Target

__all__ = ["is_machine", "is_x86", "resolve"]

DEVELOPMENT = 50  # micro versions from here on are development versions of the next release


def is_x86(target: Target) -> bool | None:
    """Return whether a target is an x86 machine, by its machine type and its sections; None if neither is known."""
    if target.sections is not None and any(name in (LAPIC, *KVM.sections) for name, _ in target.sections):
        return True
    if target.machine is not None:
        return is_x86_machine(target.machine)
    return None


def is_machine(word: str) -> bool:
    """Whether a word is the name of a machine type, or an alias of one."""
    found = machine_type(word)
    known = found is not None and found.family in VERSIONED and found.vendor != "pve"
    return known or word in ALIASES or word in UNVERSIONED


def resolve(machine: str, qemu: tuple[int, ...] | None, seen: Collection[str]) -> str:
    """Return the machine type that a name denotes in a QEMU of this version.

    Without a version it is the one of the same family in ``seen``, the machine types of the target's files. Raises
    :class:`~qmigtool.errors.UsageError` for an alias that neither resolves.
    """
    shown = [one for one in seen if (found := machine_type(one)) and found.family == ALIASES.get(machine, machine)]
    if machine in ALIASES and qemu is not None:
        return f"{ALIASES[machine]}-{'.'.join(map(str, _release(qemu)))}"
    if shown:
        return shown[-1]  # such as virt, which is an alias on Arm and a machine type on RISC-V
    if machine in ALIASES:
        raise UsageError(
            f"the machine type {machine!r} is an alias whose meaning depends on QEMU's version",
            expected=f'{ALIASES[machine]}-X.Y, or the version: qemu = "7.2", or --target 7.2',
        )
    return machine


def _release(version: tuple[int, ...]) -> tuple[int, int]:
    """Return the release whose machine types a version has: 10.0.50 has those of 10.1, 10.2.50 those of 11.0."""
    major, minor = version[0], version[1]
    if len(version) > 2 and version[2] >= DEVELOPMENT:
        return (major, minor + 1) if minor < 2 else (major + 1, 0)
    return major, minor
