"""A target read from a stream that it saved, and several partial targets joined to one.

Such a *reference* takes a second to make: start the target's command line with ``-S`` instead of ``-incoming``, then
``migrate "exec:cat > reference.mig"`` in its monitor. It contains every registered section with its version and a
body, but not the subsections that only some guests cause; :mod:`.dump` adds those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from qmigtool.devices.blocknames import RESIZABLE
from qmigtool.errors import QmigError, UsageError
from qmigtool.parsers.configuration import COMPARED
from qmigtool.parsers.section import Type
from qmigtool.preflight.target.acpi import maxcpus_of
from qmigtool.preflight.target.model import Target, TargetBlock, TargetSection, TargetVmsd
from qmigtool.preflight.target.versions import bounds_of_stream
from qmigtool.x86.traits import traits_of
from qmigtool.xsave import SUPERVISOR_MASK

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.stream.model import Stream

__all__ = ["merge", "target_from_stream"]


def target_from_stream(stream: Stream, name: str | None = None) -> Target:
    """Return the target that a reference stream shows.

    The accelerator is detected in the stream (``evidence`` contains how); the stream does not contain its QEMU's
    version, but bounds of it. Raises :class:`~qmigtool.errors.UsageError` if there is no device state, and the
    stream's first problem if it is broken.
    """
    stream.prove()
    sections = {(one.name or "", one.instance_id or 0): TargetSection(one.version_id or 0) for one in _live(stream)}
    if stream.problems:
        raise stream.problems[0]
    if not stream.devices:
        raise UsageError("the reference has no device state", expected="a stream saved by the target")
    sections |= {(device.name, device.instance_id): _section(device) for device in stream.devices}
    configuration = stream.configuration
    origin = name or stream.source.name
    accelerator = stream.accelerator
    vcpus = sum(device.name == "cpu" for device in stream.devices)
    target = Target(
        name=origin,
        bounds=bounds_of_stream(stream),
        machine=stream.machine,
        accelerator=None if accelerator.name == "unknown" else accelerator.name,
        vcpus=vcpus or None,
        maxcpus=maxcpus_of(stream),
        page_bits=stream.page_size.bit_length() - 1,
        capabilities={} if configuration is None else {one: one in configuration.capabilities for one in COMPARED},
        properties={
            "send-configuration": configuration is not None,
            "send-section-footer": stream.footers,
            "suppress-vmdesc": stream.vmdesc is None,
        },
        sections=sections,
        blocks=_blocks(stream),
        # Only KVM sends a frequency that the command line does not set.
        xcr0_shown=_xcr0(stream),
        tsc_khz=None if traits_of(accelerator.name).kernel else _tsc_khz(stream),
        host_tsc_khz=_tsc_khz(stream) if traits_of(accelerator.name).kernel else None,
    )
    how = f"{origin}, a stream saved by the target"
    more = {"accelerator": f"{how}: {accelerator.evidence[0]}"} if target.accelerator else {}
    return replace(target, evidence=dict.fromkeys(known_parts(target), how) | more)


def _live(stream: Stream) -> Iterator[Any]:
    """Yield the sections that are sent in several parts: memory."""
    return (section for section in stream.sections if section.type is Type.START)


def _section(device: Device) -> TargetSection:
    """Return the target's section that a device shows; a body without a description remains a template."""
    description = device.description
    try:
        _ = device.fields
        device.check_length()  # the target does not read a body by a wrong description
    except QmigError:
        description = None
    named = description is not None and (len(description.fields) != 1 or description.fields[0].name != "data")
    return TargetSection(
        version=device.version_id,
        vmsd=description.name if description is not None and named else None,
        description=description,
        template=device.body,
    )


def _blocks(stream: Stream) -> dict[str, TargetBlock]:
    """Return the RAM blocks; with x-ignore-shared also the address of each, and whether its pages are omitted."""
    ignored: set[str] = set()
    if "x-ignore-shared" in stream.capabilities:
        try:
            ignored = {name for name, counts in stream.ram.count().items() if not any(counts.values())}
        except QmigError:
            ignored = set()
    return {
        block.idstr: TargetBlock(
            block.used_length,
            RESIZABLE.get(block.idstr),
            block.mr_addr,
            None if block.mr_addr is None else block.idstr in ignored,
        )
        for block in stream.ram_blocks
    }


