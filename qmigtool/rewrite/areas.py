"""Import of an XSAVE area into a vCPU: what changes, what is refused, and what is noted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.errors import LiveStateError, XsaveError
from qmigtool.rewrite.components import XSTATE_BV, initial, vcpu_section, write_components
from qmigtool.rewrite.fields import assign
from qmigtool.x86.traits import HYPERV
from qmigtool.x86.xsavefields import has_fields, unheld, unheld_words
from qmigtool.xsave import (
    COMPONENTS,
    SUPERVISOR_MASK,
    Format,
    XsaveArea,
    area_notes,
    bits,
    make_plan,
    mask_names,
    misfits,
)
from qmigtool.xsave.components import LEGACY_MASK, MXCSR_INIT, USER_MASK, XCOMP_BV_COMPACTED, is_initial
from qmigtool.xsave.vendor import check_mxcsr

if TYPE_CHECKING:
    from qmigtool.rewrite.draft import Draft
    from qmigtool.rewrite.sectiondraft import SectionDraft
    from qmigtool.x86.vcpu import VCpu

__all__ = ["import_area"]


def import_area(
    draft: Draft,
    index: int,
    area: XsaveArea,
    *,
    lossy: bool = False,
    force: bool = False,
    hyperv_quirk: bool | None = None,
) -> None:
    """Set the state of vCPU ``index`` from ``area``, in standard or compacted format and any layout.

    Only components whose state differs change: a component with the same contents keeps its bytes and its XSTATE_BV
    bit, so importing an unchanged export gives the identical stream. A component that ``area`` has no place for keeps
    its state. ``hyperv_quirk`` treats state that Hyper-V leaves undeclared as live (default: if MSHV or WHPX saved
    the stream).

    Raises :class:`~qmigtool.errors.LiveStateError` for state that XCR0, as the previous edits leave it, does not enable
    (unless the vCPU of the source already has such state), and for state that no field of a stream can hold; with
    ``lossy`` both are dropped and recorded in ``draft.losses``. Raises it also for an area that does not fit its
    layout, unless ``force``. Raises :class:`~qmigtool.errors.XsaveError` for an area that XRSTOR refuses, and
    :class:`~qmigtool.errors.UndecidedError` where the result depends on the accelerator that saved the stream and that
    is not known.
    """
    section = vcpu_section(draft, index)
    quirk = draft.accelerator in HYPERV if hyperv_quirk is None else hyperv_quirk
    wrong = misfits(area.data, area.layout)
    if wrong and not force:
        raise LiveStateError(f"the area does not fit {area.layout.name}: {'; '.join(wrong)} (--force imports it)")
    for text in (*wrong, *area_notes(area.data, area.layout, hyperv_quirk=quirk)):
        draft.note(f"vCPU {index}: {text}")
    if quirk:
        area = area.with_hyperv_quirk()
    _check_area(area)
    vcpu = draft.vcpu(section)
    reach = _reach(area)
    foreign = [bit for bit in bits(reach & area.xstate_bv) if bit not in COMPONENTS]
    if foreign:
        raise XsaveError(
            f"XSTATE_BV declares {' '.join(mask_names(sum(1 << b for b in foreign)))}, which QEMU does not have"
        )
    declared = vcpu.effective_xstate_bv()
    if kept := (vcpu.live | vcpu.xstate_bv) & USER_MASK & ~(reach | vcpu.xcr0 | LEGACY_MASK):
        names = " ".join(mask_names(kept))
        draft.note(
            f"vCPU {index} keeps {names}: the area has no place for it, and XCR0 {vcpu.xcr0:#x} does not enable it"
        )
    changed = {}
    for bit in bits(reach):
        if bit not in COMPONENTS:
            continue
        new = area.component(bit)[: COMPONENTS[bit].size]
        supervisor = SUPERVISOR_MASK >> bit & 1
        old = vcpu.contents(bit) if supervisor or declared >> bit & 1 else initial(bit)
        if new != old and not (is_initial(bit, new) and is_initial(bit, old)):
            changed[bit] = new
    mxcsr = area.mxcsr if area.mxcsr != vcpu.xsave.mxcsr else None
    nowhere = _without_field(draft, section, changed, lossy=lossy)
    # XCR0 does not gate x87 and SSE. Supervisor state is in MSRs here, which need no bit of IA32_XSS.
    outside = area.live & ~vcpu.xcr0 & ~nowhere & ~_outside_already(draft, index) & ~(LEGACY_MASK | SUPERVISOR_MASK)
    _lose_disabled(draft, vcpu, outside, lossy=lossy)
    for bit in bits(outside):
        nowhere |= 1 << bit
        changed.pop(bit, None)
        if vcpu.carried >> bit & 1 and vcpu.contents(bit) != initial(bit):
            changed[bit] = initial(bit)
    if not changed and mxcsr is None:
        return
    live = sum(1 << bit for bit, contents in changed.items() if not is_initial(bit, contents))
    vcpu.check_saver("whether XSTATE_BV is filled")
    write_components(draft, section, changed, mxcsr)
    if not vcpu.tcg:  # TCG never fills it
        touched = sum(1 << bit for bit in changed) | (2 if mxcsr is not None else 0)
        bv = declared & ~touched | (area.xstate_bv | live | (2 if area.mxcsr != MXCSR_INIT else 0)) & touched
        assign(draft, section, XSTATE_BV, bv & ~SUPERVISOR_MASK & ~nowhere, "the new contents of the components")


def _check_area(area: XsaveArea) -> None:
    """Check that restoring an area does not fault: its header, its length and MXCSR. Raises XsaveError."""
    mask = area.xcomp_bv if area.format is Format.COMPACTED else None
    plain = make_plan(area.layout, area.format, mask or area.layout.user_mask, area.layout, area.format, mask or 3)
    plain.declared(area.data)
    check_mxcsr(area.data, area.mxcsr, area.layout)


def _without_field(draft: Draft, section: SectionDraft, changed: dict[int, bytes], *, lossy: bool) -> int:
    """Remove from ``changed`` the state that no field of a stream can hold; return the components removed completely.

    Raises :class:`~qmigtool.errors.LiveStateError` that names it, unless ``lossy``.
    """
    lost, nowhere = {}, 0
    for bit, contents in list(changed.items()):
        held = unheld(bit, contents)
        if held is None:
            continue
        lost[bit] = unheld_words(bit, contents)
        changed[bit] = held
        if not has_fields(bit):
            del changed[bit]
            nowhere |= 1 << bit
    if lost and not lossy:
        raise LiveStateError(
            f"no field of a stream can hold live state of the area: {', '.join(lost.values())} (--lossy drops it)",
            components=mask_names(sum(1 << bit for bit in lost)),
            section=section.label,
        )
    for words in lost.values():
        draft.lose(f"no field of a stream can hold live state of the area: {words}", device=section.label)
    return nowhere


def _outside_already(draft: Draft, index: int) -> int:
    """Return the live components of the source's vCPU that XCR0 does not enable: a guest may disable what it used."""
    return sum(vcpu.live & ~vcpu.xcr0 for vcpu in draft.stream.vcpus if vcpu.index == index)


def _lose_disabled(draft: Draft, vcpu: VCpu, outside: int, *, lossy: bool) -> None:
    """Record live components that XCR0 does not enable as lost.

    Raises :class:`~qmigtool.errors.LiveStateError` that names them, unless ``lossy``.
    """
    if not outside:
        return
    names = mask_names(outside)
    if not lossy:
        raise LiveStateError(
            f"XCR0 {vcpu.xcr0:#x} of vCPU {vcpu.index} does not enable live components of the area: {' '.join(names)} "
            "(--lossy drops them)",
            components=names,
            section=vcpu.device.label,
        )
    draft.lose(
        f"XCR0 {vcpu.xcr0:#x} does not enable live components of the area: {' '.join(names)}",
        device=vcpu.device.label,
    )


def _reach(area: XsaveArea) -> int:
    """Return the components that an area can describe."""
    if area.format is Format.COMPACTED:
        return area.xcomp_bv & ~XCOMP_BV_COMPACTED | LEGACY_MASK
    supervisor = sum(1 << bit for bit in area.supervisor)
    held = sum(1 << bit for bit in bits(area.layout.user_mask) if area.memory(bit) is not None)
    return held | supervisor | LEGACY_MASK | area.xstate_bv
