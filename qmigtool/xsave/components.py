"""State components: the numbered parts of the register state in an XSAVE area.

Sizes, alignment and initial configurations are architectural and defined here. The offset of a component in standard
format is a property of the CPU, defined in :mod:`qmigtool.xsave.layout`.

Source: Intel SDM volume 1, 13.4 to 13.6; for LWP the CPUID dumps of AMD family 15h; for APX_F QEMU commit 91bc4d8107.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from qmigtool.errors import UsageError
from qmigtool.util.values import parse_number

LEGACY_SIZE = 512
"""Bytes 0-511: x87 and SSE state, at the same place in both formats."""

XSTATE_BV_OFFSET = 512
XCOMP_BV_OFFSET = 520
HEADER_RESERVED_OFFSET = 528
"""Bytes 63:16 of the header, which must be zero in both formats (a standard XRSTOR checks only 23:16)."""

HEADER_SIZE = 64
EXTENDED_OFFSET = LEGACY_SIZE + HEADER_SIZE
"""Byte 576: where the extended region starts, and so the smallest XSAVE area."""

PAGE_SIZE = 4096
"""Bytes of struct kvm_xsave and of the buffer that QEMU passes to MSHV: one page."""

MXCSR_OFFSET = 24
MXCSR_MASK_OFFSET = 28
MXCSR_INIT = 0x1F80
FCW_INIT = 0x037F

XCOMP_BV_COMPACTED = 1 << 63
"""XCOMP_BV[63]: the area is in compacted format."""

LEGACY_MASK = 0x3
AVX_MASK = 0x4
MPX_MASK = 0x18
AVX512_MASK = 0xE0
PT_MASK = 0x100
PKRU_MASK = 0x200
PASID_MASK = 0x400
CET_MASK = 0x1800
LBR_MASK = 0x8000
AMX_MASK = 0x60000
APX_MASK = 0x80000

X87_PIECES = ((0, 24), (32, 128))
"""(offset, size) of the x87 component in the legacy region; ST0-ST7 are in stack order, 16 bytes each."""

SSE_PIECES = ((160, 256),)
"""(offset, size) of XMM0-15. MXCSR (bytes 24-27) also belongs to SSE, but it follows rules of its own."""


class Format(StrEnum):
    """The two formats of an XSAVE area; XCOMP_BV[63] selects it."""

    STANDARD = "standard"
    COMPACTED = "compacted"


@dataclass(frozen=True, slots=True)
class Component:
    """One state component.

    ``size`` is the architectural size in bytes: for x87 the 152 bytes of :data:`X87_PIECES`, for SSE the 256 of
    XMM0-15 (without MXCSR), otherwise CPUID.(0DH,bit).EAX. ``supervisor`` components are enabled by IA32_XSS and exist
    only in compacted format; the others by XCR0. ``initial`` is the initial configuration, ``size`` bytes.
    """

    bit: int
    name: str
    contents: str
    size: int
    supervisor: bool
    align64: bool
    xfd: bool
    initial: bytes

    @property
    def mask(self) -> int:
        """The component's bit in XCR0, IA32_XSS, XSTATE_BV and XCOMP_BV."""
        return 1 << self.bit


def _component(
    bit: int, name: str, contents: str, size: int, kind: str = "U", *, flags: str = "", initial: bytes = b""
) -> Component:
    return Component(
        bit=bit,
        name=name,
        contents=contents,
        size=size,
        supervisor=kind == "S",
        align64="A" in flags,
        xfd="X" in flags,
        initial=initial + bytes(size - len(initial)),
    )


_ALL = (
    _component(0, "x87", "ST0-7, FCW, FSW, FTW, FOP, FIP, FDP", 152, initial=FCW_INIT.to_bytes(2, "little")),
    _component(1, "SSE", "XMM0-15 (and MXCSR)", 256),
    _component(2, "AVX", "YMM0_H-YMM15_H", 256),
    _component(3, "BNDREGS", "BND0-3", 64),
    _component(4, "BNDCSR", "BNDCFGU, BNDSTATUS", 64),
    _component(5, "opmask", "k0-k7", 64),
    _component(6, "ZMM_Hi256", "ZMM0-15 bits 511:256", 512),
    _component(7, "Hi16_ZMM", "ZMM16-31", 1024),
    _component(8, "PT", "9 IA32_RTIT MSRs", 128, "S"),
    _component(9, "PKRU", "PKRU", 8),
    _component(10, "PASID", "IA32_PASID", 8, "S"),
    _component(11, "CET_U", "IA32_U_CET, IA32_PL3_SSP", 16, "S"),
    _component(12, "CET_S", "IA32_PL0_SSP, IA32_PL1_SSP, IA32_PL2_SSP", 24, "S"),
    _component(13, "HDC", "IA32_PM_CTL1", 8, "S", initial=(1).to_bytes(8, "little")),
    _component(14, "UINTR", "user interrupts", 48, "S"),
    _component(15, "LBR", "LBR_CTL, LBR_DEPTH, LER, 32 x (FROM, TO, INFO)", 808, "S"),
    _component(16, "HWP", "IA32_HWP_REQUEST", 8, "S", initial=(0x8000FF01).to_bytes(8, "little")),
    _component(17, "XTILECFG", "TILECFG", 64, flags="A"),
    _component(18, "XTILEDATA", "tile data", 8192, flags="AX"),
    _component(19, "APX_F", "R16-R31", 128),
    _component(62, "LWP", "AMD lightweight profiling", 128),
)

COMPONENTS: Mapping[int, Component] = MappingProxyType({c.bit: c for c in _ALL})
"""Every state component with a public definition, by bit."""

