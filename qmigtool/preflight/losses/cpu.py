"""Silent losses inside a vCPU because of the target's CPU: components, features that the guest uses, subsections."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from qmigtool.devices.schema.cpusection import BY_CPUID, XSAVE_FIELDS
from qmigtool.errors import XsaveError
from qmigtool.findings import Finding, Severity
from qmigtool.findings.model import Wide
from qmigtool.parsers.vmstate import Field, Kind
from qmigtool.preflight.losses.judged import Judged
from qmigtool.preflight.remark import MEASURED
from qmigtool.preflight.target.cpuidflags import KNOWN
from qmigtool.x86.registers import CR4, EFER, MSRS, Register
from qmigtool.x86.traits import TCG, traits_of
from qmigtool.xsave import SUPERVISOR_MASK, bits, mask_names
from qmigtool.xsave.components import AMX_MASK, LEGACY_MASK

if TYPE_CHECKING:
    from qmigtool.devices.schema.cpusection import CpuSubsection
    from qmigtool.parsers.vmdesc import Description
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream.model import Stream
    from qmigtool.x86.vcpu import VCpu

__all__ = ["cpu_losses"]

TSC_TOLERANCE_PPM = 250  # KVM's own tolerance; it does not scale below it

# Bit of a register -> features; a guest can set the bit if the CPU has one of them (SDM volume 3, 2.5).
FEATURES: dict[Register, dict[str, tuple[str, ...]]] = {
    CR4: {
        "VME": ("vme",),
        "DE": ("de",),
        "PSE": ("pse",),
        "PAE": ("pae",),
        "MCE": ("mce",),
        "PGE": ("pge",),
        "OSFXSR": ("fxsr",),
        "OSXMMEXCPT": ("sse",),
        "UMIP": ("umip",),
        "LA57": ("la57",),
        "VMXE": ("vmx",),
        "SMXE": ("smx",),
        "FSGSBASE": ("fsgsbase",),
        "PCIDE": ("pcid",),
        "OSXSAVE": ("xsave",),
        "SMEP": ("smep",),
        "SMAP": ("smap",),
        "PKE": ("pku",),
        "CET": ("cet-ss", "cet-ibt"),
        "PKS": ("pks",),
        "LASS": ("lass",),
        "LAM_SUP": ("lam",),
        "FRED": ("fred",),
    },
    EFER: {
        "SCE": ("syscall",),
        "LME": ("lm",),
        "NXE": ("nx", "xd"),
        "SVME": ("svm",),
        "FFXSR": ("fxsr-opt", "ffxsr"),
    },
}
HYPERV_SUBSECTIONS = "cpu/msr_hyperv_"


def cpu_losses(stream: Stream, target: Target) -> Judged:
    """Return findings, and what could not be checked."""
    judged = Judged()
    found = judged.findings
    allowed = target.allowed_components
    for vcpu in stream.vcpus:
        if allowed is None:
            if target.unknown_components(vcpu.xcr0 | vcpu.live):
                judged.doubt(
                    "the components that XCR0 may have: give a CPUID dump, a CPU model or a layout",
                    components=mask_names(target.unknown_components(vcpu.xcr0 | vcpu.live)),
                )
        else:
            found += _components(vcpu, target, allowed)
        found += _placement(vcpu, target)
        found += _gated(vcpu, target, judged)
        found += _features(vcpu, target, judged)
        found += _frequency(vcpu, target, judged)
    return judged


def _components(vcpu: VCpu, target: Target, allowed: int) -> Iterator[Finding]:
    live = vcpu.live & ~allowed & ~SUPERVISOR_MASK
    idle = vcpu.xcr0 & ~allowed & ~live
    where = vcpu.device.get("env.xcr0")
    offset = None if where is None else where.offset
    mask = f"{target.accelerator or 'the target'} has {allowed & ~SUPERVISOR_MASK:#x}"
    values = {"value": Wide(vcpu.xcr0), "allowed": Wide(allowed & ~SUPERVISOR_MASK)}
    if live:
        yield Finding(
            "component-not-in-target",
            Severity.ERROR,
            f"{' '.join(mask_names(live))} live; {mask}",
            traits_of(target.accelerator).foreign,
            device=vcpu.device.label,
            path="env.xcr0",
            offset=offset,
            values=values | {"components": mask_names(live)},
        )
    if idle:
        yield Finding(
            "xcr0-not-in-target",
            Severity.ERROR if traits_of(target.accelerator).kernel else Severity.WARNING,
            f"XCR0 {vcpu.xcr0:#x} enables {' '.join(mask_names(idle))}; {mask}",
            traits_of(target.accelerator).foreign,
            device=vcpu.device.label,
            path="env.xcr0",
            offset=offset,
            values=values | {"components": mask_names(idle)},
        )

    if supervisor := vcpu.live & ~allowed & SUPERVISOR_MASK:
        yield _supervisor(vcpu, target, supervisor, allowed)


def _supervisor(vcpu: VCpu, target: Target, lacking: int, allowed: int) -> Finding:
    """Return the finding of live supervisor state: it is not part of XCR0, and is migrated as MSRs."""
    which = [f"{name} ({_MSRS[bit]})" if bit in _MSRS else name for bit, name in _named(lacking)]
    path = next((_FIELDS[bit] for bit, _ in _named(lacking) if bit in _FIELDS), None)
    field = vcpu.device.get(path) if path is not None else None
    whose = target.accelerator or "the target"
    return Finding(
        "supervisor-not-in-target",
        Severity.ERROR,
        f"{', '.join(which)} live; {whose} has IA32_XSS {allowed & SUPERVISOR_MASK:#x}",
        "XCR0 is accepted: supervisor state is not part of it; it is migrated as MSRs, and a CPU without the feature "
        "keeps none of them (target/i386/machine.c; SDM volume 1, 13.5)",
        device=vcpu.device.label,
        path=path or "",
        offset=None if field is None else field.offset,
        values={"components": mask_names(lacking), "allowed": Wide(allowed & SUPERVISOR_MASK)},
    )


def _named(mask: int) -> Iterator[tuple[int, str]]:
    return ((bit, mask_names(1 << bit)[0]) for bit in bits(mask))


_CET = f"MSRs {MSRS['U_CET'].number:#x} to {MSRS['INTERRUPT_SSP_TABLE'].number:#x}"
_MSRS = {11: _CET, 12: _CET, 15: "MSRs 0x14ce, 0x14cf, 0x1200 and on"}
_FIELDS = {bit: "/".join(next(field.path for field in XSAVE_FIELDS if field.component == bit)) for bit in _MSRS}


def _placement(vcpu: VCpu, target: Target) -> Iterator[Finding]:
    """Check the placement of components: a layout that cannot place them, a page that is too small."""
    layout = target.layout
    used = vcpu.live | (vcpu.xstate_bv if vcpu.tcg is None else vcpu.effective_xstate_bv())
    if layout is not None:
        lacking = vcpu.live & ~layout.mask & ~LEGACY_MASK
        reasons = [f"{mask_names(1 << bit)[0]}: {layout.absent[bit]}" for bit in bits(lacking) if bit in layout.absent]
        if reasons:
            yield Finding(
                "component-without-place",
                Severity.ERROR,
                f"the layout {layout.name} cannot place what is live: {'; '.join(reasons)}",
                "CPUID leaf 0xD of the target gives the offset of a component",
                device=vcpu.device.label,
            )
    traits = traits_of(target.accelerator)
    if traits.page is None:
        return
    size = target.xsave_max or traits.page
    if vcpu.live & traits.oversized:
        yield Finding(
            "amx-on-mshv",
            Severity.ERROR,
            f"AMX is live and has 8 KiB, the partition's XSAVE area at most {size} bytes",
            "QEMU 11.1 gives MSHV one page (read in QEMU 11.1)",
            device=vcpu.device.label,
            values={"components": mask_names(vcpu.live & traits.oversized), "maximum": size},
        )
    elif layout is not None and target.xsave_max is not None:
        try:
            needed = layout.compacted_size(used & layout.mask)
        except XsaveError:
            return
        if needed > size:
            yield Finding(
                "area-too-large",
                Severity.ERROR,
                f"the compacted area has {needed} bytes, the partition accepts {size} (MAX_XSAVE_DATA_SIZE)",
                "Hyper-V refuses a larger one (read in Linux's MSHV driver)",
                device=vcpu.device.label,
                values={"value": needed, "maximum": size},
            )


def _gated(vcpu: VCpu, target: Target, judged: Judged) -> Iterator[Finding]:
    """Check the subsections that the target sends again only if its CPU has the feature."""
    for field in vcpu.device.fields:
        if field.kind is not Kind.SUBSECTION or field.name not in BY_CPUID:
            continue
        known = BY_CPUID[field.name]
        flags = known.features
        has = _has(target, known)
        if has:
            continue
        used = _any_set(field)
        if has is None:
            if used:
                judged.doubt(
                    f"whether the target's CPU has {' or '.join(flags)}; {field.name} is lost without it: "
                    "give its query-cpu-model-expansion"
                )
            continue
        yield Finding(
            "cpuid-gated-subsection",
            Severity.ERROR if used else Severity.NOTE,
            f"{field.name} loads and is not saved again: the CPU does not have {' or '.join(flags)}"
            + ("" if used else "; it holds zeros"),
            f"QEMU saves it depending on CPUID, not on its contents ({MEASURED})",
            device=vcpu.device.label,
            path=field.name,
            offset=field.offset,
            values={"features": flags},
        )


def _has(target: Target, subsection: CpuSubsection) -> bool | None:
    if target.accelerator == TCG.name and not subsection.tcg:
        return False
    if any(
        name == "cpu" and section.description is not None and subsection.name in _names(section.description)
        for (name, _), section in (target.sections or {}).items()
    ):
        return True  # only a CPU that has the features sends it
    has = _has_feature(target, subsection.features)
    if has is not None:
        return has
    if subsection.name == "cpu/intel_amx_xtile" and target.xcr0 is not None:
        return bool(target.xcr0 & AMX_MASK)
    return None


def _names(description: Description) -> set[str]:
    return {sub.name for sub in description.subsections}


def _has_feature(target: Target, flags: tuple[str, ...]) -> bool | None:
    """Return whether the target's CPU has one of these features; None if that is not known."""
    if target.cpu_flags is not None:
        return any(flag in target.cpu_flags for flag in flags)
    if target.cpuid_flags is None or not KNOWN & {*flags}:
        return None
    return any(flag in target.cpuid_flags for flag in flags)


