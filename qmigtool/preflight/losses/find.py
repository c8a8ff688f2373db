"""Silent losses of a stream on a target, as findings.

This module finds what the target has and the stream lacks (vCPUs, sections, subsections, RAM blocks); :mod:`.cpu` and
:mod:`.accelerator` find the rest.

An ``error`` is guest state that is certainly lost, a ``warning`` is a possible loss, a ``note`` is a reset value
that stays. ``reason`` is how the fact is known: measured with real QEMU, read in its source, or inferred.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.devices.blocknames import is_rom
from qmigtool.errors import QmigError
from qmigtool.findings import Finding, Severity
from qmigtool.parsers.vmstate import Kind
from qmigtool.preflight.losses.accelerator import accelerator_losses
from qmigtool.preflight.losses.cpu import cpu_losses
from qmigtool.preflight.remark import MEASURED, remark
from qmigtool.preflight.target.vcpus import MAX_VCPUS, NUMBERED, VCPU_SECTIONS, vcpus_of
from qmigtool.stream.missing import missing_memory
from qmigtool.stream.words import not_reached
from qmigtool.x86.lapic import LAPIC, pairs

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.parsers.vmdesc import Description
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream.model import Stream

__all__ = ["MISSING_PAGES", "MISSING_VCPU", "Losses", "find_losses", "grouped"]

ANY_INSTANCE = 0xFFFFFFFF  # -1: an alias that matches every instance
MISSING_PAGES, MISSING_VCPU = "missing-pages", "missing-vcpu"
_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}


class Losses(NamedTuple):
    """The findings, most severe first, and what could not be checked.

    ``doubts`` is the part of ``unknown`` that may cost this stream a register or a device.
    """

    findings: tuple[Finding, ...]
    unknown: tuple[Finding, ...]
    doubts: tuple[Finding, ...] = ()


def find_losses(stream: Stream, target: Target) -> Losses:
    """Return the state of a stream that a target would lose on loading it."""
    stream.prove()
    findings = list(_missing_vcpus(stream, target))
    findings += _missing_sections(stream, target)
    findings += _missing_blocks(stream, target)
    findings += _missing_pages(stream)
    unknown: list[Finding] = list(_not_reached(stream, target))
    doubts: list[Finding] = []
    if target.sections is None:
        unknown.append(remark("sections that the target has and the file lacks: give a stream saved by the target"))
    for judge in (cpu_losses, accelerator_losses):
        try:
            found = judge(stream, target)
        except QmigError as error:
            doubts.append(remark(f"the state of the vCPUs: {error}"))
            continue
        findings += found.findings
        unknown += found.unknown
        doubts += found.doubts
    # The sort is stable: findings of one severity stay in the order of the stream.
    ordered = tuple(sorted(findings, key=lambda f: _ORDER[f.severity]))
    return Losses(ordered, tuple(dict.fromkeys((*doubts, *unknown))), tuple(dict.fromkeys(doubts)))


def grouped(findings: Sequence[Finding]) -> list[Finding]:
    """Merge findings that differ only in the device's instance: ``cpu@0,2-5``, with the offset of the first."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for one in findings:
        name, _, instance = (one.device or "").rpartition("@")
        alone = one.device if not instance.isdecimal() else None
        groups.setdefault((one.rule, one.severity, one.message, one.reason, name, alone, one.path), []).append(one)
    return [
        group[0] if len(group) == 1 else replace(group[0], device=f"{key[4]}@{_ranges(group)}")
        for key, group in groups.items()
    ]


def _ranges(group: Sequence[Finding]) -> str:
    numbers = sorted({int((one.device or "").rpartition("@")[2]) for one in group})
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


# -- state that the file lacks ---------------------------------------------------------------------------------------


def _not_reached(stream: Stream, target: Target) -> Iterator[Finding]:
    """Yield what the target has and the file may have after the place where reading stopped."""
    if stream.stopped is None:
        return
    there = {(device.name, device.instance_id): device for device in stream.devices}
    sections = [
        f"{name}@{instance}"
        for (name, instance), section in (target.sections or {}).items()
        if (section.description is not None or section.template is not None)
        and _sent_as(there, name, instance) is None
        and stream.may_have(name, instance)
    ]
    if sections:
        count = f"{len(sections)} sections that the target has, from {sections[0]} on, are"
        yield remark(f"{count if len(sections) > 1 else f'{sections[0]} is'} {not_reached(stream.stopped)}")


