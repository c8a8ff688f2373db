"""Silent losses between accelerators: the same field has another meaning, or is not written to the vCPU at all.

The rules of :mod:`qmigtool.rewrite.accelerators` contain the meaning of a field to another accelerator; each is proved
by leaving it out. They are applied here to a draft that is never written: each change that they make is a loss without
the conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qmigtool.errors import LiveStateError, UnsupportedError, UsageError
from qmigtool.findings import Finding, Severity
from qmigtool.findings.model import Wide
from qmigtool.preflight.loader.postload import NOT_SILENT
from qmigtool.preflight.losses.judged import Judged
from qmigtool.preflight.remark import remark
from qmigtool.preflight.target.versions import possible
from qmigtool.rewrite import accelerators
from qmigtool.rewrite.accelerators.extended import UNDECLARED
from qmigtool.rewrite.accelerators.unwritten import unwritten
from qmigtool.rewrite.draft import Draft
from qmigtool.util.text import is_wide
from qmigtool.x86.kvm import Group, lost_with, refusals
from qmigtool.x86.lapic import LAPIC, pairs
from qmigtool.x86.traits import HYPERV, TRAITS, traits_of
from qmigtool.xsave import mask_names

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.parsers.vmstate import Field
    from qmigtool.preflight.target.model import Target
    from qmigtool.rewrite.accelerators.rule import ConversionRule, Loss
    from qmigtool.rewrite.changes import Change
    from qmigtool.stream.model import Stream
    from qmigtool.x86.vcpu import VCpu

__all__ = ["CONVERSION", "WHO_SAVED", "accelerator_losses"]

WHO_SAVED = remark(
    "the meaning of the state to another accelerator: the accelerator that saved the file is unknown; --accelerator "
    "NAME decides it",
    rule="who-saved",
)


CONVERSION = frozenset(rule.loss.name for rule in accelerators.RULES if rule.loss is not None)
"""The findings that a conversion to the target's accelerator fixes."""
HOW = {
    "proved": "measured with real QEMU and /dev/kvm",
    "source": "read in QEMU's source",
    "inferred": "inferred, not measured",
}

MAX_REFUSALS = 16


def accelerator_losses(stream: Stream, target: Target) -> Judged:
    """Return findings, and what could not be checked."""
    judged = Judged()
    if not stream.vcpus:
        return judged
    if target.accelerator is None:
        judged.doubt("the meaning of the state to the target's accelerator: name the accelerator")
        return judged
    found = judged.findings
    source = stream.accelerator.name
    if target.accelerator not in accelerators.TARGETS:
        judged.doubt(f"the meaning of the state to {target.accelerator}: qmigtool has no data about this accelerator")
    elif source not in TRAITS:
        judged.doubts.append(WHO_SAVED)
    elif source != target.accelerator:
        found += _conversion(stream, target)
    told = {one.device for one in found if one.rule == UNDECLARED.name}
    for vcpu in stream.vcpus:
        if vcpu.device.label not in told:
            found += _undeclared(vcpu, target)
        if traits_of(target.accelerator).kernel:
            found += _dropped(vcpu, target, judged)
        elif target.accelerator in HYPERV:
            found += _not_written(stream, vcpu, target.accelerator)
    return judged


def as_value(value: Any, field: Field | None) -> Any:
    """Return the value of a field, before or after a change, among those of a finding."""
    wide = field is not None and is_wide(field.type)
    return Wide(value) if wide and type(value) is int and value >= 0 else value


# -- the meaning of a field ------------------------------------------------------------------------------------------


def _conversion(stream: Stream, target: Target) -> Iterator[Finding]:
    """Yield what the rules between both accelerators would change."""
    assert target.accelerator is not None  # noqa: S101 - the caller has checked it
    refused: dict[str, str] = {}
    while True:
        draft = Draft(stream)
        try:
            accelerators.convert(draft, target.accelerator, mask=target.xcr0, lossy=True, without=refused)
            break
        except LiveStateError as error:
            if not error.rule or error.rule in refused or len(refused) >= MAX_REFUSALS:
                raise
            refused[error.rule] = error.told
        except UsageError as error:
            raise UnsupportedError(f"the conversion: {error.message}") from None
    rules = {rule.name: rule for rule in accelerators.RULES}
    devices = {device.label: device for device in stream.devices}

    def made(rule: ConversionRule, loss: Loss, message: str, change: Change | None = None) -> Finding:
        within = change if change is not None and change.device is not None else None
        device = None if within is None else devices.get(within.device or "")  # None: the conversion adds it
        field = None if within is None or device is None else device.get(within.path)
        values = {} if within is None else {"value": as_value(within.a, field), "expected": as_value(within.b, field)}
        return Finding(
            loss.name,
            loss.severity,
            message,
            _how(rule.status, target),
            device=within.device if within else None,
            path=within.path if within else "",
            offset=change.offset if change else None,
            values=values,
        )

    for name, message in refused.items():
        rule = rules[name]
        if rule.loss is not None:
            yield made(rule, rule.loss, message)
    vcpus = {vcpu.device.label: vcpu for vcpu in stream.vcpus}
    seen: set[str | None] = set()
    for change in draft.changes:
        rule = rules[change.edit]
        if rule.loss is None or (rule.name == "pic-edge" and target.irqchip in ("split", "off")):
            continue
        finding = made(rule, rule.loss, rule.loss.message, change)
        vcpu = vcpus.get(finding.device or "")
        if rule.loss is UNDECLARED and vcpu is not None:
            names = " ".join(mask_names(vcpu.undeclared))
            finding = replace(finding, message=f"XSTATE_BV {vcpu.xstate_bv:#x} does not declare {names}: lost on load")
        # The PIT stores its times in three places.
        if rule.name != "pit-times" or finding.device not in seen:
            yield finding
            seen.add(finding.device)
    for note in draft.notes:
        if not note.rule:
            continue  # about the stream
        rule = rules[note.rule]
        if rule.loss is not None:
            yield made(rule, rule.loss, note.message)


