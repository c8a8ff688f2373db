"""The subsections of the section ``cpu`` of an x86 vCPU: the facts about each.

:data:`CPU_SUBSECTIONS` is in the order of ``vmstate_x86_cpu`` in QEMU's target/i386/machine.c, the names are those that
are sent (5.2 to 11.1; read from the tables in the binaries of 7.2, 10.0 and 11.1). Each is sent by its
``needed`` function there. Most check whether it has any state; those with ``features`` check only CPUID.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qmigtool.xsave.components import (
    AMX_MASK,
    APX_MASK,
    AVX512_MASK,
    CET_MASK,
    LBR_MASK,
    MPX_MASK,
    PKRU_MASK,
    X87_MASK,
)

__all__ = ["BY_CPUID", "CPU_SUBSECTIONS", "CpuSubsection", "order_of"]


@dataclass(frozen=True, slots=True)
class CpuSubsection:
    """One subsection; ``needed`` is the name of the C function that decides whether it is sent.

    ``features``: it is sent if the CPU has one of these, by QEMU's names, whatever its contents; empty if they do not
    decide. ``tcg``: whether TCG can have them; what TCG does not have is loaded but not saved again (measured with QEMU
    7.2, 10.0 and 11.1, for every ``-cpu``). ``components`` are the state components in it, or that it belongs to, as a
    mask. ``defaults``: the value of a field that was not sent, if that is not zero.
    """

    name: str
    needed: str
    features: tuple[str, ...] = ()
    components: int = 0
    tcg: bool = True
    defaults: Mapping[str, int] = field(default_factory=dict)


def _one(name: str, needed: str, components: int = 0, **defaults: int) -> CpuSubsection:
    return CpuSubsection(f"cpu/{name}", needed, (), components, True, {f"env.{key}": defaults[key] for key in defaults})


def _gated(name: str, needed: str, *features: str, components: int = 0, tcg: bool = False) -> CpuSubsection:
    return CpuSubsection(f"cpu/{name}", needed, features, components, tcg)


CPU_SUBSECTIONS: tuple[CpuSubsection, ...] = (
    _one("exception_info", "exception_info_needed"),
    _one("error_code", "cpu_errcode_needed"),
    _one("async_pf_msr", "async_pf_msr_needed"),
    _one("async_pf_int_msr", "async_pf_int_msr_needed"),
    _one("async_pv_eoi_msr", "pv_eoi_msr_needed"),
    _one("steal_time_msr", "steal_time_msr_needed"),
    _one("poll_control_msr", "poll_control_msr_needed", poll_control_msr=1),
    _one("fpop_ip_dp", "fpop_ip_dp_needed", X87_MASK),
    _one("msr_tsc_adjust", "tsc_adjust_needed"),
    _one("msr_tscdeadline", "tscdeadline_needed"),
    _one("msr_ia32_misc_enable", "misc_enable_needed", msr_ia32_misc_enable=1),  # MSR_IA32_MISC_ENABLE_DEFAULT
    _one("msr_ia32_feature_control", "feature_control_needed"),
    _one("msr_architectural_pmu", "pmu_enable_needed"),
    _one("mpx", "mpx_needed", MPX_MASK),
    _one("msr_hyperv_hypercall", "hyperv_hypercall_enable_needed"),
    _one("msr_hyperv_vapic", "hyperv_vapic_enable_needed"),
    _one("msr_hyperv_time", "hyperv_time_enable_needed"),
    _one("msr_hyperv_crash", "hyperv_crash_enable_needed"),
    _one("msr_hyperv_runtime", "hyperv_runtime_enable_needed"),
    _one("msr_hyperv_synic", "hyperv_synic_enable_needed"),
    _one("msr_hyperv_stimer", "hyperv_stimer_enable_needed"),
    _one("msr_hyperv_reenlightenment", "hyperv_reenlightenment_enable_needed"),
    _one("avx512", "avx512_needed", AVX512_MASK),
    _one("xss", "xss_needed"),
    _one("umwait", "umwait_needed"),
    _one("tsc_khz", "tsc_khz_needed"),
    _one("msr_smi_count", "msr_smi_count_needed"),
    _one("pkru", "pkru_needed", PKRU_MASK),
    _one("pkrs", "pkrs_needed"),
    _one("spec_ctrl", "spec_ctrl_needed"),
    _gated("amd_tsc_scale_msr", "amd_tsc_scale_msr_needed", "tsc-scale", tcg=True),
    _one("mcg_ext_ctl", "mcg_ext_ctl_needed"),
    _one("intel_pt", "intel_pt_enable_needed"),
    _one("virt_ssbd", "virt_ssbd_needed"),
    _one("svn_npt", "svm_npt_needed"),  # the misspelt name is QEMU's
    _one("svm_guest", "svm_guest_needed"),
    _one("efer32", "intel_efer32_needed"),
    _one("nested_state", "nested_state_needed"),
    _one("xen_vcpu", "xen_vcpu_needed"),
    _gated("msr_tsx_ctrl", "msr_tsx_ctrl_needed", "tsx-ctrl", tcg=True),
    _gated("intel_sgx", "intel_sgx_msrs_needed", "sgxlc", tcg=True),
    _one("pdptrs", "pdptrs_needed"),
    _gated("msr_xfd", "xfd_msrs_needed", "xfd", components=AMX_MASK),
    _one("msr_hwcr", "msr_hwcr_needed"),
    _gated("fred", "intel_fred_msrs_needed", "fred"),
    _gated("intel_amx_xtile", "amx_xtile_needed", "amx-tile", components=AMX_MASK),
    _gated("arch_lbr", "arch_lbr_needed", "arch-lbr", components=LBR_MASK),
    _one("triple_fault", "triple_fault_needed"),
    _one("msr_pl0_ssp", "pl0_ssp_needed", CET_MASK),
    _gated("cet", "cet_needed", "cet-ss", "cet-ibt", components=CET_MASK),
    _gated("apx", "apx_needed", "apxf", components=APX_MASK),
)

BY_CPUID: Mapping[str, CpuSubsection] = {one.name: one for one in CPU_SUBSECTIONS if one.features}
"""Those that depend only on the CPU model, by name."""

_ORDER = {one.name: place for place, one in enumerate(CPU_SUBSECTIONS)}


def order_of(name: str) -> int | None:
    """Return the place of a subsection in the order in which they are sent, or None for an unknown one."""
    return _ORDER.get(name)