def _xcr0(stream: Stream) -> int:
    """Return the components that any vCPU has enabled: KVM accepts no others."""
    found = 0
    for vcpu in stream.vcpus:
        found |= vcpu.device.number("env.xcr0") or 0
    return found & ~SUPERVISOR_MASK if traits_of(stream.accelerator.name).kernel else 0


def _tsc_khz(stream: Stream) -> int | None:
    for vcpu in stream.vcpus:
        khz = vcpu.device.number("cpu/tsc_khz/env.tsc_khz")
        if khz:
            return khz
    return None


# -- several targets -------------------------------------------------------------------------------------------------


def known_parts(target: Target) -> list[str]:
    """Return the names of the parts of a target that are known."""
    parts = (field.name for field in fields(Target) if field.name not in ("name", "evidence"))
    return [
        part
        for part in parts
        if getattr(target, part) not in (None, (), {}) and (part != "xcr0_shown" or target.xcr0_shown)
    ]


def merge(*targets: Target) -> Target:
    """Join partial targets: a later one overrides an earlier one, and tables are joined entry by entry.

    Two masks of components are intersected.
    The :class:`~.model.TargetVmsd` of a section's vmsd is then copied into the section.
    ``evidence`` stays with each part; if a part comes from several targets, all are named.
    """
    joined = targets[0] if targets else Target()
    for other in targets[1:]:
        joined = _join(joined, other)
    if joined.sections is None or joined.vmsds is None:
        return joined
    vmsds = _of_this_machine(joined.vmsds, joined.sections)
    filled = {key: _filled(section, vmsds) for key, section in joined.sections.items()}
    return replace(joined, sections=filled, vmsds=vmsds)


def _of_this_machine(
    vmsds: Mapping[str, TargetVmsd], sections: Mapping[tuple[str, int], TargetSection]
) -> dict[str, TargetVmsd]:
    """Drop the vmsds that a section of the target shows to be different: ``cpu`` of x86 is not ``cpu`` of s390x."""
    others = set()
    for section in sections.values():
        vmsd = vmsds.get(section.vmsd or "")
        if vmsd is not None and vmsd.version not in (None, section.version):
            others.add(section.vmsd)
    return {name: one for name, one in vmsds.items() if name.partition("/")[0] not in others and name not in others}


_JOINED = ("capabilities", "properties", "sections", "vmsds", "blocks", "xcr0", "xss", "absent", "bounds")


def _join(first: Target, second: Target) -> Target:
    changes: dict[str, Any] = {"name": f"{first.name} + {second.name}"}
    evidence = dict(first.evidence)
    known = known_parts(first)
    for part in known_parts(second):
        old, new = getattr(first, part), getattr(second, part)
        both = part in known and isinstance(old, Mapping)
        if both and part in ("sections", "vmsds"):
            changes[part] = {**old, **{key: _over(old.get(key), value) for key, value in new.items()}}
        elif both:
            changes[part] = {**old, **new}
        elif part == "xcr0_shown":
            changes[part] = old | new
        elif part in ("xcr0", "xss") and part in known:
            changes[part] = old & new  # a vCPU has what both its model and its host have
        elif part in ("absent", "bounds"):
            changes[part] = (*old, *new)
        else:
            changes[part] = new
        words = second.evidence.get(part)
        if words is not None:
            evidence[part] = f"{evidence[part]}; {words}" if part in _JOINED and part in evidence else words
    return replace(first, **changes, evidence=evidence)


def _over(old: Any, new: Any) -> Any:
    """Override an entry by another one of the same key: what the new one does not know stays."""
    if old is None:
        return new
    told = {field.name: value for field in fields(new) if (value := getattr(new, field.name)) is not None}
    if isinstance(new, TargetVmsd):
        told["subsections"] = old.subsections | new.subsections
        told["maybe"] = (old.maybe | new.maybe) - told["subsections"]
    return replace(old, **told)


def _filled(section: TargetSection, vmsds: Mapping[str, TargetVmsd]) -> TargetSection:
    vmsd = vmsds.get(section.vmsd or "")
    if vmsd is None or vmsd.maybe or vmsd.version not in (None, section.version):
        return section
    known = section.minimum_version
    return replace(
        section,
        minimum_version=vmsd.minimum_version if known is None else known,
        subsections=(section.subsections or frozenset()) | vmsd.subsections,
    )