def _undeclared(vcpu: VCpu, target: Target) -> Iterator[Finding]:
    """Yield what XSTATE_BV does not declare: a hypervisor initialises it, whichever accelerator saved the stream."""
    if target.accelerator not in TRAITS or not TRAITS[target.accelerator].declares:
        return
    lost = vcpu.lost_undeclared
    where = vcpu.device.get("env.xstate_bv")
    if lost:
        yield Finding(
            UNDECLARED.name,
            UNDECLARED.severity,
            f"XSTATE_BV {vcpu.xstate_bv:#x} does not declare {' '.join(mask_names(lost))}: lost on load",
            _how("proved", target),
            device=vcpu.device.label,
            path="env.xstate_bv",
            offset=None if where is None else where.offset,
            values={
                "value": Wide(vcpu.xstate_bv),
                "expected": Wide(vcpu.xstate_bv | lost),
                "components": mask_names(lost),
            },
        )


def _how(status: str, target: Target) -> str:
    """Return how a rule is known; no test ran on Hyper-V."""
    if status == "proved" and target.accelerator in HYPERV:
        return "measured between TCG and KVM, inferred here"
    return HOW.get(status, "not measured")


# -- what KVM refuses and QEMU 7.2 does not report -------------------------------------------------------------------


def _dropped(vcpu: VCpu, target: Target, judged: Judged) -> Iterator[Finding]:
    """Yield the group that KVM refuses where QEMU continues silently: it and the groups after it are lost."""
    versions, _ = possible(target)
    if versions.first >= NOT_SILENT:
        return  # it ends with an error, which is predicted
    if asked := target.unknown_components(vcpu.xcr0 | vcpu.xstate_bv):
        judged.doubt(
            f"whether the host has {' '.join(mask_names(asked))}: without it QEMU 7.2 drops registers",
            components=mask_names(asked),
        )
    first = next((one for one in refusals(vcpu.device.number, target.xcr0) if one.certain), None)
    if first is None or first.group is Group.MSRS:
        return  # 7.2 also aborts at an MSR
    field = vcpu.device.get(first.path)
    yield Finding(
        "kvm-drops-registers",
        Severity.ERROR,
        f"{first.why}: KVM refuses {first.group}, and QEMU drops it and every group after it",
        f"QEMU 7.2 prints nothing and drops {lost_with(first.group)} (measured; 10.0 and 11.1 end with an error)",
        device=vcpu.device.label,
        path=first.path,
        offset=None if field is None else field.offset,
        values={"group": first.group.value, "value": as_value(vcpu.device.word(first.path), field)},
    )


# -- what the accelerators of Hyper-V do not write -------------------------------------------------------------------


def _not_written(stream: Stream, vcpu: VCpu, accelerator: str) -> Iterator[Finding]:
    """Yield what QEMU does not write to a vCPU of an MSHV or WHPX partition and is not at its reset value."""
    reason = f"QEMU does not write it to the partition ({TRAITS[accelerator].unwritten})"
    for lost in unwritten(accelerator, vcpu.device, _apic(stream, vcpu)):
        field = lost.device.get(lost.path)
        offset = None if field is None else field.offset
        yield Finding(
            "not-written",
            lost.severity,
            lost.what,
            reason,
            device=lost.device.label,
            path=lost.path,
            offset=offset,
            values={} if field is None else {"value": as_value(field.value, field)},
        )


def _apic(stream: Stream, vcpu: VCpu) -> Device | None:
    """Return a vCPU's APIC; None if it has none, or nothing shows which one is its own."""
    lapics = sorted((one for one in stream.devices if one.name == LAPIC), key=lambda one: one.instance_id)
    return next((lapic for cpu, lapic in pairs(stream.vcpus, lapics) or () if cpu is vcpu), None)