USER_MASK = sum(c.mask for c in _ALL if not c.supervisor)
"""Components that XCR0 enables."""

SUPERVISOR_MASK = sum(c.mask for c in _ALL if c.supervisor)
"""Components that IA32_XSS enables (0x1FD00)."""

_BY_NAME = {c.name.lower(): c for c in _ALL}

# Components that are enabled, and lost, together.
_GROUPS = {"mpx": MPX_MASK, "avx512": AVX512_MASK, "cet": CET_MASK, "amx": AMX_MASK, "apx": APX_MASK}


def component(key: int | str) -> Component:
    """Return the component with this bit number or name (case does not matter).

    Raises UsageError if there is none.
    """
    found = COMPONENTS.get(key) if isinstance(key, int) else _BY_NAME.get(key.strip().lower())
    if found is None:
        raise UsageError(
            f"no state component {key!r}", expected="a bit number or one of " + ", ".join(c.name for c in _ALL)
        )
    return found


def bits(mask: int) -> Iterator[int]:
    """Yield the numbers of the bits set in ``mask``, ascending."""
    while mask > 0:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def bit_name(bit: int) -> str:
    """Return the component's name, or ``"bit20"`` for a bit without a public definition."""
    known = COMPONENTS.get(bit)
    return known.name if known else f"bit{bit}"


def initial_configuration(bit: int, size: int) -> bytes:
    """Return the ``size`` bytes of the component's initial configuration (zeros for one without a definition)."""
    known = COMPONENTS.get(bit)
    return known.initial if known and known.size == size else bytes(size)


LBR_DEPTH = slice(8, 16)
"""IA32_LBR_DEPTH inside LBR: initialising does not change it (SDM 13.6), so it never makes LBR live."""


def is_initial(bit: int, contents: bytes) -> bool:
    """Return whether ``contents`` are the initial configuration of component ``bit``."""
    if bit == 15:
        contents = contents[: LBR_DEPTH.start] + bytes(8) + contents[LBR_DEPTH.stop :]
    return contents == initial_configuration(bit, len(contents))


def mask_names(mask: int) -> tuple[str, ...]:
    """Return the name of each component in ``mask``, ascending."""
    return tuple(bit_name(bit) for bit in bits(mask))


def parse_mask(text: str) -> int:
    """Read a component mask: ``"0x2e7"``, ``"743"``, or names as in ``"x87,sse,avx"`` (``bit20`` works too,
    and ``mpx``, ``avx512``, ``cet``, ``amx``, ``apx`` for groups).

    Raises UsageError if a part is neither, or for a bit above 62.
    """
    mask = 0
    for part in text.split(","):
        word = part.strip().lower()
        if word in _BY_NAME or word in _GROUPS:
            mask |= _GROUPS[word] if word in _GROUPS else _BY_NAME[word].mask
            continue
        number = word.removeprefix("bit")
        value = parse_number(number)
        if value is None:
            raise UsageError(
                f"{part.strip()!r} is neither a number nor a state component in the mask {text!r}",
                expected="a number or names, such as 0x2e7 or x87,sse,avx",
            )
        if number != word:
            value = 1 << value if 0 <= value < 64 else -1
        if not 0 <= value < XCOMP_BV_COMPACTED:
            raise UsageError(f"the mask {text!r} has bits outside 62:0", expected="bits 0 to 62")
        mask |= value
    return mask


def with_dependents(mask: int) -> int:
    """Return the components to remove from an XCR0 together with ``mask``, so that the rest is legal."""
    dependents = ((2, 0xE6), (4, 0xE4), (AVX512_MASK, AVX512_MASK), (MPX_MASK, MPX_MASK), (AMX_MASK, AMX_MASK))
    for some, all_ in dependents:
        if mask & some:
            mask |= all_
    return mask


def check_xcr0(mask: int) -> list[str]:
    """Return why XSETBV would refuse ``mask`` as XCR0 (#GP); an empty list if it would not.

    Only XCR0 must obey these rules. RFBM and XCOMP_BV may be any subset of what is enabled: XSAVEC with the mask 0xE3
    writes XCOMP_BV 0x80000000000000E3 (measured). Source: SDM volume 1, 13.3; QEMU commit 91bc4d8107 for APX.
    """
    reasons = []
    if not mask & 1:
        reasons.append("XCR0[0] (x87) is 0, but it must be 1")
    if mask & 4 and not mask & 2:
        reasons.append("XCR0[2] (AVX) is 1 without XCR0[1] (SSE)")
    if 0 < mask & MPX_MASK < MPX_MASK:
        reasons.append("XCR0[3] (BNDREGS) and XCR0[4] (BNDCSR) differ")
    if 0 < mask & AVX512_MASK < AVX512_MASK:
        reasons.append("XCR0[7:5] (opmask, ZMM_Hi256, Hi16_ZMM) are not all the same")
    if mask & AVX512_MASK and mask & 6 != 6:
        reasons.append("XCR0[7:5] (AVX-512) are 1 without XCR0[2] (AVX) and XCR0[1] (SSE)")
    if 0 < mask & AMX_MASK < AMX_MASK:
        reasons.append("XCR0[17] (XTILECFG) and XCR0[18] (XTILEDATA) differ")
    if mask & APX_MASK and mask & MPX_MASK:
        reasons.append("XCR0[19] (APX_F) and XCR0[4:3] (MPX) are both 1, but they exclude each other")
    if mask & SUPERVISOR_MASK:
        names = ", ".join(mask_names(mask & SUPERVISOR_MASK))
        reasons.append(f"XCR0 has supervisor components, which belong in IA32_XSS: {names}")
    if mask >> 63:
        reasons.append("XCR0[63] is 1, but it is reserved")
    return reasons
