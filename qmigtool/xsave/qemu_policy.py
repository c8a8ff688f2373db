"""The policies ``qemu-v1``, ``qemu-11.1`` and ``qemu-next``: QEMU's own two functions, reproduced bit for bit.

``qemu-v1`` is compact_xsave_area() and decompact_xsave_area() of "[PATCH 30/34] target/i386: add de/compaction to
xsave_helper" (2026-04-17). ``qemu-11.1`` is the behaviour of QEMU 11.1's binaries (target/i386/xsave_helper.c, 11.1.2
and 11.1.3: the same instructions), which is equal. ``qemu-next`` is a later source, whose decompact_xsave_area() does
not copy supervisor components.

They exist to compare dumps. They lose state, as the functions do that they reproduce; to convert areas for use, choose
the ``strict`` policy of :mod:`qmigtool.xsave.convert`. For every input on which C stays inside its buffers, the return
value and the bytes are those of C, for legal and illegal areas. Where C would read or write outside a buffer, or hit
its assert(), there is nothing to reproduce: XsaveError names the access: function, buffer, offset, size.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from qmigtool.errors import UsageError, XsaveError
from qmigtool.xsave.components import EXTENDED_OFFSET, XCOMP_BV_COMPACTED, XCOMP_BV_OFFSET, XSTATE_BV_OFFSET
from qmigtool.xsave.layout import CpuidRow, Layout

EINVAL = 22
E2BIG = 7

UINT32_MAX = 0xFFFFFFFF

Leaf = Layout | Mapping[int, CpuidRow]
"""CPUID leaf 0xD as a layout, or as raw rows (even rows that no CPU has); a missing subleaf reads as zeros."""


class QemuPolicy(StrEnum):
    """The version of QEMU's functions to follow; the first two are equal."""

    QEMU_V1 = "qemu-v1"
    QEMU_11_1 = "qemu-11.1"
    QEMU_NEXT = "qemu-next"


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """The result of the C function: its return value, and the whole destination buffer.

    ``rc`` is 0 or the number of bytes, or -22 (-EINVAL) or -7 (-E2BIG); then ``data`` has the bytes written so far.
    """

    rc: int
    data: bytes


def decompact_xsave_area(
    buf: bytes,
    *,
    host: Leaf,
    guest: Leaf | None = None,
    guest_xcr0: int,
    xsave_buf_len: int,
    buflen: int | None = None,
    policy: QemuPolicy | str = QemuPolicy.QEMU_V1,
) -> PolicyResult:
    """Reproduce ``int decompact_xsave_area(const void *buf, size_t buflen, CPUX86State *env)``.

    ``host`` is what host_cpuid(0xD, i) returns, ``guest`` what cpu_x86_cpuid(env, 0xD, i) does (default: the same, as
    when the accelerator copied the host's), ``guest_xcr0`` env->features[FEAT_XSAVE_XCR0_HI:LO], ``xsave_buf_len``
    env->xsave_buf_len in bytes, ``buflen`` the length passed to the function (default: that of ``buf``).

    Returns 0 and env->xsave_buf, -EINVAL for a component that neither CPUID has, -E2BIG for one that does not fit.
    Raises XsaveError at the assert() on XCOMP_BV[63], and where C would access memory outside a buffer.
    """
    policy = _policy(policy)
    _check_masks(guest_xcr0)
    buflen = len(buf) if buflen is None else buflen
    host_leaf, guest_leaf = _leaf(host), _leaf(host if guest is None else guest)
    for field in (XSTATE_BV_OFFSET, XCOMP_BV_OFFSET):
        _readable(_DECOMPACT, "buf", buf, field, 8)
    xstate_bv, xcomp_bv = struct.unpack_from("<QQ", buf, XSTATE_BV_OFFSET)
    if not xcomp_bv >> 63 & 1:
        raise XsaveError(
            f"{_DECOMPACT}() aborts at assert((compacted_xcomp_bv >> 63) & 1): XCOMP_BV is {xcomp_bv:#x}",
            offset=XCOMP_BV_OFFSET,
            expected="bit 63 to be 1 (compacted format)",
        )
    out = bytearray(_checked_length("xsave_buf_len", xsave_buf_len))
    _memcpy(_DECOMPACT, "xsave_buf", out, 0, "buf", buf, 0, EXTENDED_OFFSET)
    struct.pack_into("<QQ", out, XSTATE_BV_OFFSET, xstate_bv & guest_xcr0, xcomp_bv & ~XCOMP_BV_COMPACTED)

    offset = EXTENDED_OFFSET
    for bit in range(2, 63):
        if not xcomp_bv >> bit & 1:
            continue
        size, dst, ecx, _ = guest_leaf.get(bit, _NO_ROW)
        known_to_guest = size != 0
        supervisor = bool(ecx & 1)
        if not known_to_guest:
            size, _, ecx, _ = host_leaf.get(bit, _NO_ROW)
            if size == 0:
                return PolicyResult(-EINVAL, bytes(out))
        if ecx & 2:
            offset = _align_up(offset)
        if offset + size > buflen:
            return PolicyResult(-E2BIG, bytes(out))
        if known_to_guest:
            # Both are uint32_t in C, so their sum wraps.
            if dst + size & UINT32_MAX > xsave_buf_len:
                return PolicyResult(-E2BIG, bytes(out))
            skip = supervisor and policy is QemuPolicy.QEMU_NEXT
            if xstate_bv >> bit & 1 and not skip:
                _memcpy(_DECOMPACT, "xsave_buf", out, dst, "buf", buf, offset, size)
        offset += size
    return PolicyResult(0, bytes(out))


