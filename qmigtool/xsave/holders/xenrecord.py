"""Xen's record of a vCPU's extended state in the save image of an HVM guest.

``struct hvm_save_descriptor`` (u16 typecode 16, u16 instance: the vCPU, u32 length), then ``struct hvm_hw_cpu_xsave``:
u64 xfeature_mask (of the host), xcr0, xcr0_accum (all components ever enabled), and the area in standard format, of
the size that xcr0_accum needs. Source: xen/include/public/arch-x86/hvm/save.h.
"""

from __future__ import annotations

import struct

from qmigtool.xsave.components import EXTENDED_OFFSET, check_xcr0
from qmigtool.xsave.holders.model import FoundArea

CPU_XSAVE_CODE = 16
REC_TYPE_X86_PV_VCPU_XSAVE = 0xC
HEAD = struct.Struct("<HHIQQQ")
PV_HEAD = struct.Struct("<IIII")


def is_xen_xsave(data: bytes) -> bool:
    """Return whether this is one complete record of this kind."""
    if len(data) < HEAD.size + EXTENDED_OFFSET:
        return False
    code, _, length, host, xcr0, accumulated = HEAD.unpack_from(data)
    return (
        code == CPU_XSAVE_CODE
        and length == len(data) - 8
        and not check_xcr0(xcr0)
        and not xcr0 & ~accumulated
        and not accumulated & ~host
    )


def is_xen_pv(data: bytes) -> bool:
    """Return whether this is the record of a PV guest's vCPU in a migration stream of Xen."""
    if len(data) < PV_HEAD.size + EXTENDED_OFFSET:
        return False
    kind, length, _, reserved = PV_HEAD.unpack_from(data)
    return kind == REC_TYPE_X86_PV_VCPU_XSAVE and 0 <= len(data) - 8 - length < 8 and not reserved


def find_in_xen(data: bytes, name: str) -> FoundArea:
    """Return the area of a record that :func:`is_xen_xsave` recognises."""
    _, vcpu, _, _, xcr0, accumulated = HEAD.unpack_from(data)
    note = f"the area of vCPU {vcpu} in {name}, a save record of Xen; XCR0 {xcr0:#x}, ever enabled {accumulated:#x}"
    return FoundArea(data[HEAD.size :], None, xcr0, note)
