"""What mends each kind of refusal: edits of the stream, or options of the target's QEMU that do instead.

:data:`PLANNERS` maps the rule of a :class:`~qmigtool.preflight.predict.Verdict` to a function of the stream as it is
by then, the target and the verdict. It compares stream and target itself: a verdict says what QEMU met first, and one
edit may take all of its kind away.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qmigtool.parsers.vmstate import Field, Kind
from qmigtool.preflight.reference import COMPARED
from qmigtool.rewrite.edits import Edit

if TYPE_CHECKING:
    from qmigtool.device import Device
    from qmigtool.preflight.predict import Verdict
    from qmigtool.preflight.target import Target
    from qmigtool.stream import Stream

__all__ = ["PLANNERS", "Fix", "edit", "sets"]

VCPU_SECTIONS = ("cpu_common", "cpu", "apic")
ACCELERATOR_SECTIONS = ("kvmclock", "mshv-clock", "mshv-apic")
_FAMILY = re.compile(r"(.+)-\d{1,3}\.\d{1,3}")


@dataclass(frozen=True, slots=True)
class Fix:
    """What mends one refusal.

    ``words`` are the options of ``qmigtool rewrite`` and ``edits`` what they mean; ``options`` are options of QEMU, or
    things to do there, that make the edits needless, or that are needed because there are none. ``target`` is the
    target as these options make it, None if nothing changes. ``loses`` says what the edits give up.
    """

    words: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    options: tuple[str, ...] = ()
    target: Target | None = field(default=None, compare=False)
    loses: tuple[str, ...] = ()


def edit(op: str, *values: str, **parameters: Any) -> Fix:
    """Return a fix of one edit; ``values`` are what stands on the command line."""
    return Fix((f"--{op}", *values), (Edit(op, parameters),))


def _join(*fixes: Fix, options: Sequence[str] = (), loses: Sequence[str] = ()) -> Fix:
    return Fix(
        tuple(word for fix in fixes for word in fix.words),
        tuple(one for fix in fixes for one in fix.edits),
        tuple(options),
        None,
        tuple(loses) + tuple(loss for fix in fixes for loss in fix.loses),
    )


Planner = Callable[["Stream", "Target", "Verdict"], Fix | None]


# -- what stands before the state ------------------------------------------------------------------------------------


def _machine(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    old, new = stream.machine, target.machine
    if old is None or new is None:
        return None
    options = (f"-M {old}",)
    families = _FAMILY.fullmatch(old), _FAMILY.fullmatch(new)
    if families[0] is None or families[1] is None or families[0][1] != families[1][1]:
        # With another machine its devices, and so its sections, are others, too.
        return Fix(options=options, target=replace(target, machine=old, sections=None, blocks=None))
    return replace(edit("upgrade-machine", new, name=new), options=options)


def _configuration(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    return _switch(target, "send-configuration", on=False)


def _section_type(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    if stream.configuration is not None and target.properties.get("send-configuration") is False:
        return _switch(target, "send-configuration", on=True)
    if target.properties.get("send-section-footer") is False:
        return _switch(target, "send-section-footer", on=True)
    return None


def _footer(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    _ = stream.sections
    return None if stream.footers else _switch(target, "send-section-footer", on=False)


def _switch(target: Target, name: str, *, on: bool) -> Fix | None:
    if target.properties.get(name, True) is on:
        return None
    properties = {**target.properties, name: on}
    return Fix(
        options=(f"-global migration.{name}={'on' if on else 'off'}",), target=replace(target, properties=properties)
    )


def _capability(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    for name in COMPARED:
        sent, local = name in stream.capabilities, target.capabilities.get(name, False)
        if sent == local:
            continue
        options = (
            f"migrate_set_capability {name} {'on' if sent else 'off'} (in the target's monitor, -incoming defer)",
        )
        if name == "mapped-ram":
            form = "plain" if sent else "mapped-ram"
            return replace(edit("ram", form, format=form), options=options)
        op = "drop-capability" if sent else "add-capability"
        return replace(edit(op, name, name=name), options=options)
    return None


def _unknown_capability(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    if "mapped-ram" in stream.capabilities:
        return edit("ram", "plain", format="plain")  # QEMU before 9.0 does not know it
    known = {*COMPARED, *target.capabilities}
    fixes = [edit("drop-capability", name, name=name) for name in stream.capabilities if name not in known]
    return _join(*fixes) if fixes else None


def _uuid(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    raw = stream.configuration.uuid if stream.configuration is not None else None
    if raw is None:
        return None
    text = str(uuid.UUID(bytes=raw))
    return Fix(options=(f"-uuid {text}",), target=replace(target, uuid=text))


# -- sections --------------------------------------------------------------------------------------------------------


def _unknown_section(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    device = _device(stream, verdict)
    if device is None or target.sections is None:
        return None
    if device.name in VCPU_SECTIONS:
        # Without them the guest would miss vCPUs: only the target can mend that.
        count = sum(d.name == "cpu" for d in stream.devices)
        more = {
            (d.name, d.instance_id): target.sections[d.name, 0]
            for d in stream.devices
            if d.name in VCPU_SECTIONS and (d.name, 0) in target.sections
        }
        known = replace(target, sections={**more, **target.sections}, vcpus=count)
        return Fix(options=(f"-smp {count}",), target=known)
    lost = [] if device.name in ACCELERATOR_SECTIONS else [f"the state of {device.label}"]
    return _join(_drop(device), options=(f"the device of the section {device.name}",) if lost else (), loses=lost)


def _drop(device: Device) -> Fix:
    return edit("drop-section", device.label, path=device.label)


def _subsection(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Leave out every subsection that the target does not know, of the device in which it stopped and of its kind."""
    return _drop_subsections(stream, verdict, lambda device, parent, one: not _knows(device, target, parent, one.name))


