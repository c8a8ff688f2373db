"""An Arm vCPU's system registers as the target loads them: by name (``cpu_post_load`` in target/arm/machine.c).

A stream has a list of numbers (KVM's encoding of a register) and one of values. Up to 10.x a target refuses a list that
is longer than its own, and a register that it does not have; since 11.0 it prints the register. Read-only registers
must have the target's value: those that identify the CPU are known here.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qmigtool.preflight.loader.state import Load

__all__ = ["COUNT", "LISTED", "OWN", "compare_registers"]

COUNT, INDEXES, VALUES = "cpreg_vmstate_array_len", "cpreg_vmstate_indexes", "cpreg_vmstate_values"
LISTED = frozenset({("cpu", INDEXES), ("cpu", VALUES)})
"""(vmsd, array) that is stored completely."""
OWN = "own "
"""Prefix of the name under which the target's own array is stored."""

NAMES_THEM = (11, 0)
"""The first version that compares registers by name, not by their number."""
ARM64_SYSREG = 0x0013  # KVM_REG_ARM64_SYSREG >> 16, in bits 16 to 31 of a number as QEMU keeps it
KVM_ARCH, KVM_ARM64 = 0xFF << 56, 0x60 << 56
KVM_SIZE, KVM_U64 = 0xF << 52, 3 << 52
SCTLR_EL3 = 0x603000000013F080
EL3_LOADS = (6, 0), (7, 2)
"""QEMU before the first refuses the registers of a vCPU with EL3 (5.2 even its own), from the second on it does not."""
AA64, NS, WIDE = 1 << 28, 1 << 29, 1 << 15
MISSING = (
    "warning: handle_cpreg_missing_in_incoming_stream: system register {:#x} expected by the destination but not in "
    "the incoming stream: skip it"
)
FOREIGN = (
    "handle_cpreg_only_in_incoming_stream: system register {:#x} in the incoming stream but unknown on the "
    "destination: fail migration"
)
# MIDR to ID_AA64*, then CCSIDR, CLIDR, AIDR, then CTR and DCZID
_READ_ONLY_OP1 = (0, 1, 3)


def compare_registers(load: Load, values: Mapping[str, Any], hook: Mapping[str, Any], instance: int) -> None:
    """Compare the registers of a stream with the target's; raises :class:`~.words.Refusal`."""
    sent, own = _registers(values, ""), _registers(values, OWN)
    if sent is None or own is None:
        load.doubt("the system registers of the target are unknown; a reference stream decides it", f"cpu@{instance}")
        return
    if SCTLR_EL3 in own and not load.since(EL3_LOADS[0]):
        load.note(f"cpu@{instance}: QEMU before 6.0 does not load a vCPU with EL3, not even its own")
        raise load.refuse("hook", **hook)
    if SCTLR_EL3 in own and not load.since(EL3_LOADS[1]):
        load.doubt(
            "whether this QEMU loads a vCPU with EL3 (5.2 does not, 7.2 does): its version decides it",
            f"cpu@{instance}",
        )
    foreign = sorted(sent.keys() - own.keys())
    if (foreign or own.keys() - sent.keys()) and load.since(NAMES_THEM):
        lines = [
            (MISSING if number in own else FOREIGN).format(_id(number)) for number in sorted(sent.keys() ^ own.keys())
        ]
        if foreign:
            raise load.refuse("registers", text="\n".join(lines), **hook)
        load.warnings += lines
    # Earlier versions ignore registers after the target's last one.
    if any(number <= max(own, default=0) for number in foreign):
        raise load.refuse("hook", **hook)
    for number in sorted(sent.keys() & own.keys()):
        if sent[number] != own[number] and _identifies(number):
            load.note(
                f"system register {number:#x} is {sent[number]:#x}, the target's {own[number]:#x}", f"cpu@{instance}"
            )
            raise load.refuse("hook", **hook)


def _registers(values: Mapping[str, Any], prefix: str) -> dict[int, int] | None:
    indexes, contents = values.get(prefix + INDEXES), values.get(prefix + VALUES)
    if not isinstance(indexes, bytes) or not isinstance(contents, bytes) or len(indexes) != len(contents):
        return None
    count = len(indexes) // 8
    form = f">{count}Q"
    return dict(zip(struct.unpack(form, indexes), struct.unpack(form, contents), strict=True))


def _id(number: int) -> int:
    """Return QEMU's own number of a register (``kvm_to_cpreg_id`` in target/arm/cpregs.h)."""
    if number & KVM_ARCH == KVM_ARM64:
        return number & 0xFFFFFFFF | AA64
    return number & 0xFFFFFFFF | NS | (WIDE if number & KVM_SIZE == KVM_U64 else 0)


def _identifies(number: int) -> bool:
    """Return whether a register identifies the CPU and is read-only: op0 3, CRn 0 except op1 2 and 4."""
    if number >> 16 & 0xFFFF != ARM64_SYSREG:
        return False
    op0, op1, crn = number >> 14 & 3, number >> 11 & 7, number >> 7 & 15
    return op0 == 3 and crn == 0 and op1 in _READ_ONLY_OP1
