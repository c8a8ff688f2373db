"""The section ``cpu`` of an x86 vCPU: its subsections, and the place of its fields in an XSAVE area.

:data:`CPU_SUBSECTIONS` is in the order of ``vmstate_x86_cpu`` in QEMU's target/i386/machine.c, the names are those that
are sent (5.2 to 11.1; read from the tables in the binaries of 7.2, 10.0 and 11.1). Each is sent by its
``needed`` function there. Most check whether it has any state; those with ``features`` check only CPUID.

QEMU does not send an XSAVE area: it splits the host's into registers (``target/i386/xsave_helper.c``) and sends them,
big-endian. :data:`XSAVE_FIELDS` has the offset of each in the area.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from qmigtool.parsers.vmdesc import Description, FieldDescription
from qmigtool.xsave.components import AMX_MASK, CET_MASK, COMPONENTS, MXCSR_OFFSET

__all__ = [
    "BY_CPUID",
    "CPU_SUBSECTIONS",
    "XSAVE_FIELDS",
    "CpuSubsection",
    "Piece",
    "XsaveField",
    "derived_shapes",
    "order_of",
]

X87, SSE = 0, 1
FPREGS = "env.fpregs"
ST_SIZE = 16  # of one x87 register in the area


class Piece(NamedTuple):
    """``wire`` big-endian bytes in the stream that become ``area`` little-endian bytes, ``at`` into the element."""

    wire: int
    area: int
    at: int


@dataclass(frozen=True, slots=True)
class XsaveField:
    """The place of one vmstate field in an XSAVE area.

    ``path`` is the path through the subsections to the field. ``element`` is the nested description's name, which tells
    fields of one name apart (``env.xmm_regs`` is four different things); None where the field is a plain number.
    ``offset`` counts from the start of ``component``; for x87 and SSE, from the start of the area. Each of the field's
    elements is ``pieces``, and they are ``stride`` bytes apart in the area.
    """

    path: tuple[str, ...]
    component: int
    offset: int
    pieces: tuple[Piece, ...]
    stride: int = 0
    element: str | None = None

    @property
    def wire_size(self) -> int:
        """Bytes of one element in the stream."""
        return sum(piece.wire for piece in self.pieces)


def _number(size: int) -> tuple[Piece, ...]:
    return (Piece(size, size, 0),)


def _quads(count: int) -> tuple[Piece, ...]:
    return tuple(Piece(8, 8, 8 * i) for i in range(count))


BYTE = _number(1)

XSAVE_FIELDS: tuple[XsaveField, ...] = (
    XsaveField(("env.fpuc",), X87, 0, _number(2)),
    XsaveField(("env.fpus_vmstate",), X87, 2, _number(2)),  # TOP is merged in already
    XsaveField(("env.fptag_vmstate",), X87, 4, (Piece(2, 1, 0),)),  # the abridged tag byte, in 16 bits
    XsaveField(("cpu/fpop_ip_dp", "env.fpop"), X87, 6, _number(2)),
    XsaveField(("cpu/fpop_ip_dp", "env.fpip"), X87, 8, _number(8)),
    XsaveField(("cpu/fpop_ip_dp", "env.fpdp"), X87, 16, _number(8)),
    XsaveField((FPREGS,), X87, 32, (Piece(8, 8, 0), Piece(2, 2, 8)), ST_SIZE, "fpreg"),
    XsaveField(("env.mxcsr",), SSE, MXCSR_OFFSET, _number(4)),
    XsaveField(("env.xmm_regs",), SSE, 160, _quads(2), 16, "xmm_reg"),
    XsaveField(("env.xmm_regs",), 2, 0, _quads(2), 16, "ymmh_reg"),
    XsaveField(("cpu/mpx", "env.bnd_regs"), 3, 0, _quads(2), 16, "bnd_regs"),
    XsaveField(("cpu/mpx", "env.bndcs_regs.cfgu"), 4, 0, _number(8)),
    XsaveField(("cpu/mpx", "env.bndcs_regs.sts"), 4, 8, _number(8)),
    XsaveField(("cpu/avx512", "env.opmask_regs"), 5, 0, _number(8), 8),
    XsaveField(("cpu/avx512", "env.xmm_regs"), 6, 0, _quads(4), 32, "zmmh_reg"),
    XsaveField(("cpu/avx512", "env.xmm_regs"), 7, 0, _quads(8), 64, "hi16_zmm_reg"),
    XsaveField(("cpu/pkru", "env.pkru"), 9, 0, _number(4)),
    XsaveField(("cpu/cet", "env.u_cet"), 11, 0, _number(8)),
    XsaveField(("cpu/cet", "cpu/cet_shstk", "env.pl3_ssp"), 11, 8, _number(8)),
    XsaveField(("cpu/msr_pl0_ssp", "env.pl0_ssp"), 12, 0, _number(8)),
    XsaveField(("cpu/cet", "cpu/cet_shstk", "env.pl1_ssp"), 12, 8, _number(8)),
    XsaveField(("cpu/cet", "cpu/cet_shstk", "env.pl2_ssp"), 12, 16, _number(8)),
    XsaveField(("cpu/arch_lbr", "env.msr_lbr_ctl"), 15, 0, _number(8)),
    XsaveField(("cpu/arch_lbr", "env.msr_lbr_depth"), 15, 8, _number(8)),
    # LER_FROM, LER_TO and LER_INFO (bytes 16 to 39) are not migrated.
    XsaveField(("cpu/arch_lbr", "env.lbr_records"), 15, 40, _quads(3), 24, "lbr_records_var"),
    XsaveField(("cpu/intel_amx_xtile", "env.xtilecfg"), 17, 0, BYTE, 1),
    XsaveField(("cpu/intel_amx_xtile", "env.xtiledata"), 18, 0, BYTE, 1),
    XsaveField(("cpu/apx", "env.regs"), 19, 0, _number(8), 8),
)
"""Every vmstate field that is part of an XSAVE area (QEMU 5.2 to 11.1)."""


@dataclass(frozen=True, slots=True)
class CpuSubsection:
    """One subsection; ``needed`` is the name of the C function that decides whether it is sent.

    ``features``: it is sent if the CPU has one of these, by QEMU's names, whatever its contents; empty if they do not
    decide. ``tcg``: whether TCG can have them; what TCG does not have is loaded but not saved again (measured with QEMU
    7.2, 10.0 and 11.1, for every ``-cpu``). ``components`` are the state components in it, or that it belongs to, as a
    mask; by default those of its fields in :data:`XSAVE_FIELDS`. ``defaults``: the value of a field that was not sent,
    if that is not zero.
    """

    name: str
    needed: str
    features: tuple[str, ...] = ()
    components: int = 0
    tcg: bool = True
    defaults: Mapping[str, int] = field(default_factory=dict)


def _holds(name: str) -> int:
    """Return the components that the fields of a subsection belong to."""
    return sum({1 << spec.component for spec in XSAVE_FIELDS if spec.path[0] == name and len(spec.path) > 1})


def _one(name: str, needed: str, components: int = 0, **defaults: int) -> CpuSubsection:
    path = f"cpu/{name}"
    values = {f"env.{key}": value for key, value in defaults.items()}
    return CpuSubsection(path, needed, (), components or _holds(path), True, values)


def _gated(name: str, needed: str, *features: str, components: int = 0, tcg: bool = False) -> CpuSubsection:
    path = f"cpu/{name}"
    return CpuSubsection(path, needed, features, components or _holds(path), tcg)


CPU_SUBSECTIONS: tuple[CpuSubsection, ...] = (
    _one("exception_info", "exception_info_needed"),
    _one("error_code", "cpu_errcode_needed"),
    _one("async_pf_msr", "async_pf_msr_needed"),
    _one("async_pf_int_msr", "async_pf_int_msr_needed"),
    _one("async_pv_eoi_msr", "pv_eoi_msr_needed"),
    _one("steal_time_msr", "steal_time_msr_needed"),
    _one("poll_control_msr", "poll_control_msr_needed", poll_control_msr=1),
    _one("fpop_ip_dp", "fpop_ip_dp_needed"),
    _one("msr_tsc_adjust", "tsc_adjust_needed"),
    _one("msr_tscdeadline", "tscdeadline_needed"),
    _one("msr_ia32_misc_enable", "misc_enable_needed", msr_ia32_misc_enable=1),  # MSR_IA32_MISC_ENABLE_DEFAULT
    _one("msr_ia32_feature_control", "feature_control_needed"),
    _one("msr_architectural_pmu", "pmu_enable_needed"),
    _one("mpx", "mpx_needed"),
    _one("msr_hyperv_hypercall", "hyperv_hypercall_enable_needed"),
    _one("msr_hyperv_vapic", "hyperv_vapic_enable_needed"),
    _one("msr_hyperv_time", "hyperv_time_enable_needed"),
    _one("msr_hyperv_crash", "hyperv_crash_enable_needed"),
    _one("msr_hyperv_runtime", "hyperv_runtime_enable_needed"),
    _one("msr_hyperv_synic", "hyperv_synic_enable_needed"),
    _one("msr_hyperv_stimer", "hyperv_stimer_enable_needed"),
    _one("msr_hyperv_reenlightenment", "hyperv_reenlightenment_enable_needed"),
    _one("avx512", "avx512_needed"),
    _one("xss", "xss_needed"),
    _one("umwait", "umwait_needed"),
    _one("tsc_khz", "tsc_khz_needed"),
    _one("msr_smi_count", "msr_smi_count_needed"),
    _one("pkru", "pkru_needed"),
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
    _gated("intel_amx_xtile", "amx_xtile_needed", "amx-tile"),
    _gated("arch_lbr", "arch_lbr_needed", "arch-lbr"),
    _one("triple_fault", "triple_fault_needed"),
    _one("msr_pl0_ssp", "pl0_ssp_needed", CET_MASK),
    _gated("cet", "cet_needed", "cet-ss", "cet-ibt"),
    _gated("apx", "apx_needed", "apxf"),
)

BY_CPUID: Mapping[str, CpuSubsection] = {one.name: one for one in CPU_SUBSECTIONS if one.features}
"""Those that depend only on the CPU model, by name."""

_ORDER = {one.name: place for place, one in enumerate(CPU_SUBSECTIONS)}


def order_of(name: str) -> int | None:
    """Return the place of a subsection in the order in which they are sent, or None for an unknown one."""
    return _ORDER.get(name)


def derived_shapes() -> list[Description]:
    """Return the subsections that consist of numbers in :data:`XSAVE_FIELDS`: nothing else has to declare their shape.

    A subsection that also has structs, or fields that are not XSAVE state, has its shape in ``cpu_x86.json``.
    """
    rows: dict[str, list[XsaveField]] = {}
    for spec in XSAVE_FIELDS:
        if len(spec.path) > 1:
            rows.setdefault(spec.path[0], []).append(spec)
    return [
        Description.of(name, 1, tuple(map(_number_field, specs)), ())
        for name, specs in rows.items()
        if all(spec.element is None and len(spec.path) == 2 for spec in specs)
    ]


def _number_field(spec: XsaveField) -> FieldDescription:
    size = spec.wire_size
    count = (COMPONENTS[spec.component].size - spec.offset) // spec.stride if spec.stride else None
    return FieldDescription(spec.path[-1], f"uint{8 * size}", size, count, None, ())
