"""Options of the target's QEMU that a remedy may use (:mod:`qmigtool.preflight.target.offers`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qmigtool.preflight.target import offers
from qmigtool.rewrite.vendors import upstream

if TYPE_CHECKING:
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream.model import Stream

__all__ = ["has_property", "offered"]

X86 = "x86_64"
DEVELOPMENT = 50  # the third number of a development version, which already has the next release's machine types
_VERSIONED = re.compile(r".+-(\d{1,2})\.(\d{1,2})")
OTHERS = ("aarch64", "riscv64", "s390x", "ppc64", "sparc", "sparc64", "mips64el", "loongarch64")


def offered(target: Target, stream: Stream, machine: str) -> bool | None:
    """Return whether the target's QEMU has a machine type; None if that is not known."""
    if _newer(machine, target):
        return False
    if stream.vcpus:
        return offers.offers_machine(target.qemu, machine, X86)
    answers = {offers.offers_machine(target.qemu, machine, one) for one in OTHERS}
    return True if True in answers else None if None in answers else False


def _newer(machine: str, target: Target) -> bool:
    """Return whether a machine type of any architecture is named after a later version than the target's QEMU."""
    named = _VERSIONED.fullmatch(machine)
    if named is None or target.qemu is None or upstream(machine) is not None:
        return False
    version = tuple(map(int, named.groups()))
    return version > target.qemu[:2] and not any(number >= DEVELOPMENT for number in target.qemu[2:])


def has_property(target: Target, device: str, name: str) -> bool | None:
    """Return whether a device of the target has a property; None if that is not known."""
    return offers.device_property(target.qemu, device, name, X86)
