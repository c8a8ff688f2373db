"""Silent losses between accelerators: the same field means something else, or is not written to the vCPU at all.

What a field means to another accelerator is in the rules of :mod:`qmigtool.rewrite.accelerators`, each proved by
leaving it out. They are tried here on a draft that nobody writes: what they would change is what goes wrong without.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.errors import LiveStateError, UnsupportedError, UsageError
from qmigtool.findings import Finding, Severity
from qmigtool.rewrite import accelerators
from qmigtool.rewrite.accelerators.traits import TRAITS
from qmigtool.rewrite.draft import Draft
from qmigtool.xsave import check_xcr0, mask_names
from qmigtool.xsave.components import LEGACY_MASK

if TYPE_CHECKING:
    from qmigtool.cpu_x86 import VCpu
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream import Stream

__all__ = ["accelerator_losses", "kvm_refusals"]


class _Known(NamedTuple):
    """What a conversion's rule is called as a finding, how grave it is to leave it out, and what happens then."""

    name: str
    severity: Severity
    what: str


E, W, N = Severity.ERROR, Severity.WARNING, Severity.NOTE
RULES: dict[str, _Known] = {
    "TK1": _Known("undeclared-state", E, "XSTATE_BV does not declare what is live: it is initialised on load"),
    "TK1b": _Known("undeclared-mxcsr", E, "XSTATE_BV does not declare SSE: MXCSR becomes 1F80"),
    "TK2": _Known("x87-order", E, "physical x87 registers would be taken for ST(0) to ST(7)"),
    "KT6": _Known("x87-order", E, "ST(0) to ST(7) would be taken for physical x87 registers"),
    "TK4": _Known("pic-edge", W, "an in-kernel PIC may never see the PIT's next edge, and the timer stands still"),
    "TK5": _Known("vcpu-run-state", E, "a vCPU that is halted or waits for its SIPI would run"),
    "KT7": _Known("vcpu-run-state", E, "a vCPU that is halted or waits for its SIPI would run"),
    "TK6": _Known("tsc", W, "the guest's TSC starts again: the ticks clock has it, env.tsc has not"),
    "KT5": _Known("tsc", W, "the guest's TSC goes back: TCG takes it from the ticks clock"),
    "TK7": _Known("tr-type", N, "TR is no busy TSS"),
    "KT3": _Known("tr-type", E, "TR is a busy TSS, in which TCG finds no I/O permissions: #GP"),
    "KT2": _Known("hidden-flags", E, "hflags lack what TCG keeps there: the first AVX instruction is #UD"),
    "KT4": _Known("pit-times", E, "the PIT's channel 0 stands still after one tick"),
    "TK11": _Known("interrupt-request", N, "TCG's own interrupt bits stay set"),
    "TK8": _Known("non-canonical", E, "an address that no WRMSR takes: QEMU aborts"),
    "TK9": _Known("illegal-registers", E, "a register value that no hypervisor takes"),
    "TK10": _Known("smm", N, "system management mode"),
    "TK12": _Known("pending-init", E, "an INIT or SIPI is pending, which only TCG keeps"),
    "MS3": _Known("nested-state", E, "state of nested guests or of Xen is the accelerator's own"),
    "KT9": _Known("paravirtual", W, "nobody serves what KVM served"),
    "KT11": _Known("queued-event", E, "an event that was about to be injected is not looked for"),
}
# Said elsewhere or without effect: a section that is refused, components, XSTATE_BV under TCG, what is not written.
ELSEWHERE = frozenset({"KT1", "TK3", "KT8", "MS1", "KT10", "MS5"})
HOW = {
    "proved": "measured with real QEMU and /dev/kvm",
    "source": "read in QEMU's source",
    "inferred": "inferred, not measured",
}

_RULE = re.compile(r" ?\((?:rule )?([A-Z]{2}\d+[a-z]?)(?:; --lossy drops it)?\)$")
_WHERE = re.compile(r"(.+?@\d+)(?:/(.*))?", re.DOTALL)
MAX_REFUSALS = 16

CR0_PE, CR0_NW, CR0_CD, CR0_PG = 1, 1 << 29, 1 << 30, 1 << 31
CR4_DEFINED = (1 << 33) - 1
MXCSR_DEFINED = 0x2FFFF
MAX_MP_STATE = 10
DR7_ENABLE = 0xFF
DEFAULT_PAT = 0x0007040600070406
APIC_ENABLED = 0x100  # SVR bit 8


