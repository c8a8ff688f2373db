"""The shape of one thing that is to be put into a stream: a section, or a subsection, as QEMU is known to send it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from qmigtool.parsers.vmdesc import Description, FieldDescription

if TYPE_CHECKING:
    from qmigtool.schema.model import Node, NodeField, Schema

__all__ = ["CPU_SUBSECTIONS", "bare", "find_shape", "place_of", "subsections"]

# In the order of vmstate_x86_cpu in target/i386/machine.c, the names as they are sent (QEMU 5.2 to 11.1; read from
# the tables in the binaries of 7.2, 10.0 and 11.1).
CPU_SUBSECTIONS = (
    *("cpu/exception_info", "cpu/error_code", "cpu/async_pf_msr", "cpu/async_pf_int_msr", "cpu/async_pv_eoi_msr"),
    *("cpu/steal_time_msr", "cpu/poll_control_msr", "cpu/fpop_ip_dp", "cpu/msr_tsc_adjust", "cpu/msr_tscdeadline"),
    *("cpu/msr_ia32_misc_enable", "cpu/msr_ia32_feature_control", "cpu/msr_architectural_pmu", "cpu/mpx"),
    *("cpu/msr_hyperv_hypercall", "cpu/msr_hyperv_vapic", "cpu/msr_hyperv_time", "cpu/msr_hyperv_crash"),
    *("cpu/msr_hyperv_runtime", "cpu/msr_hyperv_synic", "cpu/msr_hyperv_stimer", "cpu/msr_hyperv_reenlightenment"),
    *("cpu/avx512", "cpu/xss", "cpu/umwait", "cpu/tsc_khz", "cpu/msr_smi_count", "cpu/pkru", "cpu/pkrs"),
    *("cpu/spec_ctrl", "cpu/amd_tsc_scale_msr", "cpu/mcg_ext_ctl", "cpu/intel_pt", "cpu/virt_ssbd", "cpu/svn_npt"),
    *("cpu/svm_guest", "cpu/efer32", "cpu/nested_state", "cpu/xen_vcpu", "cpu/msr_tsx_ctrl", "cpu/intel_sgx"),
    *("cpu/pdptrs", "cpu/msr_xfd", "cpu/msr_hwcr", "cpu/fred", "cpu/intel_amx_xtile", "cpu/arch_lbr"),
    *("cpu/triple_fault", "cpu/msr_pl0_ssp", "cpu/cet", "cpu/apx"),
)


def find_shape(schema: Schema, name: str, version: int | None = None) -> Description | None:
    """Return the description of the section or subsection ``name``, or None if the schema has none.

    A section is looked for if ``version`` is given. Of several shapes the first is taken, without subsections.
    """
    if version is not None:
        variants = schema.variants(name, version)
        return bare(variants[0].node) if variants else None
    for variants in schema.devices.values():
        for variant in variants:
            for node in subsections(variant.node):
                if node.name == name:
                    return bare(node)
    return None


def place_of(name: str, there: Sequence[str]) -> int:
    """Return where a subsection belongs among those that are there: for a loader anywhere, for a reader in order."""
    if name not in CPU_SUBSECTIONS:
        return len(there)
    order = CPU_SUBSECTIONS.index(name)
    for index, other in enumerate(there):
        if other in CPU_SUBSECTIONS and CPU_SUBSECTIONS.index(other) > order:
            return index
    return len(there)


def subsections(node: Node) -> Iterator[Node]:
    """Give every subsection of a shape, those of its structs included."""
    for sub in node.subsections:
        yield sub
        yield from subsections(sub)
    for field in node.fields:
        for struct in field.structs:
            yield from subsections(struct)


def bare(node: Node) -> Description:
    """Describe a body of this shape that has no subsections."""
    return Description.of(node.name, node.version, tuple(map(_field, node.fields)), ())


def _field(field: NodeField) -> FieldDescription:
    if not field.structs:
        return FieldDescription(field.name, field.type, field.size, field.array_len, None, field.inline)
    struct = bare(field.structs[0])
    return FieldDescription(field.name, field.type, struct.size, field.array_len, struct, field.inline)
