"""Rules over the extended state of x86 vCPUs: XCR0, XSTATE_BV, and what is live."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qmigtool import kvm
from qmigtool.check.rule import Context, Hit, Option, Options, at, on, vcpu_rule
from qmigtool.errors import UsageError
from qmigtool.xsave import SUPERVISOR_MASK, mask_names
from qmigtool.xsave.components import LEGACY_MASK, PKRU_MASK, USER_MASK, parse_mask
from qmigtool.xsave.header import MXCSR_DEFINED

if TYPE_CHECKING:
    from qmigtool.cpu_x86 import VCpu

__all__ = ["RULES"]

XCR0, XSTATE_BV, XSS, MXCSR = "env.xcr0", "env.xstate_bv", "cpu/xss/env.xss", "env.mxcsr"
CR4_PKE = 1 << 22
AVX = 1 << 2


def _names(mask: int) -> str:
    return " ".join(mask_names(mask))


@vcpu_rule(
    "xcr0-legal",
    "XCR0 is one that a CPU takes",
    "XSETBV faults on such a value and KVM_SET_XCRS refuses it: QEMU 10.0 and later then exit, 7.2 silently drops XCR0 "
    "and every MSR that it sets afterwards (SDM volume 1, 13.3).",
)
def xcr0_legal(_: Context, vcpu: VCpu, __: Options) -> Iterator[Hit]:
    for refusal in kvm.refusals(vcpu.device.number, groups=(kvm.Group.XCRS,)):
        yield at(vcpu.device, refusal.path, refusal.why)


@vcpu_rule(
    "xss-legal",
    "IA32_XSS has supervisor components only",
    "Components that XCR0 enables cannot be enabled by IA32_XSS: WRMSR faults (SDM volume 1, 13.3).",
)
def xss_legal(_: Context, vcpu: VCpu, __: Options) -> Iterator[Hit]:
    if wrong := vcpu.xss & USER_MASK:
        yield at(vcpu.device, XSS, f"IA32_XSS is {vcpu.xss:#x}, but {_names(wrong)} belongs into XCR0")


@vcpu_rule(
    "xstate-bv-legal",
    "XSTATE_BV declares user components that exist",
    "KVM_SET_XSAVE fails with EINVAL on any other bit: QEMU 10.0 and later exit, 7.2 goes on without the state (Linux "
    "validate_user_xstate_header). MSHV and WHPX may leave supervisor bits in it, which is not judged.",
)
def xstate_bv_legal(context: Context, vcpu: VCpu, _: Options) -> Iterator[Hit]:
    extra = SUPERVISOR_MASK if context.accelerator in ("mshv", "whpx") else 0
    for refusal in _xsave(vcpu, "xstate-bv", USER_MASK | extra):
        yield at(vcpu.device, refusal.path, refusal.why)


def _xsave(vcpu: VCpu, name: str, allowed: int | None = None) -> Iterator[kvm.Refusal]:
    for refusal in kvm.refusals(vcpu.device.number, allowed, groups=(kvm.Group.XSAVE,)):
        if refusal.name == name and refusal.certain:
            yield refusal


@vcpu_rule(
    "xstate-bv-within-xcr0",
    "XSTATE_BV lies within XCR0",
    "State that the guest has not enabled is foreign to it: it may be left from another XCR0, or have leaked from the "
    "host, as PKRU has under KVM. XRSTOR of such an area faults, and a host without the component refuses the vCPU "
    "(SDM volume 1, 13.8). x87 and SSE are in use without XCR0, too.",
)
def xstate_bv_within_xcr0(_: Context, vcpu: VCpu, __: Options) -> Iterator[Hit]:
    if outside := vcpu.xstate_bv & USER_MASK & ~vcpu.xcr0 & ~LEGACY_MASK:
        message = f"XSTATE_BV is {vcpu.xstate_bv:#x}, but XCR0 is {vcpu.xcr0:#x}: {_names(outside)} is not enabled"
        yield at(vcpu.device, XSTATE_BV, message)


@vcpu_rule(
    "live-state-declared",
    "XSTATE_BV declares what is live",
    "KVM_SET_XSAVE puts every component whose bit is clear into its initial configuration: after a load the guest goes "
    "on with those registers lost, and nothing says so. (TCG never fills XSTATE_BV: see tcg-state-undeclared.)",
)
def live_state_declared(context: Context, vcpu: VCpu, _: Options) -> Iterator[Hit]:
    if context.accelerator == "tcg":
        return
    if lost := vcpu.undeclared & (vcpu.xcr0 | LEGACY_MASK):
        message = f"XSTATE_BV is {vcpu.xstate_bv:#x}, but {_names(lost)} differs from its initial configuration"
        yield at(vcpu.device, XSTATE_BV, message)


@vcpu_rule(
    "tcg-state-undeclared",
    "A TCG stream declares what is live",
    "TCG leaves XSTATE_BV at 0. Loaded under KVM as it is, the guest loses x87, MXCSR, XMM and YMM without a message; "
    "`qmigtool rewrite --to-accelerator kvm` declares them.",
)
def tcg_state_undeclared(context: Context, vcpu: VCpu, _: Options) -> Iterator[Hit]:
    if context.accelerator == "tcg" and (lost := vcpu.undeclared):
        yield at(vcpu.device, XSTATE_BV, f"XSTATE_BV is {vcpu.xstate_bv:#x}, but {_names(lost)} is live")


@vcpu_rule(
    "live-state-enabled",
    "What is live is enabled in XCR0",
    "No instruction can have made such state while XCR0 was as it is: it is left from another XCR0, or an edit forgot "
    "one of the two. (PKRU may be used without XCR0[9] where CR4.PKE is set.)",
)
def live_state_enabled(_: Context, vcpu: VCpu, __: Options) -> Iterator[Hit]:
    usable = vcpu.xcr0 | LEGACY_MASK
    if (vcpu.device.number("env.cr[4]") or 0) & CR4_PKE:
        usable |= PKRU_MASK
    # What XSTATE_BV declares, xstate-bv-within-xcr0 names.
    if stray := vcpu.live & USER_MASK & ~usable & ~vcpu.xstate_bv:
        yield at(vcpu.device, XCR0, f"XCR0 is {vcpu.xcr0:#x}, but {_names(stray)} differs from its initial state")


@vcpu_rule(
    "mxcsr-reserved",
    "MXCSR has no reserved bit",
    "XRSTOR and FXRSTOR fault, and KVM_SET_XSAVE fails with EINVAL (SDM volume 1, 13.8). Bit 17 is AMD's.",
)
def mxcsr_reserved(context: Context, vcpu: VCpu, _: Options) -> Iterator[Hit]:
    if context.accelerator != "tcg":
        for refusal in _xsave(vcpu, "mxcsr"):  # what XSTATE_BV does not declare is initialised
            yield at(vcpu.device, refusal.path, refusal.why)
    elif wrong := vcpu.mxcsr & ~MXCSR_DEFINED:
        yield at(vcpu.device, MXCSR, f"MXCSR is {vcpu.mxcsr:#x}, whose bits {wrong:#x} are reserved")


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
    "The policy forbids it: a host of the fleet may lack it, or it is large, or its state must not travel.",
    forbidden=Option(_mask, 0, 'state components that no vCPU may have, by name or group: ["amx", "pkru"]'),
)
def components(_: Context, vcpu: VCpu, options: Options) -> Iterator[Hit]:
    forbidden = options["forbidden"]
    # The fields of x87, SSE and AVX are in every stream.
    carried = vcpu.carried & ~(LEGACY_MASK | AVX)
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
            yield on(vcpu.device, message) if path is None else at(vcpu.device, path, message)


RULES = (
    xcr0_legal,
    xss_legal,
    xstate_bv_legal,
    xstate_bv_within_xcr0,
    live_state_declared,
    tcg_state_undeclared,
    live_state_enabled,
    mxcsr_reserved,
    components,
)
