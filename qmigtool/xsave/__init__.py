"""x86 XSAVE areas: components, layouts, conversion between the standard and the compacted format, validity.

===============  ================================================================================================
components       what each state component is: bit, name, size, initial configuration; masks of them
layout           where they lie on one CPU, from its CPUID leaf 0xD
catalog          the built-in layouts (``layouts.json``)
cpuid            layouts from CPUID in text
holders          what an area comes in: ELF cores, JSON, Xen's records
nestedjson       documents inside strings of documents, for both
cputext          the forms of such text, one reader for each
area             one area: its bytes and the registers that they mean
header           the first 576 bytes: format, XSTATE_BV, XCOMP_BV, MXCSR
convert          the ``strict`` policy: convert an area, and lose nothing silently
plan, batch      the moves of a conversion, for one area or for many
qemu_policy      the policies ``qemu-v1``, ``qemu-11.1`` and ``qemu-next``: what QEMU's own two functions do
enabled          XCR0 and IA32_XSS that a CPU can have
vendor           whose CPU a layout is of, and the MXCSR bits that it defines
fit              does a layout fit an area, and which do
hyperv           what Hyper-V saves without saying so
found            an area out of a file: in which layout it is to be read, and what it becomes
notes            what a careful reader of an area wants to know
check            would XRSTOR, XRSTORS, KVM, MSHV or WHPX take an area, and why not
===============  ================================================================================================

What lives here is pure: bytes and masks in, bytes and masks out. It knows nothing of streams, vmstate fields, files,
tables or accelerators' streams, imports no other part of qmigtool but the errors, and needs numpy only in a batch.
Outside ``layouts.json`` and a layout made from CPUID, nothing may know the offset of an extended component.
"""

from __future__ import annotations

from qmigtool.xsave.area import XsaveArea
from qmigtool.xsave.catalog import is_layout_name, layout, layout_names, model_names
from qmigtool.xsave.check import ConsumerVerdict, check_area
from qmigtool.xsave.components import (
    COMPONENTS,
    SUPERVISOR_MASK,
    USER_MASK,
    Component,
    Format,
    bits,
    check_xcr0,
    component,
    mask_names,
    parse_mask,
)
from qmigtool.xsave.convert import Plan, Result, convert, default_mask, make_plan, mshv_buffer_size
from qmigtool.xsave.cpuid import parse_cpuid_dump
from qmigtool.xsave.enabled import impossible_xcr0, impossible_xss
from qmigtool.xsave.fit import fitting_layouts, misfits
from qmigtool.xsave.layout import Layout, Row
from qmigtool.xsave.notes import area_notes
from qmigtool.xsave.qemu_policy import PolicyResult, compact_xsave_area, decompact_xsave_area

__all__ = [
    "COMPONENTS",
    "SUPERVISOR_MASK",
    "USER_MASK",
    "Component",
    "ConsumerVerdict",
    "Format",
    "Layout",
    "Plan",
    "PolicyResult",
    "Result",
    "Row",
    "XsaveArea",
    "area_notes",
    "bits",
    "check_area",
    "check_xcr0",
    "compact_xsave_area",
    "component",
    "convert",
    "decompact_xsave_area",
    "default_mask",
    "fitting_layouts",
    "impossible_xcr0",
    "impossible_xss",
    "is_layout_name",
    "layout",
    "layout_names",
    "make_plan",
    "mask_names",
    "misfits",
    "model_names",
    "mshv_buffer_size",
    "parse_cpuid_dump",
    "parse_mask",
]
