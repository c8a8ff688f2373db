"""The registers that QEMU writes to an MSHV vCPU in addition to its XSAVE area: MSRs, their fields, their order.

The order, and what is written only on vCPU 0 or where the partition has the feature, were measured with QEMU 11.1.3 on
a stand-in for /dev/mshv.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from qmigtool.x86.registers import EFER, MTRRS, MtrrKind

__all__ = ["MSRS", "TSC", "VP_STATE_XSAVE", "XFEM", "Msr", "Only"]

TSC = 0x10


class Only(StrEnum):
    """The condition for QEMU to write an MSR; it always writes the others."""

    VCPU_0 = "vCPU 0"
    FEATURE = "a partition with the feature"


class Msr(NamedTuple):
    """An MSR, the field of section ``cpu`` with its value, its HV_REGISTER_NAME, and the condition for writing it."""

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


def _mtrrs(kind: MtrrKind) -> Iterator[Msr]:
    """Return the MTRRs of one kind, with HV_REGISTER_NAMEs counted from the first one's."""
    return (Msr(one.number, one.name, one.path, _MTRR_REGISTERS[kind] + one.order) for one in MTRRS if one.kind is kind)


_SHSTK = "cpu/cet/cpu/cet_shstk"

XFEM = 0x40005
"""HV_X64_REGISTER_XFEM: XCR0."""

VP_STATE_XSAVE = 1
"""MSHV_VP_STATE_XSAVE of MSHV_SET_VP_STATE."""

MSRS: tuple[Msr, ...] = (
    Msr(0xC0000080, EFER.name, EFER.path, 0x80001),
    Msr(0x277, "PAT", "env.pat", 0x80004),
    Msr(0x174, "SYSENTER_CS", "env.sysenter_cs", 0x80005),
    Msr(0x175, "SYSENTER_ESP", "env.sysenter_esp", 0x80007),
    Msr(0x176, "SYSENTER_EIP", "env.sysenter_eip", 0x80006),
    Msr(0xC0000081, "STAR", "env.star", 0x80008),
    Msr(0xC0000082, "LSTAR", "env.lstar", 0x80009),
    Msr(0xC0000083, "CSTAR", "env.cstar", 0x8000A),
    Msr(0xC0000084, "SFMASK", "env.fmask", 0x8000B),
    Msr(0xC0000102, "KERNEL_GS_BASE", "env.kernelgsbase", 0x80002),
    Msr(TSC, "TSC", "env.tsc", 0x80000),
    Msr(0xC0000103, "TSC_AUX", "env.tsc_aux", 0x8007B),
    Msr(0x3B, "TSC_ADJUST", "cpu/msr_tsc_adjust/env.tsc_adjust", 0x80096, Only.FEATURE),
    Msr(0x40000001, "HV_HYPERCALL", "cpu/msr_hyperv_hypercall/env.msr_hv_hypercall", 0x90001, Only.VCPU_0),
    Msr(0x40000000, "HV_GUEST_OS_ID", "cpu/msr_hyperv_hypercall/env.msr_hv_guest_os_id", 0x90002, Only.VCPU_0),
    Msr(0x40000021, "HV_REFERENCE_TSC", "cpu/msr_hyperv_time/env.msr_hv_tsc", 0x90017, Only.VCPU_0),
    Msr(0x40000080, "HV_SCONTROL", "cpu/msr_hyperv_synic/env.msr_hv_synic_control", 0xA0010),
    Msr(0x40000082, "HV_SIEFP", "cpu/msr_hyperv_synic/env.msr_hv_synic_evt_page", 0xA0012),
    Msr(0x40000083, "HV_SIMP", "cpu/msr_hyperv_synic/env.msr_hv_synic_msg_page", 0xA0013),
    *_mtrrs(MtrrKind.DEFAULT),
    Msr(0x6A0, "U_CET", "cpu/cet/env.u_cet", 0x8008C, Only.FEATURE),
    Msr(0x6A2, "S_CET", "cpu/cet/env.s_cet", 0x8008D, Only.FEATURE),
    Msr(0x6A4, "PL0_SSP", "cpu/msr_pl0_ssp/env.pl0_ssp", 0x8008F, Only.FEATURE),
    Msr(0x6A5, "PL1_SSP", f"{_SHSTK}/env.pl1_ssp", 0x80090, Only.FEATURE),
    Msr(0x6A6, "PL2_SSP", f"{_SHSTK}/env.pl2_ssp", 0x80091, Only.FEATURE),
    Msr(0x6A7, "PL3_SSP", f"{_SHSTK}/env.pl3_ssp", 0x80092, Only.FEATURE),
    Msr(0x6A8, "INTERRUPT_SSP_TABLE", f"{_SHSTK}/env.int_ssp_table", 0x80093, Only.FEATURE),
    Msr(0xDA0, "XSS", "cpu/xss/env.xss", 0x8008B, Only.FEATURE),
    Msr(0x48, "SPEC_CTRL", "cpu/spec_ctrl/env.spec_ctrl", 0x80084, Only.FEATURE),
    *_mtrrs(MtrrKind.BASE),
    *_mtrrs(MtrrKind.MASK),
    *_mtrrs(MtrrKind.FIXED),
)
"""The MSRs that QEMU 11.1 writes to an MSHV vCPU, in its order. One whose subsection was not sent is 0."""