def _missing_vcpus(stream: Stream, target: Target) -> Iterator[Finding]:
    """Yield the vCPUs of the target that the guest does not have."""
    sent = vcpus_of(stream)
    for instance in sorted(_missing(sent, target)):
        if stream.may_have("cpu", instance):
            continue
        yield Finding(
            MISSING_VCPU,
            Severity.WARNING,
            f"the target has this vCPU, the file has only {len(sent)}: it stays in its reset state",
            f"QEMU reports no error for a section that is not sent ({MEASURED}); the guest does not know this vCPU",
            device=f"cpu@{instance}",
            values={"value": len(sent), "expected": max(instance + 1, target.vcpus or 0)},
        )


def _missing(sent: set[int], target: Target) -> set[int]:
    """Return the vCPUs of the target that the file does not have; none if it has no vCPU at all."""
    shown = {instance for name, instance in target.sections or {} if name == "cpu"}
    own = shown or set(range(min(target.vcpus or 0, MAX_VCPUS)))
    return own - sent if sent else set()


def _sections_of(vcpus: set[int], target: Target) -> set[tuple[str, int]]:
    """Return the sections of these vCPUs."""
    instances = {name: sorted(i for other, i in target.sections or {} if other == name) for name in VCPU_SECTIONS}
    number = {lapic: cpu for cpu, lapic in pairs(instances["cpu"], instances[LAPIC]) or ()}
    return {
        (name, instance)
        for name, found in instances.items()
        for instance in found
        if (number.get(instance) if name == LAPIC else instance) in vcpus
    }


def _missing_sections(stream: Stream, target: Target) -> Iterator[Finding]:
    there = {(device.name, device.instance_id): device for device in stream.devices}
    vcpus = vcpus_of(stream)
    told = _sections_of(_missing(vcpus, target), target)
    for (name, instance), section in (target.sections or {}).items():
        if (section.description is None and section.template is None) or (name, instance) in told:
            continue  # a live section: memory; or reported already
        device = _sent_as(there, name, instance)
        label = f"{name}@{instance}"
        if device is None and stream.may_have(name, instance):
            continue  # reported as not reached
        if device is None:
            grave = name == "timer" or (name in NUMBERED and instance in vcpus)
            if name == "kvmclock":
                grave = any((vcpu.device.number("env.system_time_msr") or 0) & 1 for vcpu in stream.vcpus)
            yield Finding(
                "missing-section",
                Severity.WARNING if grave else Severity.NOTE,
                "the target has this section, the file does not: it keeps its reset values",
                f"QEMU reports no error for a section that is not sent ({MEASURED})",
                device=label,
            )
        else:
            yield from _missing_subsections(device, section.description)


def _sent_as(there: dict[tuple[str, int], Device], name: str, instance: int) -> Device | None:
    """Return the device that a target's section loads: also by its name without a path, and by an alias instance."""
    for one in dict.fromkeys((name, name.rsplit("/", 1)[-1])):
        for number in (instance, ANY_INSTANCE):
            if (one, number) in there:
                return there[one, number]
    return None


def _missing_subsections(device: Device, description: Description | None) -> Iterator[Finding]:
    """Yield the subsections that the target sends right after its start and the file does not have."""
    try:
        sent = {field.name for field in device.fields if field.kind is Kind.SUBSECTION}
    except QmigError:
        return
    for subsection in description.subsections if description is not None else ():
        if subsection.name not in sent:
            yield Finding(
                "missing-subsection",
                Severity.NOTE,
                f"the target sends {subsection.name}, the file does not: its fields keep their reset values",
                f"a subsection that is not sent is not an error ({MEASURED})",
                device=device.label,
                path=subsection.name,
                offset=device.section.offset,
            )


def _missing_blocks(stream: Stream, target: Target) -> Iterator[Finding]:
    listed = {block.idstr: block.used_length for block in stream.ram_blocks}
    for name, block in (target.blocks or {}).items():
        size = listed.get(name)
        if size is None and (stream.stopped is None or stream.lists_blocks):
            memory = not is_rom(name)
            yield Finding(
                "missing-block",
                Severity.WARNING if memory else Severity.NOTE,
                f"the target has the RAM block {name} of {block.used_length:#x} bytes, the file does not: "
                + ("it stays empty" if memory else "it keeps the bytes of the target"),
                f"QEMU reports no error for a block that is not listed ({MEASURED})",
                device=name,
                values={"expected": block.used_length},
            )


def _missing_pages(stream: Stream) -> Iterator[Finding]:
    """Report that the input does not contain all of memory: a loss, unless there is an excuse."""
    lacking = missing_memory(stream)
    if lacking is not None and stream.stopped is None:
        yield Finding(
            MISSING_PAGES,
            Severity.NOTE if lacking.excuse else Severity.ERROR,
            lacking.words,
            "a page that is not sent keeps the target's bytes; multifd and postcopy send pages on other "
            f"channels; `rewrite --channel ... --ram plain` joins them ({MEASURED})",
            device="ram@0",
        )