def _any_set(field: Field) -> bool:
    if field.kind is Kind.LEAF:
        return any(field.raw)
    return any(map(_any_set, field.children)) if field.children else any(field.raw)


def _features(vcpu: VCpu, target: Target, judged: Judged) -> Iterator[Finding]:
    """Check control registers: the CPU must have the features that the guest has enabled."""
    if target.cpu_flags is None and target.cpuid_flags is None:
        judged.miss("whether the CPU has the features that the guest uses: give its query-cpu-model-expansion")
        return
    for register, table in FEATURES.items():
        path = register.path
        field = vcpu.device.get(path)
        value = vcpu.device.word(path)
        if field is None or value is None:
            continue
        lacking = [
            " or ".join(needed)
            for name, needed in table.items()
            if value & register[name] and _has_feature(target, needed) is False
        ]
        if lacking:
            yield Finding(
                "cpu-feature-missing",
                Severity.WARNING,
                f"{register.name} {value:#x} uses {', '.join(lacking)}, which the target's CPU lacks",
                "CPUID is never compared: QEMU loads it, and KVM accepted such a CR4 (measured); the guest can fault",
                device=vcpu.device.label,
                path=path,
                offset=field.offset,
                values={"value": Wide(value), "features": lacking},
            )
    flags = target.cpu_flags
    if not traits_of(target.accelerator).kernel or flags is None or any(flag.startswith("hv-") for flag in flags):
        return
    for sub in vcpu.device.fields:
        if sub.kind is Kind.SUBSECTION and sub.name.startswith(HYPERV_SUBSECTIONS):
            yield Finding(
                "hyperv-without-enlightenments",
                Severity.WARNING,
                f"{sub.name} loads, but the CPU has no hv-* feature: KVM ignores it",
                f"a KVM guest without hv-* loads it silently ({MEASURED})",
                device=vcpu.device.label,
                path=sub.name,
                offset=sub.offset,
            )


def _frequency(vcpu: VCpu, target: Target, judged: Judged) -> Iterator[Finding]:
    khz = vcpu.device.number("cpu/tsc_khz/env.tsc_khz")
    if not khz or not (target.accelerator is None or traits_of(target.accelerator).kernel):
        return
    host = target.host_tsc_khz
    if host is None:
        judged.doubt(f"whether the host's TSC runs at the guest's {khz} kHz, or can be scaled", value=khz)
    elif abs(host - khz) * 1_000_000 > khz * TSC_TOLERANCE_PPM:
        yield Finding(
            "tsc-frequency",
            Severity.WARNING,
            f"the guest's TSC ran at {khz} kHz, the host's runs at {host} kHz",
            "without TSC scaling KVM continues at the host's frequency, with only a warning (measured)",
            device=vcpu.device.label,
            path="cpu/tsc_khz/env.tsc_khz",
            values={"value": khz, "expected": host},
        )
