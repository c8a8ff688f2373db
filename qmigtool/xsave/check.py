"""Validity: would XRSTOR, XRSTORS, KVM, MSHV or WHPX accept an area, and if not, why not.

The rules for the instructions and for KVM are those of SDM volume 1, 13.8 and 13.12, and of Linux
validate_user_xstate_header(); each was measured on a Zen 4 under KVM. Those for MSHV come from Linux drivers/hv, those
for WHPX from QEMU's whpx and from public reports: they are weaker, because the hypervisor's source is not public.
The contents of supervisor registers (reserved bits of IA32_U_CET and so on) are not checked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from qmigtool.findings import Finding, Severity
from qmigtool.xsave.components import (
    EXTENDED_OFFSET,
    HEADER_RESERVED_OFFSET,
    LEGACY_MASK,
    MXCSR_INIT,
    MXCSR_OFFSET,
    PAGE_SIZE,
    XCOMP_BV_COMPACTED,
    XCOMP_BV_OFFSET,
    XSTATE_BV_OFFSET,
    Format,
    bit_name,
    bits,
    mask_names,
)
from qmigtool.xsave.convert import default_mask, mshv_buffer_size
from qmigtool.xsave.enabled import impossible_xcr0, impossible_xss
from qmigtool.xsave.layout import FEATURE_XSAVEC, FEATURE_XSAVES, Layout
from qmigtool.xsave.vendor import mxcsr_mask as default_mxcsr_mask

MSHV_MASK = 0x61CFF
"""hv_x64_xsave_xfem_register: x87, SSE, AVX, MPX, AVX-512, PASID, CET_U, CET_S, AMX. Without PKRU and APX_F."""

LINUX_UNKNOWN = 1 << 62
"""Without LWP, which is not in Linux' XFEATURE_MASK_USER_SUPPORTED."""

TAKES = {
    "XRSTOR": (Format.STANDARD, Format.COMPACTED),
    "XRSTORS": (Format.COMPACTED,),
    "KVM_SET_XSAVE": (Format.STANDARD,),
    "MSHV": (Format.COMPACTED,),
    "WHPX": (Format.COMPACTED,),
}
"""The consumers, and the formats of an area that each takes."""
CONSUMERS = tuple(TAKES)


@dataclass(frozen=True, slots=True)
class ConsumerVerdict:
    """The verdict of one consumer on an area.

    ``findings`` with severity error are why it refuses, those with severity note what it accepts although it is
    unusual. Their offsets count bytes of the area.
    """

    consumer: str
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the consumer accepts the area."""
        return not self.reasons

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it refuses, one sentence each."""
        return tuple(one.message for one in self.findings if one.severity is Severity.ERROR)

    @property
    def notes(self) -> tuple[str, ...]:
        """What it accepts although it is unusual, one sentence each."""
        return tuple(one.message for one in self.findings if one.severity is Severity.NOTE)


def _refused(rule: str, message: str, offset: int | None = None) -> Finding:
    return Finding(rule, Severity.ERROR, message, offset=offset)


def _noted(rule: str, message: str, offset: int | None = None) -> Finding:
    return Finding(rule, Severity.NOTE, message, offset=offset)