def compact_xsave_area(
    xsave_buf: bytes,
    *,
    host: Leaf,
    guest_xcr0: int,
    xcr0: int,
    buflen: int,
    policy: QemuPolicy | str = QemuPolicy.QEMU_V1,
) -> PolicyResult:
    """Reproduce ``int compact_xsave_area(CPUX86State *env, void *buf, size_t buflen)``.

    ``xsave_buf`` is env->xsave_buf, ``host`` what host_cpuid(0xD, i) returns, ``guest_xcr0``
    env->features[FEAT_XSAVE_XCR0_HI:LO], ``xcr0`` env->xcr0, ``buflen`` the size of the destination. All policies
    are equal here.

    Returns the end of the layout as a C int (it may be more than ``buflen``: C does not compare them), and the
    destination. Raises XsaveError where C would access memory outside a buffer.
    """
    _policy(policy)
    _check_masks(guest_xcr0, xcr0)
    leaf = _leaf(host)
    out = bytearray(_checked_length("buflen", buflen))
    _memcpy(_COMPACT, "buf", out, 0, "xsave_buf", xsave_buf, 0, EXTENDED_OFFSET)
    eax, _, _, edx = leaf.get(0, _NO_ROW)
    layout_bv = (edx << 32 | eax) & guest_xcr0
    struct.pack_into("<Q", out, XCOMP_BV_OFFSET, layout_bv | XCOMP_BV_COMPACTED)

    offset = EXTENDED_OFFSET
    for bit in range(2, 63):
        if not layout_bv >> bit & 1:
            continue
        size, src, ecx, _ = leaf.get(bit, _NO_ROW)
        if size == 0:
            continue
        if ecx & 2:
            offset = _align_up(offset)
        if xcr0 >> bit & 1:
            _memcpy(_COMPACT, "buf", out, offset, "xsave_buf", xsave_buf, src, size)
        offset += size
    return PolicyResult(_c_int(offset), bytes(out))


_DECOMPACT, _COMPACT = "decompact_xsave_area", "compact_xsave_area"

_NO_ROW: CpuidRow = (0, 0, 0, 0)

MAX_BUFFER = 1 << 24
"""No caller has more than a few pages; a larger number is an error and would only use up memory."""


def _policy(name: QemuPolicy | str) -> QemuPolicy:
    try:
        return QemuPolicy(name)
    except ValueError:
        raise UsageError(f"no policy {name!r}", expected="one of " + ", ".join(QemuPolicy)) from None


def _check_masks(*masks: int) -> None:
    for mask in masks:
        if not 0 <= mask < 1 << 64:
            raise UsageError(f"{mask:#x} is not an XCR0 mask", expected="a 64-bit number")


def _leaf(source: Leaf) -> Mapping[int, CpuidRow]:
    return source.leaf if isinstance(source, Layout) else source


def _checked_length(name: str, length: int) -> int:
    if not 0 <= length <= MAX_BUFFER:
        raise XsaveError(f"{name} is {length}", expected=f"0 to {MAX_BUFFER}")
    return length


def _align_up(offset: int) -> int:
    return -(-offset // 64) * 64


def _c_int(value: int) -> int:
    """Convert size_t to int, as the C return statement does."""
    value &= UINT32_MAX
    return value - (1 << 32) if value >> 31 else value


def _readable(function: str, name: str, buffer: bytes, offset: int, size: int) -> None:
    if offset + size > len(buffer):
        raise XsaveError(
            f"{function}() reads {size} bytes at offset {offset} of {name}, past its end: it has {len(buffer)} bytes",
            offset=offset,
        )


def _memcpy(
    function: str, dst_name: str, dst: bytearray, dst_off: int, src_name: str, src: bytes, src_off: int, size: int
) -> None:
    _readable(function, src_name, src, src_off, size)
    if dst_off + size > len(dst):
        raise XsaveError(
            f"{function}() writes {size} bytes at offset {dst_off} of {dst_name}, a buffer overflow: "
            f"it has {len(dst)} bytes",
            offset=dst_off,
        )
    dst[dst_off : dst_off + size] = src[src_off : src_off + size]