def accelerator_losses(stream: Stream, target: Target) -> tuple[list[Finding], list[str]]:
    """Return findings, and what could not be judged."""
    if not stream.vcpus:
        return [], []
    if target.accelerator is None:
        return [], ["what the target's accelerator does with the state: say which one it is"]
    found: list[Finding] = []
    unknown: list[str] = []
    source = stream.accelerator.name
    if target.accelerator not in accelerators.TARGETS:
        unknown.append(f"what {target.accelerator} does with the state: nothing is known of it")
    elif source not in TRAITS:
        unknown.append("what the state means to another accelerator: who saved the file is not known (--accelerator)")
    elif source != target.accelerator:
        found += _conversion(stream, target)
    told = {one.device for one in found if one.rule == RULES["TK1"].name}
    for vcpu in stream.vcpus:
        if vcpu.device.label not in told:
            found += _undeclared(vcpu, target)
        if target.accelerator == "kvm":
            found += _dropped(vcpu, target)
        elif target.accelerator in ("mshv", "whpx"):
            found += _not_written(stream, vcpu, target.accelerator)
    return found, unknown


# -- what a field means ----------------------------------------------------------------------------------------------


def _conversion(stream: Stream, target: Target) -> Iterator[Finding]:
    """Give what the rules between both accelerators would change."""
    assert target.accelerator is not None  # noqa: S101 - the caller has looked
    refused: dict[str, str] = {}
    while True:
        draft = Draft(stream)
        try:
            accelerators.convert(draft, target.accelerator, mask=target.xcr0, lossy=True, without=refused)
            break
        except LiveStateError as error:
            match = _RULE.search(error.message)
            if match is None or match[1] in refused or len(refused) >= MAX_REFUSALS:
                raise
            refused[match[1]] = error.message[: match.start()]
        except UsageError as error:
            raise UnsupportedError(f"the conversion: {error.message}") from None
    statuses = {rule.name: rule.status for rule in accelerators.RULES}

    def made(rule: str, message: str, where: str | None = None, offset: int | None = None) -> Finding:
        known = RULES.get(rule, _Known(f"rule-{rule.lower()}", W, ""))
        match = _WHERE.fullmatch(where) if where else None
        return Finding(
            known.name,
            known.severity,
            message,
            f"{_how(statuses.get(rule, ''), target)} (rule {rule})",
            device=match[1] if match else None,
            field=match[2] if match else None,
            offset=offset,
        )

    for rule, message in refused.items():
        if rule not in ELSEWHERE:
            yield made(rule, message)
    vcpus = {vcpu.device.label: vcpu for vcpu in stream.vcpus}
    seen: set[str | None] = set()
    for change in draft.changes:
        if change.edit in ELSEWHERE or (change.edit == "TK4" and target.irqchip in ("split", "off")):
            continue
        known = RULES.get(change.edit)
        finding = made(change.edit, known.what if known else change.why, change.where, change.offset)
        vcpu = vcpus.get(finding.device or "")
        if change.edit == "TK1" and vcpu is not None:
            names = " ".join(mask_names(vcpu.undeclared))
            finding = replace(finding, message=f"XSTATE_BV {vcpu.xstate_bv:#x} does not declare {names}: lost on load")
        # The PIT has its times in three places.
        if change.edit != "KT4" or finding.device not in seen:
            yield finding
            seen.add(finding.device)
    for note in draft.notes:
        match = _RULE.search(note)
        if match is not None and match[1] not in ELSEWHERE:
            yield made(match[1], note[: match.start()])


def _undeclared(vcpu: VCpu, target: Target) -> Iterator[Finding]:
    """Give what XSTATE_BV does not declare: a hypervisor initialises it, whoever saved the stream."""
    traits = TRAITS.get(target.accelerator or "")
    if traits is None or not traits.declares:
        return
    lost = vcpu.undeclared & (vcpu.xcr0 | LEGACY_MASK)  # with SSE goes MXCSR
    where = vcpu.device.get("env.xstate_bv")
    if lost:
        yield Finding(
            RULES["TK1"].name,
            RULES["TK1"].severity,
            f"XSTATE_BV {vcpu.xstate_bv:#x} does not declare {' '.join(mask_names(lost))}: lost on load",
            f"{_how('proved', target)} (rule TK1)",
            device=vcpu.device.label,
            field="env.xstate_bv",
            offset=None if where is None else where.offset,
        )


def _how(status: str, target: Target) -> str:
    """Say how a rule is known; nothing could be run on Hyper-V."""
    if status == "proved" and target.accelerator in ("mshv", "whpx"):
        return "measured between TCG and KVM, inferred here"
    return HOW.get(status, "not measured")


# -- what KVM refuses, and 7.2 does not say --------------------------------------------------------------------------


