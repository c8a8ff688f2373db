"""x86 XSAVE areas: components, layouts, conversion between the standard and the compacted format, validity.

===============  ================================================================================================
components       the state components: bit, name, size, initial configuration; masks of them
layout           their offsets on one CPU, from its CPUID leaf 0xD
catalog          the built-in layouts (``layouts.json``)
cpuid            layouts from CPUID in text
holders          files that contain an area: ELF cores, JSON, Xen's records
nestedjson       JSON documents inside JSON strings, for cpuid and holders
cputext          the formats of such text, one reader for each
area             one area: its bytes and its registers
header           the first 576 bytes: format, XSTATE_BV, XCOMP_BV, MXCSR
convert          the ``strict`` policy: convert an area without losing state silently
plan, batch      the moves of a conversion, for one area or for many
qemu_policy      the policies ``qemu-v1``, ``qemu-11.1`` and ``qemu-next``: what QEMU's own two functions do
enabled          XCR0 and IA32_XSS that a CPU can have
vendor           the vendor of a layout's CPU, and the MXCSR bits that it defines
fit              whether a layout fits an area, and which layouts do
hyperv           state that Hyper-V saves without declaring it
found            an area from a file: the layout to read it with, and its conversion
notes            notes on areas that are accepted but unusual
check            would XRSTOR, XRSTORS, KVM, MSHV or WHPX accept an area, and why not
areacheck        the same for an area from a file: its consumers, the exit status
document         the document of a layout
===============  ================================================================================================

This package is pure: bytes and masks in, bytes and masks out. It does not depend on streams, vmstate fields, files,
tables or accelerators' streams, imports only qmigtool's errors, and needs numpy only for a batch. Outside
``layouts.json`` and a layout made from CPUID, no code contains the offset of an extended component.
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