def check_area(
    data: bytes,
    layout: Layout,
    xcr0: int | None = None,
    xss: int | None = None,
    *,
    rfbm: int | None = None,
    mxcsr_mask: int | None = None,
    address: int = 0,
) -> list[ConsumerVerdict]:
    """Check for each of CONSUMERS whether it would accept ``data``.

    ``layout`` is that of the CPU (or partition) that loads it, ``xcr0`` the components enabled there (default: all user
    components of ``layout``), ``xss`` IA32_XSS (default: all that such a CPU can have). ``rfbm`` is EDX:EAX of the
    instruction (default: everything), ``mxcsr_mask`` the MXCSR bits that the CPU defines (default: see
    :func:`qmigtool.xsave.vendor.mxcsr_mask`), ``address`` the area's address in memory. With an ``xcr0`` or
    ``xss`` that this CPU cannot have, all refuse. Nothing is raised: an area of any length and content gets
    verdicts. :func:`qmigtool.xsave.fit.misfits` checks whether the area is of this ``layout`` at all.
    """
    checks: tuple[Callable[[_Area], list[Finding]], ...] = (_xrstor, _xrstors, _kvm, _mshv, _whpx)
    if len(data) < EXTENDED_OFFSET:
        short = f"the area has {len(data)} bytes, but its header ends at byte {EXTENDED_OFFSET}"
        return [ConsumerVerdict(consumer, (_refused("size", short),)) for consumer in CONSUMERS]
    if xcr0 is None:
        xstate_bv, xcomp_bv = struct.unpack_from("<QQ", data, XSTATE_BV_OFFSET)
        declared = (xstate_bv | xcomp_bv) & ~XCOMP_BV_COMPACTED
        xcr0 = default_mask(layout, Format.STANDARD, declared=declared)
    if xss is None:
        xss = layout.xss_mask
    impossible = tuple(
        _refused(rule, reason)
        for rule, reasons in (("xcr0", impossible_xcr0(xcr0, layout)), ("xss", impossible_xss(xss, layout)))
        for reason in reasons
    )
    if impossible:
        return [ConsumerVerdict(consumer, impossible) for consumer in CONSUMERS]
    taken = default_mxcsr_mask(data, layout) if mxcsr_mask is None else mxcsr_mask
    area = _Area(data, layout, xcr0, xss, -1 if rfbm is None else rfbm, taken, address)
    return [ConsumerVerdict(consumer, tuple(check(area))) for consumer, check in zip(CONSUMERS, checks, strict=True)]


@dataclass(frozen=True, slots=True)
class _Area:
    data: bytes
    layout: Layout
    xcr0: int
    xss: int
    rfbm: int
    mxcsr_mask: int
    address: int

    @property
    def xstate_bv(self) -> int:
        return int(struct.unpack_from("<Q", self.data, XSTATE_BV_OFFSET)[0])

    @property
    def xcomp_bv(self) -> int:
        return int(struct.unpack_from("<Q", self.data, XCOMP_BV_OFFSET)[0])

    @property
    def compacted(self) -> bool:
        return bool(self.xcomp_bv & XCOMP_BV_COMPACTED)

    def misaligned(self) -> list[Finding]:
        if self.address % 64 == 0:
            return []
        return [_refused("alignment", f"the area is at address {self.address:#x}, which is not a multiple of 64")]

    def reserved(self, start: int, end: int) -> list[Finding]:
        """Return the reason for non-zero header bytes in start..end; it names only the first."""
        for offset in range(start, end):
            if self.data[offset]:
                text = f"header byte {offset} is {self.data[offset]:#x}, but bytes {start} to {end - 1} must be 0"
                return [_refused("reserved", text, offset)]
        return []

    def mxcsr(self) -> list[Finding]:
        (value,) = struct.unpack_from("<I", self.data, MXCSR_OFFSET)
        wrong = value & ~self.mxcsr_mask
        if not wrong:
            return []
        text = f"MXCSR (byte {MXCSR_OFFSET}) is {value:#x}, whose bits {wrong:#x} are reserved there"
        return [_refused("mxcsr", text, MXCSR_OFFSET)]

    def outside(self, register: str, offset: int, value: int, allowed: int, of: str) -> list[Finding]:
        wrong = value & ~allowed & ~XCOMP_BV_COMPACTED
        if not wrong:
            return []
        names = ", ".join(mask_names(wrong))
        text = f"{register} (byte {offset}) is {value:#x}, but {of} {allowed:#x} does not have {names}"
        return [_refused("components", text, offset)]

    def subset(self) -> list[Finding]:
        """Check that XSTATE_BV is a subset of XCOMP_BV[62:0], and its bit 63 is 0."""
        reasons = self.outside(
            "XSTATE_BV", XSTATE_BV_OFFSET, self.xstate_bv, self.xcomp_bv & ~XCOMP_BV_COMPACTED, "XCOMP_BV"
        )
        return reasons + self.bit_63()

    def bit_63(self) -> list[Finding]:
        if not self.xstate_bv & XCOMP_BV_COMPACTED:
            return []
        text = f"XSTATE_BV (byte {XSTATE_BV_OFFSET}) is {self.xstate_bv:#x}, but its bit 63 must be 0"
        return [_refused("components", text, XSTATE_BV_OFFSET)]

    def too_short_standard(self) -> list[Finding]:
        for bit in bits(self.xstate_bv & self.layout.user_mask & ~LEGACY_MASK):
            end = self.layout.rows[bit].end
            if end > len(self.data):
                text = f"the area has {len(self.data)} bytes, but {bit_name(bit)} in XSTATE_BV ends at byte {end}"
                return [_refused("size", text)]
        return []

    def compacted_end(self) -> int | None:
        """Return where the components of XCOMP_BV end, or None if the layout does not have one of them."""
        if self.xcomp_bv & ~(self.layout.mask | XCOMP_BV_COMPACTED):
            return None
        return self.layout.compacted_size(self.xcomp_bv)

    def compacted_form(self, allowed: int, of: str) -> list[Finding]:
        """Check the rules of all consumers of compacted areas."""
        reasons = self.outside("XCOMP_BV", XCOMP_BV_OFFSET, self.xcomp_bv, allowed, of)
        reasons += self.subset()
        reasons += self.reserved(HEADER_RESERVED_OFFSET, EXTENDED_OFFSET)
        if self.xstate_bv & 2 and self.rfbm & 2:
            reasons += self.mxcsr()
        end = self.compacted_end()
        if end is None:
            unknown = self.xcomp_bv & ~(self.layout.mask | XCOMP_BV_COMPACTED)
            if not reasons:
                names = ", ".join(mask_names(unknown))
                reasons.append(
                    _refused(
                        "components",
                        f"XCOMP_BV (byte {XCOMP_BV_OFFSET}) has {names}, which {self.layout.name} cannot place",
                        XCOMP_BV_OFFSET,
                    )
                )
        elif end > len(self.data):
            reasons.append(
                _refused(
                    "size", f"the area has {len(self.data)} bytes, but the components of XCOMP_BV end at byte {end}"
                )
            )
        return reasons

    def standard_instead(self) -> list[Finding]:
        if self.compacted:
            return []
        text = (
            f"XCOMP_BV (byte {XCOMP_BV_OFFSET}) is {self.xcomp_bv:#x}, a standard area, but only the compacted format"
        )
        return [_refused("format", f"{text} is accepted", XCOMP_BV_OFFSET)]