def kvm_refusals(vcpu: VCpu, target: Target) -> Iterator[tuple[str, str, str]]:
    """Give (registers, field, why) for each group of registers that KVM would refuse, in the order they are written."""
    number = vcpu.device.number
    cr0, cr4 = number("env.cr[0]") or 0, (number("env.cr[4]") or 0) % (1 << 64)
    if cr0 & CR0_PG and not cr0 & CR0_PE:
        yield "special registers", "env.cr[0]", f"CR0 {cr0:#x} has PG without PE"
    if cr0 & CR0_NW and not cr0 & CR0_CD:
        yield "special registers", "env.cr[0]", f"CR0 {cr0:#x} has NW without CD"
    if cr4 & ~CR4_DEFINED:
        yield "special registers", "env.cr[4]", f"CR4 {cr4:#x} has reserved bits"
    if target.xcr0 is not None and vcpu.xstate_bv & ~target.xcr0:
        yield "XSAVE", "env.xstate_bv", f"XSTATE_BV {vcpu.xstate_bv:#x} has bits outside {target.xcr0:#x}"
    if vcpu.mxcsr & ~MXCSR_DEFINED:
        yield "XSAVE", "env.mxcsr", f"MXCSR {vcpu.mxcsr:#x} has reserved bits"
    reasons = check_xcr0(vcpu.xcr0) if vcpu.xcr0 else []
    if reasons:
        yield "XCRs", "env.xcr0", f"XCR0 {vcpu.xcr0:#x}: {'; '.join(reasons)}"
    state = number("env.mp_state") or 0
    if not 0 <= state <= MAX_MP_STATE:
        yield "MP state", "env.mp_state", f"mp_state {state}"


def _dropped(vcpu: VCpu, target: Target) -> Iterator[Finding]:
    """Give the group that KVM refuses, where QEMU goes on without a word: with it go those behind it."""
    if target.qemu is not None and target.qemu >= (10, 0):
        return  # it ends with an error, which is predicted
    for group, path, why in itertools.islice(kvm_refusals(vcpu, target), 1):
        field = vcpu.device.get(path)
        yield Finding(
            "kvm-drops-registers",
            Severity.ERROR,
            f"{why}: KVM refuses {group}, and QEMU drops it and every group behind it",
            "QEMU 7.2 prints nothing and drops that group and all that follow: XSAVE, XCR0, every MSR, the MTRRs, "
            "pending events, mp_state (measured; 10.0 and 11.1 end with an error)",
            device=vcpu.device.label,
            field=path,
            offset=None if field is None else field.offset,
        )


# -- what Hyper-V's accelerators do not write ------------------------------------------------------------------------


def _not_written(stream: Stream, vcpu: VCpu, accelerator: str) -> Iterator[Finding]:
    """Give what QEMU 11.1 does not write to a vCPU of an MSHV or WHPX partition, where it is not as after a reset."""
    source = "seen in what QEMU 11.1 wrote to a stand-in of /dev/mshv" if accelerator == "mshv" else "read in QEMU 10.2"
    reason = f"QEMU does not write it to the partition ({source})"
    number = vcpu.device.number

    def made(what: str, path: str, device: str | None = None, severity: Severity = Severity.ERROR) -> Finding:
        field = vcpu.device.get(path) if device is None else stream.device(device).get(path)
        offset = None if field is None else field.offset
        return Finding("not-written", severity, what, reason, device or vcpu.device.label, path, offset)

    debug = vcpu.device.get("env.dr")
    values = debug.value if debug is not None else None
    if isinstance(values, list) and len(values) == 8 and isinstance(values[7], int) and values[7] & DR7_ENABLE:
        yield made(f"debug registers are in use: DR7 {values[7]:#x}", "env.dr")
    if accelerator == "whpx":
        pat = (number("env.pat") or 0) % (1 << 64)
        if pat not in (0, DEFAULT_PAT):
            yield made(f"PAT is {pat:#x}", "env.pat")
        if number("env.mtrr_deftype"):
            yield made("MTRRs are set up", "env.mtrr_deftype", severity=Severity.WARNING)
        for path in ("cpu/xss", "cpu/cet"):
            if vcpu.device.subsection(path) is not None:
                yield made(f"{path} is there", path)
    for name in ("synic", "stimer") if accelerator == "mshv" else ("hypercall", "time", "synic", "stimer"):
        path = f"cpu/msr_hyperv_{name}"
        if vcpu.device.subsection(path) is not None:
            yield made(f"the guest uses Hyper-V's {name}", path)
    if accelerator == "mshv":
        # A vCPU that is halted (3) is so in cpu_common, too.
        if number("env.mp_state") in (1, 2):
            yield made(f"mp_state is {number('env.mp_state')}", "env.mp_state")
        if number("cpu/msr_tscdeadline/env.tsc_deadline"):
            yield made("the TSC deadline timer is armed", "cpu/msr_tscdeadline/env.tsc_deadline")
        apic = _apic(stream, vcpu)
        if apic is not None and (stream.device(apic).number("spurious_vec") or 0) & APIC_ENABLED:
            yield made("the local APIC is enabled: its timer, vectors and what is in service", "spurious_vec", apic)


def _apic(stream: Stream, vcpu: VCpu) -> str | None:
    """Return the label of a vCPU's APIC: both rise together, but APIC IDs may have gaps."""
    apics = sorted(d.instance_id for d in stream.devices if d.name == "apic")
    index = stream.vcpus.index(vcpu)
    return f"apic@{apics[index]}" if len(apics) == len(stream.vcpus) else None
