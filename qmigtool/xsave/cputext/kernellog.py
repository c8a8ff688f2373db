"""Linux' boot messages about the FPU (dmesg, journalctl).

::

    x86/fpu: Supporting XSAVE feature 0x004: 'AVX registers'
    x86/fpu: xstate_offset[2]:  576, xstate_sizes[2]:  256
    x86/fpu: xstate_offset[9]:  832, xstate_sizes[9]:    8
    x86/fpu: Enabled xstate features 0x207, context size is 840 bytes, using 'compacted' format.

With 'compacted' the offsets are those of the kernel's own areas, not CPUID's: the standard ones then come from the
CPU family (``smpboot: CPU0: AMD EPYC ...``), or from components that only one family has. The features are
those that the kernel uses: the CPU may have more.
"""

from __future__ import annotations

import re

from qmigtool.errors import XsaveError
from qmigtool.xsave.catalog import VENDORS
from qmigtool.xsave.components import SUPERVISOR_MASK, XCOMP_BV_COMPACTED, bit_name, bits
from qmigtool.xsave.cputext.families import standard_offsets
from qmigtool.xsave.cputext.model import (
    XSTATE_LEAF,
    CpuidBlock,
    CpuidLine,
    Leaves,
    component_row,
    features_row,
    mask_row,
    wanted,
)
from qmigtool.xsave.layout import FEATURE_XSAVEC, FEATURE_XSAVES, Layout

LOG = "Linux boot messages"

_ENABLED = re.compile(
    r"x86/fpu: *Enabled +xstate features 0x(?P<mask>[0-9a-f]{1,16}), context size is (?P<size>\d{1,6}) +bytes,"
    r"\s*using '(?P<format>standard|compacted)'"
)
_STATE = re.compile(
    r"x86/fpu: *xstate_offset\[ ?(?P<bit>\d{1,2})\]: *(?P<offset>\d{1,6}), "
    r"xstate_sizes\[ ?\d{1,2}\]: *(?P<size>\d{1,6})"
)
_VENDOR = re.compile(r"\bCPU0: (?P<vendor>Intel|AMD)\b")


def read_kernel_log(text: str, leaves: Leaves, name: str) -> list[CpuidBlock]:
    """Return one block, if the text has these lines.

    Raises XsaveError if the lines contradict each other, or one is missing, and UnsupportedError if nothing decides the
    standard offsets.
    """
    if not wanted(XSTATE_LEAF, leaves) or "x86/fpu:" not in text:
        return []
    if "=\n" in text and "=3D" in text:
        text = text.replace("=\n", "")
    states = {int(match["bit"]): match for match in _STATE.finditer(text)}
    enabled = _ENABLED.search(text)
    if enabled is None:
        if not states:
            return []
        raise XsaveError(
            "the log has no line \"x86/fpu: Enabled xstate features ..., using '...' format\", which defines what the "
            "offsets mean",
            section=name,
            expected="that line",
        )
    mask = int(enabled["mask"], 16)
    missing = [bit for bit in bits(mask & ~3) if bit not in states]
    if missing or mask & XCOMP_BV_COMPACTED:
        raise XsaveError(
            f"the log enables {mask:#x}, but has no line xstate_offset[{missing[0] if missing else 63}]",
            section=name,
            offset=enabled.start(),
        )
    compacted = enabled["format"] == "compacted"
    user = mask & ~SUPERVISOR_MASK
    printed = {bit: int(states[bit]["offset"]) for bit in bits(mask & ~3)}
    vendor = _VENDOR.search(text)
    family = vendor["vendor"] if vendor else None
    offsets = standard_offsets(user, family, name) if compacted else {bit: printed[bit] for bit in bits(user & ~3)}
    features = FEATURE_XSAVEC * compacted | FEATURE_XSAVES * bool(mask & SUPERVISOR_MASK)
    form = "Linux boot messages; standard offsets by CPU family" if compacted else LOG
    block = CpuidBlock(None, form=form, vendor=VENDORS.get(family or "", ""))
    rows = {
        0: mask_row(user),
        1: features_row(features, 0, mask & SUPERVISOR_MASK),
        **{bit: component_row(bit, int(states[bit]["size"]), offsets.get(bit)) for bit in printed},
    }
    for subleaf, row in sorted(rows.items()):
        at = states[subleaf].start() if subleaf in states else enabled.start()
        block.lines.append(CpuidLine(XSTATE_LEAF, subleaf, True, row, at))
    if compacted:
        _check_compacted(Layout.from_leaf_0xd(name, rows), mask, printed, name)
    return [block]


def _check_compacted(layout: Layout, mask: int, printed: dict[int, int], name: str) -> None:
    """Compare the offsets that the kernel printed with those computed from its sizes."""
    computed = layout.compacted_offsets(mask & layout.mask)
    for bit, offset in printed.items():
        if bit in computed and computed[bit] != offset:
            raise XsaveError(
                f"the log has {bit_name(bit)} at {offset} of a compacted area, but the components before it put "
                f"it at {computed[bit]}",
                section=name,
            )
