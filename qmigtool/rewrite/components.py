"""Edits of extended state: whole XSAVE components of a vCPU, translated into fields and subsections.

All accesses use :mod:`qmigtool.x86.vcpu`, the one module that knows where the vmstate holds a component.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from qmigtool.devices.schema.cpusection import BY_CPUID, CPU_SUBSECTIONS
from qmigtool.errors import LiveStateError, UsageError
from qmigtool.rewrite import structure
from qmigtool.rewrite.changes import as_text
from qmigtool.rewrite.fields import assign, shown
from qmigtool.x86.registers import CR4, HFLAGS
from qmigtool.x86.traits import TCG
from qmigtool.x86.vcpu import UNKNOWN_SAVER, tcg_hflags
from qmigtool.xsave import COMPONENTS, SUPERVISOR_MASK, bits, mask_names
from qmigtool.xsave.components import LEGACY_MASK, PKRU_MASK, check_xcr0, initial_configuration

if TYPE_CHECKING:
    from qmigtool.rewrite.draft import Draft
    from qmigtool.rewrite.sectiondraft import SectionDraft
    from qmigtool.x86.vcpu import VCpu
    from qmigtool.xsave import Layout

__all__ = [
    "check_components",
    "check_legal",
    "drop_components",
    "initial",
    "repair_xstate_bv",
    "say_what_is_left",
    "set_xcr0",
    "write_components",
]

XSTATE_BV, XCR0, XSS = "env.xstate_bv", "env.xcr0", "cpu/xss/env.xss"
# Subsections that QEMU sends if any of their fields is not 0, and the components that they hold: QEMU does not send the
# subsection if the component is all 0.
SENT_IF_USED = {one.name: one.components for one in CPU_SUBSECTIONS if one.components and not one.features}
# Other state that belongs to a component: a CPU without the component does not have it either.
BESIDE = {one.name: one.components for one in BY_CPUID.values() if one.components}


def vcpu_section(draft: Draft, index: int) -> SectionDraft:
    """Return the section ``cpu`` of a vCPU; raises :class:`~qmigtool.errors.UsageError`."""
    for section in draft.x86_cpus():
        if section.section.instance_id == index:
            return section
    there = ", ".join(str(section.section.instance_id) for section in draft.x86_cpus())
    raise UsageError(f"no vCPU {index}", expected=f"one of {there}" if there else "a stream with x86 vCPUs")


def check_legal(mask: int) -> None:
    """Check that a mask is a valid XCR0; raises :class:`~qmigtool.errors.UsageError`."""
    reasons = check_xcr0(mask)
    if reasons:
        raise UsageError(f"{mask:#x} is not a valid XCR0: {reasons[0]}")


def set_xcr0(draft: Draft, index: int, mask: int) -> None:
    """Set XCR0 of a vCPU; raises :class:`~qmigtool.errors.UsageError` for a value that no CPU accepts.

    Components that it no longer enables keep their state, as on a CPU; a note lists those that still have state after
    all edits.
    """
    check_legal(mask)
    section = vcpu_section(draft, index)
    before = draft.vcpu(section).xcr0
    _assign_xcr0(draft, section, mask)
    draft.checks.append(lambda: _say_disabled(draft, section, before))


def _say_disabled(draft: Draft, section: SectionDraft, before: int) -> None:
    """Note live or declared components that XCR0 ``before`` enabled and the new XCR0 does not."""
    if section.dropped:
        return
    vcpu = draft.vcpu(section)
    disabled = before & ~vcpu.xcr0 & ~LEGACY_MASK
    words = [
        f"{title} {' '.join(mask_names(mask & disabled))}"
        for title, mask in (("live", vcpu.live), ("declared in XSTATE_BV", vcpu.xstate_bv))
        if mask & disabled
    ]
    if words:
        draft.note(
            f"vCPU {vcpu.index} keeps components that XCR0 {vcpu.xcr0:#x} no longer enables: {'; '.join(words)} "
            "(--drop-component removes them)"
        )


def _assign_xcr0(draft: Draft, section: SectionDraft, mask: int) -> None:
    """Write XCR0, and the copy of it that TCG keeps in env.hflags."""
    assign(draft, section, XCR0, mask)
    if draft.accelerator == TCG.name:
        assign(draft, section, HFLAGS.path, tcg_hflags(section.device), "TCG does not recompute hflags after a load")


def initial(bit: int) -> bytes:
    """Return the initial configuration of a component."""
    return initial_configuration(bit, COMPONENTS[bit].size)


def write_components(
    draft: Draft,
    section: SectionDraft,
    contents: Mapping[int, bytes],
    mxcsr: int | None = None,
) -> None:
    """Write the contents of components (bit -> bytes) into the fields of a vCPU.

    Adds subsections that are needed, and drops those that QEMU would not send with their new contents.
    """
    for bit, new in contents.items():
        for parts in sorted(draft.vcpu(section).fieldless(bit, new), key=len):
            for depth in range(len(parts)):
                if section.device.get("/".join(parts[: depth + 1])) is None:
                    parent = "/".join((section.label, *parts[:depth]))
                    structure.add_subsection(draft, parent, parts[depth], why=f"{COMPONENTS[bit].name} needs it")
    encoded = [
        (_path(section, field.offset), raw)
        for field, raw in draft.vcpu(section).encode(contents, mxcsr)
        if raw != field.raw
    ]
    for path, raw in encoded:
        assign(draft, section, path, raw)
    for name, components in SENT_IF_USED.items():
        sub = section.device.subsection(name)
        if sub is not None and components & sum(1 << bit for bit in contents):
            head = sub.offset + sub.length - sum(child.length for child in sub.children)
            if not any(sub.raw[head - sub.offset :]):
                why = f"QEMU does not send {name} if all of its fields are 0"
                structure.drop_subsection(draft, f"{section.label}/{name}", why)


def _path(section: SectionDraft, offset: int) -> str:
    """Return the path of the topmost field inside a section that starts at ``offset``."""
    prefix, fields = "", section.device.fields
    while True:
        for field in fields:
            if field.offset == offset and field.kind != "subsection":
                return prefix + field.name
            if field.kind == "subsection" and field.offset <= offset < field.offset + field.length:
                prefix, fields = f"{prefix}{field.name}/", field.children
                break
        else:
            raise UsageError(f"no field at {offset:#x} of {section.label}")


# -- components that are dropped -------------------------------------------------------------------------------------


def drop_components(draft: Draft, mask: int, *, rule: str = "") -> None:
    """Drop components from every vCPU: contents, subsections, and their bits in XSTATE_BV, XCR0 and IA32_XSS.

    Their live state is lost and recorded in :attr:`~qmigtool.rewrite.draft.Draft.losses`, with the conversion rule
    that drops it, if any. Raises
    :class:`~qmigtool.errors.UsageError` for x87 and SSE, and where the resulting XCR0 is one that no CPU accepts.
    """
    if mask & LEGACY_MASK:
        raise UsageError("x87 and SSE cannot be dropped", expected="components above them")
    for section in draft.x86_cpus():
        vcpu = draft.vcpu(section)
        reasons = check_xcr0(vcpu.xcr0 & ~mask)
        if reasons and not check_xcr0(vcpu.xcr0):
            raise UsageError(
                f"without {' '.join(mask_names(mask))}, {reasons[0]}", expected="also the components that depend on it"
            )
        for bit in bits(vcpu.live & mask):
            draft.lose(f"vCPU {vcpu.index}: {mask_names(1 << bit)[0]} was live: {_some(vcpu, bit)}", rule=rule)
        contents = {bit: initial(bit) for bit in bits(vcpu.carried & mask)}
        write_components(draft, section, contents)
        for name, components in (SENT_IF_USED | BESIDE).items():
            sub = section.device.subsection(name)
            if components & ~mask or sub is None:
                continue
            # A subsection with more state than the component (BNDCFGS with MPX) belongs to the CPU feature: drop it.
            for field in sub.children:
                if any(field.raw):
                    draft.lose(f"vCPU {vcpu.index}: {name}/{field.name} was {as_text(shown(field))}", rule=rule)
            structure.drop_subsection(draft, f"{section.label}/{name}")
        for register in (XSTATE_BV, XSS):
            number = section.device.number(register)
            if number is not None and number & mask:
                assign(draft, section, register, number & ~mask)
        if vcpu.xcr0 & mask:
            _assign_xcr0(draft, section, vcpu.xcr0 & ~mask)
        if mask & PKRU_MASK and (section.device.number(CR4.path) or 0) & CR4["PKE"]:
            draft.note(f"vCPU {vcpu.index}: CR4.PKE is set: its guest uses protection keys")


def _some(vcpu: VCpu, bit: int) -> str:
    contents = vcpu.contents(bit)
    return contents.hex() if len(contents) <= 16 else f"{len(contents)} bytes, {contents[:16].hex()}..."


# -- XSTATE_BV -------------------------------------------------------------------------------------------------------


def repair_xstate_bv(draft: Draft) -> None:
    """Declare live components in XSTATE_BV, on every vCPU: every loader except TCG initialises undeclared components.

    Bits that are set already stay: it is legal to declare a component in its initial configuration.
    """
    for section in draft.x86_cpus():
        vcpu = draft.vcpu(section)
        assign(draft, section, XSTATE_BV, vcpu.xstate_bv | vcpu.live & ~SUPERVISOR_MASK)


def say_what_is_left(draft: Draft) -> None:
    """Note the state that is still in TCG's form where only XSTATE_BV was filled, which TCG never does."""
    left = ["TR", HFLAGS.path, "the TSC"]
    if any(vcpu.x87_order_matters for vcpu in draft.vcpus):
        left.insert(0, "the order of the x87 registers")
    form = "in TCG's form" if draft.tcg else f"unchanged ({UNKNOWN_SAVER})"
    draft.note(
        f"only XSTATE_BV was filled; {', '.join(left)} and more are still {form}; --to-accelerator converts them"
    )


def check_components(draft: Draft, target: Layout) -> None:
    """Check that a CPU of layout ``target`` has every component of every vCPU.

    Raises :class:`~qmigtool.errors.LiveStateError` that names the others that are live, declared or enabled.
    """
    for vcpu in draft.vcpus:
        held = (vcpu.live | vcpu.xstate_bv | vcpu.xcr0) & ~SUPERVISOR_MASK
        foreign = held & ~target.user_mask
        if not foreign:
            continue
        words = []
        for title, mask in (("live", vcpu.live), ("declared", vcpu.xstate_bv), ("enabled", vcpu.xcr0)):
            if mask & foreign:
                words.append(f"{title} {' '.join(mask_names(mask & foreign))}")
        raise LiveStateError(
            f"vCPU {vcpu.index} has components that {target.name} does not have: {'; '.join(words)} "
            "(--drop-component removes them)",
            components=mask_names(foreign),
            section=vcpu.device.label,
        )
