"""Bytes 464-511 of the legacy region: not used by the CPU; Linux records the area's components there.

Two formats. A signal frame (arch/x86/include/uapi/asm/sigcontext.h, ``struct _fpx_sw_bytes``) has the magic number
FP_XSTATE_MAGIC1, u32 extended_size, u64 xfeatures, u32 xstate_size. NT_X86_XSTATE of a core or ptrace, and the area of
KVM_GET_XSAVE, have the XCR0 mask there as u64, followed by zeros.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from qmigtool.errors import XsaveError
from qmigtool.xsave.components import EXTENDED_OFFSET, LEGACY_MASK, LEGACY_SIZE, check_xcr0
from qmigtool.xsave.header import BUFFER
from qmigtool.xsave.layout import Layout

SOFTWARE_OFFSET = 464
FP_XSTATE_MAGIC1 = 0x46505853
FP_XSTATE_MAGIC2 = 0x46505845
"""Follows the xstate_size bytes of a signal frame's area."""


class SoftwareBytes(NamedTuple):
    """The software bytes: the user components of the area, and its size (None if they do not have it)."""

    xfeatures: int
    size: int | None


def software_bytes(area: bytes) -> SoftwareBytes | None:
    """Decode bytes 464-511, or return None if they have neither format (a CPU does not write them)."""
    if len(area) < EXTENDED_OFFSET:
        return None
    magic, _, xfeatures, size = struct.unpack_from("<IIQI", area, SOFTWARE_OFFSET)
    if magic == FP_XSTATE_MAGIC1:
        sane = _is_xcr0(xfeatures) and size >= EXTENDED_OFFSET and _ends(area, size)
        return SoftwareBytes(xfeatures, size) if sane else None
    (mask,) = struct.unpack_from("<Q", area, SOFTWARE_OFFSET)
    if not _is_xcr0(mask) or any(area[SOFTWARE_OFFSET + 8 : LEGACY_SIZE]):
        return None
    return SoftwareBytes(mask, None)


def _ends(area: bytes, size: int) -> bool:
    """Return whether a signal frame's area may have this size.

    Linux requires the second magic number after it; the program that extracted the area from the frame may have kept
    it, removed it, or padded with zeros.
    """
    behind = area[size : size + 4]
    return not any(behind) or behind == FP_XSTATE_MAGIC2.to_bytes(4, "little")[: len(behind)]


def _is_xcr0(mask: int) -> bool:
    return mask & LEGACY_MASK == LEGACY_MASK and not check_xcr0(mask)


def software_misfit(area: bytes, layout: Layout) -> str | None:
    """Return how ``layout`` contradicts the software bytes of a standard area, or None.

    They give the size of an area with these components: directly in a signal frame, otherwise by the area's length if
    that is the size of an area and not of a buffer (a multiple of 1024).
    """
    found = software_bytes(area)
    if found is None or found.xfeatures & ~layout.user_mask:
        return None
    size = found.size if found.size is not None else len(area)
    if found.size is None and size % BUFFER == 0:
        return None
    try:
        expected = layout.standard_size(found.xfeatures)
    except XsaveError:
        return None
    if size == expected:
        return None
    return (
        f"by the software bytes (464) an area with XCR0 {found.xfeatures:#x} has {size} bytes, but one of "
        f"{layout.name} has {expected}"
    )
