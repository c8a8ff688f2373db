"""Notes on an area: what is unusual although it is restored without an error."""

from __future__ import annotations

import struct

from qmigtool.xsave.components import (
    AMX_MASK,
    COMPONENTS,
    EXTENDED_OFFSET,
    MXCSR_INIT,
    PAGE_SIZE,
    SSE_PIECES,
    X87_PIECES,
    XCOMP_BV_COMPACTED,
    Format,
    bits,
    component,
    initial_configuration,
    mask_names,
)
from qmigtool.xsave.fit import stray_fill
from qmigtool.xsave.header import area_format, effective_mxcsr, header
from qmigtool.xsave.hyperv import undeclared_hyperv
from qmigtool.xsave.layout import Layout
from qmigtool.xsave.vendor import mxcsr_mask

__all__ = ["area_notes", "kvm_amx_note"]

MXCSR_MASKS = 0x1F80  # PM to IM
FCW_MASKS = 0x3F
XTILEDATA = component("XTILEDATA").bit


def area_notes(area: bytes, layout: Layout, *, hyperv_quirk: bool = False) -> list[str]:
    """Return what restoring ``area`` would load or leave unexpectedly, one sentence each.

    Live bytes that XSTATE_BV does not declare; state that Hyper-V leaves undeclared (or that ``hyperv_quirk`` treats as
    declared); every exception unmasked; an x87 tag word of 16 bits; the requirements of KVM for AMX. Nothing is raised:
    an area without a whole header, or of another layout, gets the notes that are possible.
    """
    if len(area) < EXTENDED_OFFSET:
        return []
    form, (xstate_bv, xcomp_bv) = area_format(area), header(area)
    notes = []
    known = layout.user_mask if form is Format.STANDARD else xcomp_bv & ~XCOMP_BV_COMPACTED
    readable = not known & ~layout.mask
    quirk = undeclared_hyperv(area, layout)
    if quirk:
        names = " ".join(mask_names(quirk))
        said = "treated as live" if hyperv_quirk else "treated as initial (--hyperv-quirk treats it as live)"
        notes.append(f"{names}: not declared in XSTATE_BV, because Hyper-V does not set these bits; {said}")
    undeclared = _undeclared(area, layout, form, known, xstate_bv) & ~quirk if readable else 0
    if undeclared:
        stale = ", where XSAVEC leaves the old contents" if form is Format.COMPACTED else ""
        names = " ".join(mask_names(undeclared))
        notes.append(f"not declared in XSTATE_BV, so initial after a restore; bytes are not zero{stale}: {names}")
    if form is Format.COMPACTED and not layout.has_xsavec and 1 in layout.leaf:
        notes.append(f"{layout.name} has no XSAVEC, so that CPU refuses compacted areas")
    mxcsr, _ = effective_mxcsr(area, xstate_bv, form)
    if not mxcsr & MXCSR_MASKS and not mxcsr & ~mxcsr_mask(area, layout):
        notes.append(f"MXCSR is {mxcsr:#x}: every SSE exception is unmasked (1F80 masks them all)")
    fcw, tags = struct.unpack_from("<H", area, 0)[0], area[4:6]
    if xstate_bv & 1 and not fcw & FCW_MASKS:
        notes.append(f"FCW is {fcw:#x}: every x87 exception is unmasked (037F masks them all)")
    if tags[1] and xstate_bv & 1:
        notes.append(
            f"bytes 4 and 5 are {tags[0]:#x} and {tags[1]:#x}: a tag word of 16 bits, as FSAVE has; an XSAVE area has "
            "the abridged one in byte 4 (a bit for each register in use), and XRSTOR reads that"
        )
    if form is Format.STANDARD and (note := kvm_amx_note(xstate_bv, len(area))):
        notes.append(note)
    if readable and (fill := stray_fill(area, layout)) is not None:
        notes.append(f"every byte outside the components of {layout.name} is {fill:#x}: uninitialised memory")
    return notes


def kvm_amx_note(xstate_bv: int, size: int) -> str | None:
    """Return what KVM requires for a standard area with tile data; None if the area has none."""
    if not xstate_bv & AMX_MASK or size <= PAGE_SIZE:
        return None
    return (
        f"{' '.join(mask_names(xstate_bv & AMX_MASK))}: KVM wants KVM_SET_XSAVE2 with a buffer of KVM_CAP_XSAVE2 "
        f"bytes ({size} or more; struct kvm_xsave has {PAGE_SIZE}), and for XTILEDATA a permission before the vCPU is "
        f"created: arch_prctl(ARCH_REQ_XCOMP_GUEST_PERM, {XTILEDATA})"
    )


def _undeclared(area: bytes, layout: Layout, form: Format, known: int, xstate_bv: int) -> int:
    """Return the components that XSTATE_BV does not declare, with bytes that are neither zero nor initial."""
    offsets = layout.offsets(form, known)
    found = 0
    for bit in bits((known | 3) & ~xstate_bv):
        if bit < 2:
            contents = b"".join(area[at : at + size] for at, size in (X87_PIECES, SSE_PIECES)[bit])
        else:
            contents = bytes(area[offsets[bit] : offsets[bit] + layout.rows[bit].size])
        size = COMPONENTS[bit].size if bit in COMPONENTS else len(contents)
        if any(contents) and contents != initial_configuration(bit, size)[: len(contents)]:
            found |= 1 << bit
    if form is Format.COMPACTED and not xstate_bv & 2 and not found & 2:
        (mxcsr,) = struct.unpack_from("<I", area, 24)
        found |= 2 if mxcsr not in (0, MXCSR_INIT) else 0
    for one, other in layout.overlapping(known) if form is Format.STANDARD else ():
        # Two components share a place: bytes of the declared one are not the other's.
        if (1 << one | 1 << other) & xstate_bv:
            found &= ~(1 << one | 1 << other)
    return found
