"""The registers that QEMU writes to an MSHV vCPU in addition to its XSAVE area: MSRs, and their order.

The order, and what is written only on vCPU 0 or where the partition has the feature, were measured with QEMU 11.1.3 on
a stand-in for /dev/mshv.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from qmigtool.x86.registers import MSRS, MTRRS, MtrrKind

__all__ = ["MSHV_MSRS", "TSC", "VP_STATE_XSAVE", "XFEM", "MshvMsr", "Only"]

TSC = MSRS["TSC"].number


class Only(StrEnum):
    """The condition for QEMU to write an MSR; it always writes the others."""

    VCPU_0 = "vCPU 0"
    FEATURE = "a partition with the feature"


class MshvMsr(NamedTuple):
    """An MSR, its HV_REGISTER_NAME, and the only place where QEMU writes it, if there is one.

    ``number``, ``name`` and ``path`` are those of :data:`qmigtool.x86.registers.MSRS`.
    """

    number: int
    name: str
    path: str
    register: int
    only: Only | None = None


_MTRR_REGISTERS = {
    MtrrKind.DEFAULT: 0x8000E,
    MtrrKind.BASE: 0x80010,
    MtrrKind.MASK: 0x80040,
    MtrrKind.FIXED: 0x80070,
}


def _mtrrs(kind: MtrrKind) -> Iterator[MshvMsr]:
    """Yield the MTRRs of one kind; the HV_REGISTER_NAME of each follows from that of the first."""
    first = _MTRR_REGISTERS[kind]
    return (MshvMsr(one.number, one.name, one.path, first + one.order) for one in MTRRS if one.kind is kind)


XFEM = 0x40005
"""HV_X64_REGISTER_XFEM: XCR0."""

VP_STATE_XSAVE = 1
"""MSHV_VP_STATE_XSAVE of MSHV_SET_VP_STATE."""


def _msr(name: str, register: int, only: Only | None = None) -> MshvMsr:
    return MshvMsr(*MSRS[name], register, only)


MSHV_MSRS: tuple[MshvMsr, ...] = (
    _msr("EFER", 0x80001),
    _msr("PAT", 0x80004),
    _msr("SYSENTER_CS", 0x80005),
    _msr("SYSENTER_ESP", 0x80007),
    _msr("SYSENTER_EIP", 0x80006),
    _msr("STAR", 0x80008),
    _msr("LSTAR", 0x80009),
    _msr("CSTAR", 0x8000A),
    _msr("SFMASK", 0x8000B),
    _msr("KERNEL_GS_BASE", 0x80002),
    _msr("TSC", 0x80000),
    _msr("TSC_AUX", 0x8007B),
    _msr("TSC_ADJUST", 0x80096, Only.FEATURE),
    _msr("HV_HYPERCALL", 0x90001, Only.VCPU_0),
    _msr("HV_GUEST_OS_ID", 0x90002, Only.VCPU_0),
    _msr("HV_REFERENCE_TSC", 0x90017, Only.VCPU_0),
    _msr("HV_SCONTROL", 0xA0010),
    _msr("HV_SIEFP", 0xA0012),
    _msr("HV_SIMP", 0xA0013),
    *_mtrrs(MtrrKind.DEFAULT),
    _msr("U_CET", 0x8008C, Only.FEATURE),
    _msr("S_CET", 0x8008D, Only.FEATURE),
    _msr("PL0_SSP", 0x8008F, Only.FEATURE),
    _msr("PL1_SSP", 0x80090, Only.FEATURE),
    _msr("PL2_SSP", 0x80091, Only.FEATURE),
    _msr("PL3_SSP", 0x80092, Only.FEATURE),
    _msr("INTERRUPT_SSP_TABLE", 0x80093, Only.FEATURE),
    _msr("XSS", 0x8008B, Only.FEATURE),
    _msr("SPEC_CTRL", 0x80084, Only.FEATURE),
    *_mtrrs(MtrrKind.BASE),
    *_mtrrs(MtrrKind.MASK),
    *_mtrrs(MtrrKind.FIXED),
)
"""The MSRs that QEMU 11.1 writes to an MSHV vCPU, in its order. One whose subsection was not sent is 0."""
