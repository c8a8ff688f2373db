"""Fixes of sections and subsections that the target does not know, or whose version it does not know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qmigtool.parsers.vmstate import Field, Kind
from qmigtool.preflight.remedies.fix import Fix, edit, join
from qmigtool.preflight.target.model import Target, TargetSection
from qmigtool.preflight.target.vcpus import VCPU_SECTIONS, vcpus_of
from qmigtool.rewrite.values import text_of
from qmigtool.x86.lapic import LAPIC
from qmigtool.x86.traits import TRAITS

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.stream.model import Stream

__all__ = ["device_of", "run_state", "subsection", "subsection_version", "tsc", "unknown_section"]

PAUSED = "paused"
ACCELERATOR_SECTIONS = frozenset(section for traits in TRAITS.values() for section in traits.sections)


def unknown_section(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Drop a section that the target does not have, or name the option that gives the target the missing vCPUs."""
    device = device_of(stream, verdict)
    if device is None:
        return None
    if target.sections is None:  # only its number of vCPUs is known
        count = len(vcpus_of(stream))
        return Fix(options=(f"-smp {count}",), target=replace(target, vcpus=count))
    if device.name in VCPU_SECTIONS:
        # Dropping them would lose vCPUs of the guest: only options of the target fix this.
        count = sum(d.name == "cpu" for d in stream.devices)
        own = {(d.name, d.instance_id): _as_sent(d) for d in stream.devices if d.name in VCPU_SECTIONS}
        more = {key: target.sections.get((key[0], 0), section) for key, section in own.items()}
        known = replace(target, sections={**more, **target.sections}, vcpus=count)
        lacks = device.name == LAPIC and not any(name == LAPIC for name, _ in target.sections)
        return Fix(options=("-cpu with +apic" if lacks else f"-smp {count}",), target=known)
    lost = [] if device.name in ACCELERATOR_SECTIONS else [f"the state of {device.label}"]
    return join(_drop(device), options=(f"give the target the device {device.name}",) if lost else (), loses=lost)


def _as_sent(device: Device) -> TargetSection:
    """Return the section of a target that is the machine that saved the stream."""
    description = device.description
    return TargetSection(device.version_id, None, description.name if description else None, description)


def _drop(device: Device) -> Fix:
    return edit("drop-section", device.label, path=device.label)


def subsection(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Drop every subsection that the target does not know, of all devices named like the one at which it stopped."""
    return _drop_subsections(stream, verdict, lambda device, parent, one: not _knows(device, target, parent, one.name))


def subsection_version(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Drop the subsections whose version the target does not accept."""
    return _drop_subsections(stream, verdict, lambda device, parent, one: not _takes(target, one))


def _takes(target: Target, subsection: Field) -> bool:
    known = (target.vmsds or {}).get(subsection.name)
    if known is None or known.version is None or subsection.version_id is None:
        return True
    return (known.minimum_version or 0) <= subsection.version_id <= known.version


def _drop_subsections(stream: Stream, verdict: Verdict, unwanted: Callable[[Device, str, Field], bool]) -> Fix | None:
    fixes, lost = [], []
    stopped = device_of(stream, verdict)
    for device in stream.devices:
        if stopped is None or device.name != stopped.name:
            continue
        for path, parent, one in _subsections(device):
            if unwanted(device, parent, one):
                where = f"{device.label}/{path}"
                fixes.append(edit("drop-subsection", where, path=where))
                lost.append(f"the contents of {where}")
    return join(*fixes, loses=lost) if fixes else None


def _subsections(device: Device) -> Iterator[tuple[str, str, Field]]:
    """Yield (path, name of the enclosing vmsd, field) of each subsection that is not inside another one."""
    own = device.description.name if device.description is not None else device.name

    def walk(fields: Sequence[Field], prefix: str, around: str) -> Iterator[tuple[str, str, Field]]:
        for one in fields:
            if one.kind is Kind.SUBSECTION:
                yield prefix + one.name, around, one
            elif one.kind is Kind.STRUCT:
                yield from walk(one.children, f"{prefix}{one.name}/", one.struct_name or "")
            elif one.kind is Kind.ARRAY:
                for index, element in enumerate(one.children):
                    if element.children:
                        here = f"{prefix}{one.name}[{index}]/"
                        yield from walk(element.children, here, element.struct_name or one.struct_name or "")

    yield from walk(device.fields, "", own)


def _knows(device: Device, target: Target, parent: str, name: str) -> bool:
    vmsd = (target.vmsds or {}).get(parent)
    if vmsd is not None:
        return name in vmsd.subsections
    section = (target.sections or {}).get((device.name, device.instance_id))
    return section is None or section.subsections is None or name in section.subsections


def device_of(stream: Stream, verdict: Verdict) -> Device | None:
    """Return the device at which the target stopped: it may have read beyond the end of that device's section."""
    named = [device for device in stream.devices if device.name == verdict.section]
    if verdict.offset is None:
        return named[0] if named else None
    if named:
        before = [device for device in named if device.section.offset <= verdict.offset]
        return before[-1] if before else named[0]
    for device in stream.devices:
        section = device.section
        if section.offset <= verdict.offset < section.end:
            return device
    return None


def tsc(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Drop the TSC's frequency: the target has another one."""
    fix = _drop_subsections(stream, verdict, lambda device, parent, one: one.name == "cpu/tsc_khz")
    khz = next((k for v in stream.vcpus if (k := v.device.number("cpu/tsc_khz/env.tsc_khz"))), None)
    if fix is None or khz is None:
        return None
    return replace(fix, options=(f"-cpu MODEL,tsc-frequency={khz * 1000}",), loses=())


def run_state(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Set the run state to one that every QEMU knows: paused, so that the user continues the guest by hand."""
    device = device_of(stream, verdict)
    if device is None or device.name != "globalstate":
        return None
    path = f"{device.label}/runstate"
    field = device.get("runstate")
    if field is None or field.raw.rstrip(b"\0") == PAUSED.encode():
        return None
    fixes = [edit("set", f"{path}={PAUSED}", path=path, to=PAUSED)]
    size = device.get("size")
    if size is not None:  # of the text with its NUL, as QEMU writes it
        fixes.insert(
            0, edit("set", f"{device.label}/size={len(PAUSED) + 1}", path=f"{device.label}/size", to=len(PAUSED) + 1)
        )
    old = text_of(field.raw)
    options = ("drop the section: --drop-section globalstate",)
    return join(*fixes, options=options, loses=[f"the run state {old or field.raw[:16].hex()!r}: it becomes paused"])