def _xrstor(area: _Area) -> list[Finding]:
    reasons = area.misaligned()
    if area.compacted:
        if not area.layout.features & FEATURE_XSAVEC:
            without = "has no XSAVEC" if 1 in area.layout.leaf else "does not record XSAVEC"
            reasons.append(
                _refused("format", f"the area is compacted, but {area.layout.name} {without} (CPUID.(0DH,1).EAX[1])")
            )
        return reasons + area.compacted_form(area.xcr0, "XCR0")
    if area.xcomp_bv:
        text = f"XCOMP_BV (byte {XCOMP_BV_OFFSET}) is {area.xcomp_bv:#x}"
        reasons.append(_refused("format", f"{text}, but must be 0 in standard format (bit 63 is 0)", XCOMP_BV_OFFSET))
    # Only bytes 23:16 of the header; XRSTOR does not check the rest in standard format (measured).
    reasons += area.reserved(HEADER_RESERVED_OFFSET, HEADER_RESERVED_OFFSET + 8)
    reasons += area.outside("XSTATE_BV", XSTATE_BV_OFFSET, area.xstate_bv, area.xcr0, "XCR0")
    reasons += area.bit_63()
    # Standard XRSTOR loads MXCSR for SSE and for AVX, whatever XSTATE_BV is.
    if area.rfbm & area.xcr0 & 6:
        reasons += area.mxcsr()
    reasons += area.too_short_standard()
    notes: list[Finding] = []
    if any(area.data[HEADER_RESERVED_OFFSET + 8 : EXTENDED_OFFSET]):
        notes.append(
            _noted(
                "reserved",
                "header bytes 536 to 575 are not all 0: XRSTOR ignores them; KVM and the compacted form do not",
                HEADER_RESERVED_OFFSET + 8,
            )
        )
    return reasons + notes