def _subsection_version(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Leave out the subsections whose version the target does not take."""
    return _drop_subsections(stream, verdict, lambda device, parent, one: not _takes(target, one))


def _takes(target: Target, subsection: Field) -> bool:
    known = (target.vmsds or {}).get(subsection.name)
    if known is None or known.version is None or subsection.version_id is None:
        return True
    return (known.minimum_version or 0) <= subsection.version_id <= known.version


def _drop_subsections(stream: Stream, verdict: Verdict, unwanted: Callable[[Device, str, Field], bool]) -> Fix | None:
    fixes, lost = [], []
    stopped = _device(stream, verdict)
    for device in stream.devices:
        if stopped is None or device.name != stopped.name:
            continue
        for path, parent, one in _subsections(device):
            if unwanted(device, parent, one):
                where = f"{device.label}/{path}"
                fixes.append(edit("drop-subsection", where, path=where))
                lost.append(f"what {where} holds")
    return _join(*fixes, loses=lost) if fixes else None


def _subsections(device: Device) -> Iterator[tuple[str, str, Field]]:
    """Give (path, name of the vmsd around it, field) of each subsection, none inside another one."""
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


def _device(stream: Stream, verdict: Verdict) -> Device | None:
    """Return the device in which the target stopped."""
    if verdict.offset is not None:
        for device in stream.devices:
            section = device.section
            if section.offset <= verdict.offset < section.end:
                return device
    return next((device for device in stream.devices if device.name == verdict.section), None)


# -- memory ----------------------------------------------------------------------------------------------------------


def _unknown_block(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    if target.blocks is None:
        return None
    listed = {block.idstr: block.used_length for block in stream.ram_blocks}
    foreign = {name: size for name, size in listed.items() if name not in target.blocks}
    free = {name: block.used_length for name, block in target.blocks.items() if name not in listed}
    fixes, options, lost = [], [], []
    for name, size in foreign.items():
        same = [other for other, length in free.items() if length == size]
        rivals = [other for other, length in foreign.items() if length == size]
        if len(same) == 1 and len(rivals) == 1 and _plain(name) and _plain(same[0]):
            fixes.append(edit("rename-block", name, same[0], name=name, to=same[0]))
            options.append(f"-machine memory-backend={name} -object memory-backend-ram,id={name},size={size}")
        elif _plain(name):
            return None  # the guest's memory: nobody may leave that out
        else:
            fixes.append(edit("drop-block", name, name=name))
            lost.append(f"what {name} holds, {size:#x} bytes")
            options.append(f"the device of the RAM block {name}")
    return _join(*fixes, options=options, loses=lost) if fixes else None


def _plain(name: str) -> bool:
    """Whether a block is main memory: a backend's name, neither a device's nor a ROM."""
    return "/" not in name and not name.endswith(".rom") and name not in ("pc.bios", "pc.rom")


def _block_size(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    fixes, options, lost = [], [], []
    for block in stream.ram_blocks:
        local = (target.blocks or {}).get(block.idstr)
        if local is None or local.used_length == block.used_length:
            continue
        if local.max_length is not None and block.used_length <= local.max_length:
            continue
        name, size = block.idstr, local.used_length
        if name.endswith(".rom"):
            options.append(f"romsize={block.used_length} for the device of {name}")
        elif _plain(name):
            options.append(_memory_option(stream, name, block.used_length))
        if size < block.used_length:
            if _plain(name):
                continue  # the guest's memory: nobody may cut that
            lost.append(f"{name} beyond {size:#x}")
        fixes.append(edit("resize-block", name, f"{size:#x}", name=name, to=size))
    if not fixes and not options:
        return None
    return _join(*fixes, options=options, loses=lost)


def _memory_option(stream: Stream, name: str, size: int) -> str:
    """Return what gives the target main memory of this size: -m, where one block is all of it."""
    if sum(_plain(block.idstr) for block in stream.ram_blocks) == 1 and not size % (1 << 20):
        return f"-m {size >> 20}M"
    return f"a block {name} of {size} bytes"


def _as_records(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    return edit("ram", "plain", format="plain")


# -- commands --------------------------------------------------------------------------------------------------------


def _command(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    at = verdict.offset
    for section in stream.sections:
        if section.type == "command" and section.name and at is not None and section.offset <= at < section.end:
            return edit("drop-command", section.name, name=section.name)
    return None


def _advise(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    options = ("migrate_set_capability postcopy-ram on (in the target's monitor, -incoming defer)",)
    return replace(edit("ram", "plain", format="plain"), options=options)


# -- registers -------------------------------------------------------------------------------------------------------


def _tsc(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    fix = _drop_subsections(stream, verdict, lambda device, parent, one: one.name == "cpu/tsc_khz")
    khz = next((k for v in stream.vcpus if (k := v.device.number("cpu/tsc_khz/env.tsc_khz"))), None)
    if fix is None or khz is None:
        return None
    return replace(fix, options=(f"-cpu MODEL,tsc-frequency={khz * 1000}",), loses=())


def sets(mask: int | None) -> tuple[str, ...]:
    """Return the option that names the target's components."""
    return () if mask is None else ("--xcr0", f"{mask:#x}")


PLANNERS: dict[str, Planner] = {
    "machine-type": _machine,
    "configuration-missing": _configuration,
    "section-type": _section_type,
    "footer-missing": _footer,
    "capability": _capability,
    "unknown-capability": _unknown_capability,
    "uuid": _uuid,
    "unknown-section": _unknown_section,
    "unknown-subsection": _subsection,
    "version-too-new": _subsection_version,
    "version-too-old": _subsection_version,
    "unknown-block": _unknown_block,
    "block-size": _block_size,
    "block-too-large": _block_size,
    "record-flags": _as_records,
    "record-compressed": _as_records,
    "record-fill": _as_records,
    "record-hook": _as_records,
    "command": _command,
    "command-length": _command,
    "colo": _command,
    "ping": _command,
    "recv-bitmap": _command,
    "advise-disabled": _advise,
    "advise-enabled": _advise,
    "advise-pages": _advise,
    "advise-target-page": _advise,
    "postcopy-state": _command,
    "tsc-frequency": _tsc,
}
"""Rule of a verdict -> what plans a fix of it. A rule that is missing has none."""
