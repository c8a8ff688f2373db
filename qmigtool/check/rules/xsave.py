"""Rules over the extended state of x86 vCPUs: XCR0, XSTATE_BV, and live components."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qmigtool.check.rule import Context, Option, Options, at, on, vcpu_rule
from qmigtool.errors import UsageError
from qmigtool.findings import Finding
from qmigtool.findings.model import Wide
from qmigtool.x86 import kvm
from qmigtool.x86.registers import CR4
from qmigtool.x86.traits import HYPERV, TCG
from qmigtool.xsave import COMPONENTS, SUPERVISOR_MASK, bits, mask_names
from qmigtool.xsave.components import AVX_MASK, CET_MASK, LEGACY_MASK, PKRU_MASK, USER_MASK, parse_mask
from qmigtool.xsave.header import MXCSR_DEFINED

if TYPE_CHECKING:
    from qmigtool.x86.vcpu import VCpu

__all__ = ["RULES"]

XCR0, XSTATE_BV, XSS, MXCSR = "env.xcr0", "env.xstate_bv", "cpu/xss/env.xss", "env.mxcsr"
XFD, U_CET, FPUC = "cpu/msr_xfd/env.msr_xfd", "cpu/cet/env.u_cet", "env.fpuc"
CET_U = parse_mask("CET_U")
XFD_MASK = sum(one.mask for one in COMPONENTS.values() if one.xfd)
FCW_FIXED, FCW_RESERVED = 1 << 6, 0xE080  # a CPU stores bit 6 as 1 and these as 0 (measured)
FOP_BITS = 0x7FF


def _names(mask: int) -> str:
    return " ".join(mask_names(mask))


@vcpu_rule(
    "xcr0-legal",
    "XCR0 is one that a CPU accepts",
    "XSETBV faults on such a value and KVM_SET_XCRS refuses it: QEMU 10.0 and later then exit, 7.2 silently drops XCR0 "
    "and every MSR that it sets afterwards (SDM volume 1, 13.3).",
    severity="error",
)
def xcr0_legal(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    for refusal in kvm.refusals(vcpu.device.number, groups=(kvm.Group.XCRS,)):
        yield at(vcpu.device, refusal.path, refusal.why)


@vcpu_rule(
    "xss-legal",
    "IA32_XSS has supervisor components only",
    "Components that XCR0 enables cannot be enabled by IA32_XSS: WRMSR faults (SDM volume 1, 13.3).",
    severity="error",
)
def xss_legal(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    if wrong := vcpu.xss & USER_MASK:
        yield at(
            vcpu.device,
            XSS,
            f"IA32_XSS is {vcpu.xss:#x}, but {_names(wrong)} belongs in XCR0",
            components=mask_names(wrong),
        )


@vcpu_rule(
    "xstate-bv-legal",
    "XSTATE_BV declares user components that exist",
    "KVM_SET_XSAVE fails with EINVAL on any other bit: QEMU 10.0 and later exit, 7.2 continues without it (Linux "
    "validate_user_xstate_header). MSHV and WHPX may leave supervisor bits in it, which are not reported.",
    severity="error",
)
def xstate_bv_legal(context: Context, vcpu: VCpu, _: Options) -> Iterator[Finding]:
    extra = SUPERVISOR_MASK if context.accelerator in HYPERV else 0
    for refusal in _xsave(vcpu, "xstate-bv", USER_MASK | extra):
        yield at(vcpu.device, refusal.path, refusal.why)


def _xsave(vcpu: VCpu, name: str, allowed: int | None = None) -> Iterator[kvm.KvmRefusal]:
    for refusal in kvm.refusals(vcpu.device.number, allowed, groups=(kvm.Group.XSAVE,)):
        if refusal.name == name and refusal.certain:
            yield refusal


@vcpu_rule(
    "xstate-bv-within-xcr0",
    "XSTATE_BV is within XCR0",
    "State that the guest has not enabled is not its own: it may be left from another XCR0, or have leaked from the "
    "host, as PKRU has under KVM. XRSTOR of such an area faults, and a host without the component refuses the vCPU "
    "(SDM volume 1, 13.8). x87 and SSE are in use without XCR0, too.",
    because="KVM takes it, where the host has the component",
)
def xstate_bv_within_xcr0(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    if outside := vcpu.xstate_bv & USER_MASK & ~vcpu.xcr0 & ~LEGACY_MASK:
        message = f"XSTATE_BV is {vcpu.xstate_bv:#x}, but XCR0 is {vcpu.xcr0:#x}: {_names(outside)} is not enabled"
        yield at(vcpu.device, XSTATE_BV, message, xcr0=Wide(vcpu.xcr0), components=mask_names(outside))


@vcpu_rule(
    "live-state-declared",
    "XSTATE_BV declares all live components",
    "KVM_SET_XSAVE puts every component whose bit is clear into its initial configuration: after a load the guest "
    "silently continues without those registers. (TCG never fills XSTATE_BV: see tcg-state-undeclared.)",
)
def live_state_declared(context: Context, vcpu: VCpu, _: Options) -> Iterator[Finding]:
    if context.accelerator == TCG.name:
        return
    if lost := vcpu.lost_undeclared:
        message = f"XSTATE_BV is {vcpu.xstate_bv:#x}, but {_names(lost)} differs from its initial configuration"
        yield at(vcpu.device, XSTATE_BV, message, expected=Wide(vcpu.xstate_bv | lost), components=mask_names(lost))


@vcpu_rule(
    "tcg-state-undeclared",
    "A TCG stream declares all live components",
    "TCG leaves XSTATE_BV at 0. Loaded under KVM unchanged, the guest silently loses x87, MXCSR, XMM and YMM; "
    "`qmigtool rewrite --to-accelerator kvm` declares them.",
    severity="off",
    because="for those who load TCG's streams under KVM",
)
def tcg_state_undeclared(context: Context, vcpu: VCpu, _: Options) -> Iterator[Finding]:
    if context.accelerator == TCG.name and (lost := vcpu.undeclared):
        message = f"XSTATE_BV is {vcpu.xstate_bv:#x}, but {_names(lost)} is live"
        yield at(vcpu.device, XSTATE_BV, message, expected=Wide(vcpu.xstate_bv | lost), components=mask_names(lost))


@vcpu_rule(
    "live-state-enabled",
    "Live components are enabled in XCR0",
    "No instruction can create such state with this XCR0: it is left from another XCR0, or an edit changed only one of "
    "the two. (PKRU may be used without XCR0[9] where CR4.PKE is set.)",
)
def live_state_enabled(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    usable = vcpu.xcr0 | LEGACY_MASK
    if (vcpu.device.number(CR4.path) or 0) & CR4["PKE"]:
        usable |= PKRU_MASK
    # xstate-bv-within-xcr0 reports declared components.
    if stray := vcpu.live & USER_MASK & ~usable & ~vcpu.xstate_bv:
        message = f"XCR0 is {vcpu.xcr0:#x}, but {_names(stray)} differs from its initial state"
        yield at(vcpu.device, XCR0, message, components=mask_names(stray))


@vcpu_rule(
    "mxcsr-reserved",
    "MXCSR has no reserved bit",
    "XRSTOR and FXRSTOR fault, and KVM_SET_XSAVE fails with EINVAL (SDM volume 1, 13.8). Bit 17 is AMD's.",
    severity="error",
)
def mxcsr_reserved(context: Context, vcpu: VCpu, _: Options) -> Iterator[Finding]:
    if context.accelerator != TCG.name:
        for refusal in _xsave(vcpu, "mxcsr"):  # undeclared components are initialised
            yield at(vcpu.device, refusal.path, refusal.why)
    elif wrong := vcpu.mxcsr & ~MXCSR_DEFINED:
        yield at(vcpu.device, MXCSR, f"MXCSR is {vcpu.mxcsr:#x}, whose bits {wrong:#x} are reserved", bits=Wide(wrong))


@vcpu_rule(
    "xfd-component-declared",
    "XSTATE_BV declares nothing that IA32_XFD disables",
    "With IA32_XFD[i] set, XSAVE treats component i as initial and writes XSTATE_BV[i] = 0, and XRSTOR of an area that "
    "declares it raises #NM (SDM volume 1, 13.14): one of the two registers is not this guest's.",
    severity="error",
)
def xfd_component_declared(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    xfd = vcpu.device.number(XFD) or 0
    if both := vcpu.xstate_bv & xfd & XFD_MASK:
        message = f"IA32_XFD is {xfd:#x}, but XSTATE_BV {vcpu.xstate_bv:#x} declares {_names(both)}"
        yield at(vcpu.device, XFD, message, xstate_bv=Wide(vcpu.xstate_bv), components=mask_names(both))


@vcpu_rule(
    "cet-in-xss",
    "IA32_XSS has the CET state that the guest uses",
    "A guest saves the CET registers of its threads with XSAVES, for which IA32_XSS[12:11] have to be 1 (SDM volume 1, "
    "13.5.9). Otherwise thread switches do not change them: the next shadow-stack check fails. IA32_XSS may have been "
    "lost in migration (cpu/xss).",
    because="an operating system could change the registers one by one",
)
def cet_in_xss(_: Context, vcpu: VCpu, __: Options) -> Iterator[Finding]:
    if not (vcpu.device.number(CR4.path) or 0) & CR4["CET"]:
        return
    lacking = vcpu.live & CET_MASK & ~vcpu.xss
    if vcpu.xss & CET_MASK:
        lacking &= CET_U  # its kernel may change IA32_PL0_SSP to IA32_PL2_SSP itself
    if lacking:
        message = f"CR4.CET is 1 and {_names(lacking)} is live, but IA32_XSS is {vcpu.xss:#x}"
        yield at(vcpu.device, U_CET, message, xss=Wide(vcpu.xss), components=mask_names(lacking))


@vcpu_rule(
    "x87-overwritten",
    "The x87 pointers are the guest's",
    "QEMU 11.1 copies supervisor state of an MSHV page to byte 0 of its area: CET_S (or CET_U) takes the place of FCW, "
    "FSW, FTW, FOP, FIP and FDP. This stream does not have the original values; one saved by a QEMU that skips "
    "supervisor state has them.",
    severity="error",
)
def x87_overwritten(context: Context, vcpu: VCpu, _: Options) -> Iterator[Finding]:
    if context.accelerator == TCG.name or not vcpu.carried & CET_MASK:
        return
    control = vcpu.x87_control
    for bit in bits(CET_MASK):
        cet = vcpu.contents(bit)
        carried = bytearray(cet)
        carried[5] = 0  # the area's byte 5 is in no stream
        if any(carried) and control.startswith(carried):
            yield at(vcpu.device, FPUC, f"x87 bytes 0 to {len(cet) - 1} are the {len(cet)} bytes of {_names(1 << bit)}")
            return
    if not vcpu.xstate_bv & 1:
        return  # stale, and initialised on load
    fcw, fop = int.from_bytes(control[0:2], "little"), int.from_bytes(control[6:8], "little")
    wrong = [f"FCW is {fcw:#x}"] if fcw & FCW_RESERVED or not fcw & FCW_FIXED else []
    if fop & ~FOP_BITS:
        wrong.append(f"FOP is {fop:#x}")
    if wrong:
        message = f"{' and '.join(wrong)}, which no CPU saves: as after a copy of CET state over the x87 state"
        yield at(vcpu.device, FPUC, message)


def _mask(value: Any, what: str) -> int:
    """Read components: ``["amx", "pkru"]``, ``"amx,pkru"`` or ``"0x60200"``."""
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = ",".join(value)
    if isinstance(value, str):
        return parse_mask(value) if value else 0
    raise UsageError(f"{what} is {value!r:.60}", expected='component names, such as ["amx", "pkru"]')


@vcpu_rule(
    "components",
    "No vCPU has a forbidden component",
    "The policy forbids it: some hosts may not have it, it may be large, or its state must not be migrated.",
    severity="error",
    forbidden=Option(_mask, 0, 'state components that no vCPU may have, by name or group: ["amx", "pkru"]'),
)
def components(_: Context, vcpu: VCpu, options: Options) -> Iterator[Finding]:
    forbidden = options["forbidden"]
    # The fields of x87, SSE and AVX are in every stream.
    carried = vcpu.carried & ~(LEGACY_MASK | AVX_MASK)
    ways = (
        ("enabled in XCR0", XCR0, vcpu.xcr0),
        ("enabled in IA32_XSS", XSS, vcpu.xss),
        ("declared in XSTATE_BV", XSTATE_BV, vcpu.xstate_bv),
        ("live", None, vcpu.live),
        ("carried in a subsection", None, carried),
    )
    for name, bit in ((name, parse_mask(name)) for name in mask_names(forbidden)):
        found = [(way, path) for way, path, mask in ways if mask & bit]
        if found:
            message = f"{name} is {', '.join(way for way, _ in found)}"
            path = next((path for _, path in found if path is not None), None)
            values = {"components": (name,), "ways": tuple(way for way, _ in found)}
            yield on(vcpu.device, message, **values) if path is None else at(vcpu.device, path, message, **values)


RULES = (
    xcr0_legal,
    xss_legal,
    xstate_bv_legal,
    xstate_bv_within_xcr0,
    live_state_declared,
    tcg_state_undeclared,
    live_state_enabled,
    mxcsr_reserved,
    xfd_component_declared,
    cet_in_xss,
    x87_overwritten,
    components,
)