def _xrstors(area: _Area) -> list[Finding]:
    reasons = area.misaligned() + area.standard_instead()
    if not area.layout.features & FEATURE_XSAVES:
        reasons.append(_refused("format", f"{area.layout.name} has no XSAVES (CPUID.(0DH,1).EAX[3])"))
    if area.compacted:
        reasons += area.compacted_form(area.xcr0 | area.xss, "XCR0 | IA32_XSS")
    return reasons


def _kvm(area: _Area) -> list[Finding]:
    reasons: list[Finding] = []
    notes: list[Finding] = []
    if area.xcomp_bv:
        reasons.append(
            _refused(
                "format",
                f"XCOMP_BV (byte {XCOMP_BV_OFFSET}) is {area.xcomp_bv:#x}, but KVM requires 0 (standard format)",
                XCOMP_BV_OFFSET,
            )
        )
    # KVM checks against what the host has and Linux knows, not against the guest's XCR0.
    host = area.layout.user_mask & ~LINUX_UNKNOWN
    reasons += area.outside("XSTATE_BV", XSTATE_BV_OFFSET, area.xstate_bv, host, "the host's mask")
    reasons += area.bit_63()
    reasons += area.reserved(HEADER_RESERVED_OFFSET, EXTENDED_OFFSET)
    (mxcsr,) = struct.unpack_from("<I", area.data, MXCSR_OFFSET)
    if area.xstate_bv & 7:  # also for x87 alone (measured)
        reasons += area.mxcsr()
    if not area.compacted:
        reasons += area.too_short_standard()
    if mxcsr != MXCSR_INIT and not area.xstate_bv & 2:
        notes.append(
            _noted(
                "mxcsr",
                f"MXCSR {mxcsr:#x} would not reach the guest, because XSTATE_BV[1] is 0: "
                f"it would run with {MXCSR_INIT:#x}",
                MXCSR_OFFSET,
            )
        )
    if len(area.data) < PAGE_SIZE:
        notes.append(
            _noted(
                "size", f"struct kvm_xsave has {PAGE_SIZE} bytes: the caller must pad the {len(area.data)} of this area"
            )
        )
    return reasons + notes


def _mshv(area: _Area) -> list[Finding]:
    reasons = area.standard_instead()
    notes: list[Finding] = []
    if area.compacted:
        reasons += area.compacted_form(area.layout.mask, "the layout's mask")
        for register, offset, value in (
            ("XSTATE_BV", XSTATE_BV_OFFSET, area.xstate_bv),
            ("XCOMP_BV", XCOMP_BV_OFFSET, area.xcomp_bv),
        ):
            reasons += area.outside(register, offset, value, MSHV_MASK, "hv_x64_xsave_xfem_register")
    if len(area.data) % PAGE_SIZE:
        size = mshv_buffer_size(len(area.data))
        notes.append(
            _noted(
                "size",
                f"MSHV_SET_VP_STATE requires a buffer of whole pages: {size} bytes for the {len(area.data)} here",
            )
        )
    end = area.compacted_end() if area.compacted else None
    if end is not None and end > PAGE_SIZE:
        notes.append(
            _noted("size", f"the area needs {end} bytes, but QEMU 11.1 and rust-vmm pass one page of {PAGE_SIZE}")
        )
    if area.xcomp_bv & LEGACY_MASK != LEGACY_MASK and area.compacted:
        notes.append(
            _noted(
                "components", "XCOMP_BV[1:0] are not 3, but MSHV always has x87 and SSE in its layout", XCOMP_BV_OFFSET
            )
        )
    return reasons + notes


def _whpx(area: _Area) -> list[Finding]:
    reasons = area.standard_instead()
    notes: list[Finding] = []
    if area.compacted:
        reasons += area.compacted_form(area.layout.mask, "the layout's mask")
        end, buffer = area.compacted_end(), area.layout.leaf[0][2]
        if end is not None and end > buffer:
            notes.append(
                _noted("size", f"the area needs {end} bytes, but QEMU's whpx passes CPUID.(0DH,0).ECX = {buffer}")
            )
    return reasons + notes
