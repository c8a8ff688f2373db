"""The names of machine types: a family, a version and a vendor."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ALIASES", "UNVERSIONED", "VERSIONED", "MachineType", "is_x86_machine", "machine_type"]

ALIASES = {"pc": "pc-i440fx", "q35": "pc-q35", "s390-ccw-virtio": "s390-ccw-virtio", "pseries": "pseries"}
"""Alias (``-M help``) -> the family; it stands for the machine type of the QEMU version."""
UNVERSIONED = ("microvm", "isapc")
"""Not aliases: these names are in the stream."""
VERSIONED = frozenset({"pc", "pc-i440fx", "pc-q35", "virt", "s390-ccw-virtio", "pseries"})
"""Families whose machine types have QEMU's versions."""

_NAME = re.compile(
    r"(?P<family>.+?)-(?P<vendor>rhel-?)?(?P<version>[0-9]{1,3}(?:\.[0-9]{1,3}){1,2})(?P<suffix>\+pve[0-9]{1,2})?"
)
_X86 = re.compile(r"(?:pc|q35|isapc|microvm|xenfv|xenpv|nitro-enclave)(?:-.+)?")


class MachineType(NamedTuple):
    """A name in its parts: ``pc-q35-rhel8.6.0`` is (``pc-q35``, (8, 6, 0), ``rhel``). ``vendor`` is "" upstream."""

    family: str
    version: tuple[int, ...]
    vendor: str = ""

    @property
    def release(self) -> tuple[int, int]:
        """The first two numbers of the version."""
        return self.version[0], self.version[1]


def machine_type(name: str) -> MachineType | None:
    """Return the parts of a name that ends with a version, or None."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    vendor = "rhel" if match["vendor"] else "pve" if match["suffix"] else ""
    return MachineType(match["family"], tuple(map(int, match["version"].split("."))), vendor)


def is_x86_machine(name: str) -> bool:
    """Whether a machine type is one of QEMU's x86 machines."""
    return _X86.fullmatch(name) is not None
