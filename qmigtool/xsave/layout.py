"""Layouts: the offset of each state component, from CPUID leaf 0xD of one CPU (or one hypervisor).

Only a layout has the offsets of extended components. AMD puts PKRU at 2432 and Intel at 2688, APX
is at the former place of MPX, and QEMU copies its host's offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from qmigtool.errors import XsaveError
from qmigtool.xsave.components import (
    APX_MASK,
    COMPONENTS,
    EXTENDED_OFFSET,
    LEGACY_MASK,
    MPX_MASK,
    XCOMP_BV_COMPACTED,
    Format,
    bit_name,
    bits,
)

CpuidRow = tuple[int, int, int, int]
"""EAX, EBX, ECX and EDX of one subleaf."""

MAX_AREA_SIZE = 1 << 20
"""No CPU has a row that ends after this: the largest known area is 11 KiB (AMX)."""

FEATURE_XSAVEOPT, FEATURE_XSAVEC, FEATURE_XGETBV1, FEATURE_XSAVES, FEATURE_XFD = (1 << bit for bit in range(5))
"""CPUID.(0DH,1).EAX."""


@dataclass(frozen=True, slots=True)
class Row:
    """One usable component: ``size`` bytes, at ``offset`` in standard format (0 for a supervisor component)."""

    bit: int
    size: int
    offset: int
    supervisor: bool
    align64: bool
    xfd: bool

    @property
    def end(self) -> int:
        """First byte after the component in standard format."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Layout:
    """The XSAVE layout of one CPU. Make one with :meth:`from_leaf_0xd`, which checks it.

    ``leaf`` holds the raw CPUID.(0DH,i) rows, ``xcr0_mask`` and ``xss_mask`` what they advertise, ``features``
    CPUID.(0DH,1).EAX. ``rows`` holds the components that can be used, ``absent`` the reason for each one that is
    advertised (or has a row) but cannot: Zen 2 offers a bit 9 of 64 bytes, and dumps may be truncated. ``vendor`` is
    CPUID leaf 0's vendor string (``AuthenticAMD``), if known, and ``none`` if the layout is not of a CPU.
    """

    name: str
    title: str
    source: str
    leaf: Mapping[int, CpuidRow]
    xcr0_mask: int
    xss_mask: int
    features: int
    rows: Mapping[int, Row]
    absent: Mapping[int, str]
    user_mask: int
    supervisor_mask: int
    vendor: str = ""

    @classmethod
    def from_leaf_0xd(
        cls, name: str, rows: Mapping[int, Sequence[int]], *, title: str = "", source: str = "", vendor: str = ""
    ) -> Layout:
        """Make a layout from CPUID leaf 0xD: subleaf -> (EAX, EBX, ECX, EDX).

        Raises XsaveError on rows that no CPU can have: a component over the legacy region or the header, two that
        overlap (MPX and APX may), an impossible size, a bit in both masks, bit 63.
        """
        leaf = _checked_leaf(name, rows)
        if 0 not in leaf:
            raise XsaveError("there is no row for subleaf 0, which has the bits that XCR0 can have", section=name)
        eax, _, _, edx = leaf[0]
        features, _, ecx1, edx1 = leaf.get(1, (0, 0, 0, 0))
        xcr0_mask, xss_mask = edx << 32 | eax, edx1 << 32 | ecx1
        if (xcr0_mask | xss_mask) & XCOMP_BV_COMPACTED:
            raise XsaveError("a mask has bit 63, which is not a component", section=name)
        if xcr0_mask & LEGACY_MASK != LEGACY_MASK:
            raise XsaveError(
                f"the XCR0 mask is {xcr0_mask:#x}", section=name, expected="bits 0 and 1, as on every CPU with XSAVE"
            )
        if xcr0_mask & xss_mask:
            raise XsaveError(f"components {xcr0_mask & xss_mask:#x} are both in XCR0 and in IA32_XSS", section=name)
        usable, absent = _usable_rows(name, leaf, xcr0_mask, xss_mask)
        _refuse_overlaps(name, usable)
        return cls(
            name=name,
            title=title or name,
            source=source,
            leaf=MappingProxyType(leaf),
            xcr0_mask=xcr0_mask,
            xss_mask=xss_mask,
            features=features,
            rows=MappingProxyType(usable),
            absent=MappingProxyType(absent),
            user_mask=LEGACY_MASK | sum(1 << r.bit for r in usable.values() if not r.supervisor),
            supervisor_mask=sum(1 << r.bit for r in usable.values() if r.supervisor),
            vendor=vendor,
        )

    def __repr__(self) -> str:
        return f"<Layout {self.name}, XCR0 {self.user_mask:#x}, IA32_XSS {self.supervisor_mask:#x}>"

    def _repr_html_(self) -> str:
        from qmigtool.util.html import html_table

        lines = [
            (row.bit, bit_name(row.bit), row.size, None if row.supervisor else row.offset, row.align64, row.supervisor)
            for row in sorted(self.rows.values(), key=lambda row: row.bit)
        ]
        head = ("bit", "component", "bytes", "standard offset", "aligned to 64", "supervisor")
        absent = [f"not usable: {bit_name(bit)}: {why}" for bit, why in self.absent.items()]
        return html_table(f"{self.name}: {self.title}", head, lines, absent)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layout):
            return NotImplemented
        return (self.name, self.leaf, self.vendor) == (other.name, other.leaf, other.vendor)

    def __hash__(self) -> int:
        return hash((self.name, self.vendor, tuple(sorted(self.leaf.items()))))

    def __reduce__(self) -> tuple[Callable[..., Layout], tuple[object, ...]]:
        return _rebuild, (self.name, dict(self.leaf), self.title, self.source, self.vendor)

    @property
    def mask(self) -> int:
        """Every usable component."""
        return self.user_mask | self.supervisor_mask

    @property
    def has_xsavec(self) -> bool:
        """CPUID.(0DH,1).EAX[1]: the CPU supports the compacted format."""
        return bool(self.features & FEATURE_XSAVEC)

    def standard_offset(self, bit: int) -> int:
        """Return the byte where component ``bit`` (2 or more) starts in standard format.

        Raises XsaveError if the layout has no place for it: absent, or a supervisor component.
        """
        row = self._row(bit)
        if row.supervisor:
            raise XsaveError(
                f"{bit_name(bit)} is a supervisor component, which the standard format cannot hold", section=self.name
            )
        return row.offset

    def standard_size(self, xcr0: int | None = None) -> int:
        """Return the size of a standard area for ``xcr0`` (default: ``user_mask``), as CPUID.(0DH,0).EBX does.

        It is the largest end, not the end of the highest bit: APX_F (bit 19) is below PKRU (bit 9).
        """
        wanted = self.user_mask if xcr0 is None else xcr0
        ends = (self.standard_offset(bit) + self.rows[bit].size for bit in bits(wanted & ~LEGACY_MASK))
        return max(ends, default=EXTENDED_OFFSET)

    def compacted_offsets(self, mask: int) -> dict[int, int]:
        """Return bit -> byte for each component of ``mask`` above bit 1, in the compacted format.

        ``mask`` is XCOMP_BV; its bit 63 is ignored. Source: SDM volume 1, 13.4.3.
        """
        offsets: dict[int, int] = {}
        end = EXTENDED_OFFSET
        for bit in bits(mask & ~(LEGACY_MASK | XCOMP_BV_COMPACTED)):
            row = self._row(bit)
            if row.align64:
                end = -(-end // 64) * 64
            offsets[bit] = end
            end += row.size
        return offsets

    def compacted_size(self, mask: int) -> int:
        """Return the size of a compacted area with XCOMP_BV = ``mask``, as CPUID.(0DH,1).EBX does (not rounded up)."""
        offsets = self.compacted_offsets(mask)
        return max((offset + self.rows[bit].size for bit, offset in offsets.items()), default=EXTENDED_OFFSET)

    def offsets(self, form: Format, mask: int) -> dict[int, int]:
        """Return bit -> byte for each component of ``mask`` above bit 1 in an area of this format."""
        if form is Format.COMPACTED:
            return self.compacted_offsets(mask)
        return {bit: self.standard_offset(bit) for bit in bits(mask & ~LEGACY_MASK)}

    def overlapping(self, mask: int) -> tuple[tuple[int, int], ...]:
        """Return the pairs of user components in ``mask`` that share bytes in standard format (MPX and APX_F)."""
        rows = [self.rows[bit] for bit in bits(mask & self.user_mask & ~LEGACY_MASK)]
        return tuple(_overlaps(rows))

    def _row(self, bit: int) -> Row:
        row = self.rows.get(bit)
        if row is None:
            reason = self.absent.get(bit, "CPUID leaf 0xD does not have it")
            raise XsaveError(f"{bit_name(bit)} (bit {bit}) has no place in this layout: {reason}", section=self.name)
        return row


def _rebuild(name: str, leaf: Mapping[int, CpuidRow], title: str, source: str, vendor: str = "") -> Layout:
    return Layout.from_leaf_0xd(name, leaf, title=title, source=source, vendor=vendor)


def _checked_leaf(name: str, rows: Mapping[int, Sequence[int]]) -> dict[int, CpuidRow]:
    leaf: dict[int, CpuidRow] = {}
    for subleaf in sorted(rows):
        values = tuple(rows[subleaf])
        if not 0 <= subleaf < 64:
            raise XsaveError(f"there is a row for subleaf {subleaf}", section=name, expected="0 to 63")
        if len(values) != 4 or not all(0 <= value < 1 << 32 for value in values):
            raise XsaveError(f"the row of subleaf {subleaf} is not four 32-bit registers", section=name)
        leaf[subleaf] = (values[0], values[1], values[2], values[3])
    return leaf


def _usable_rows(
    name: str, leaf: Mapping[int, CpuidRow], xcr0_mask: int, xss_mask: int
) -> tuple[dict[int, Row], dict[int, str]]:
    usable: dict[int, Row] = {}
    absent: dict[int, str] = {}
    with_a_row = sum(1 << subleaf for subleaf, row in leaf.items() if subleaf >= 2 and row[0])
    for bit in bits((xcr0_mask | xss_mask | with_a_row) & ~LEGACY_MASK):
        size, offset, ecx, _ = leaf.get(bit, (0, 0, 0, 0))
        known = COMPONENTS.get(bit)
        supervisor = bool(xss_mask >> bit & 1)
        if not (xcr0_mask | xss_mask) >> bit & 1:
            absent[bit] = "it has a CPUID row, but it is in neither the XCR0 nor the IA32_XSS mask"
        elif size == 0:
            absent[bit] = "the mask advertises it, but its CPUID row is zero or missing"
        elif known and size != known.size:
            absent[bit] = f"CPUID has {size} bytes, but {known.name} has {known.size}"
        elif bool(ecx & 1) != supervisor or (known and known.supervisor != supervisor):
            kinds = ("a user component (XCR0)", "a supervisor component (IA32_XSS)")
            raise XsaveError(f"{bit_name(bit)} is advertised as {kinds[supervisor]}, but it is not one", section=name)
        elif size > MAX_AREA_SIZE or (not supervisor and not EXTENDED_OFFSET <= offset <= MAX_AREA_SIZE - size):
            raise XsaveError(
                f"{bit_name(bit)} has {size} bytes at {offset}",
                section=name,
                expected=f"a place between {EXTENDED_OFFSET} and {MAX_AREA_SIZE}",
            )
        else:
            place = 0 if supervisor else offset
            usable[bit] = Row(bit, size, place, supervisor, align64=bool(ecx & 2), xfd=bool(ecx & 4))
    return usable, absent


def _overlaps(rows: Iterable[Row]) -> Iterable[tuple[int, int]]:
    placed = sorted((row for row in rows if not row.supervisor), key=lambda row: row.bit)
    for index, row in enumerate(placed):
        for other in placed[index + 1 :]:
            if row.offset < other.end and other.offset < row.end:
                yield row.bit, other.bit


def _refuse_overlaps(name: str, rows: Mapping[int, Row]) -> None:
    for low, high in _overlaps(rows.values()):
        # APX_F uses the place of MPX; the two exclude each other in XCR0.
        if MPX_MASK >> low & 1 and APX_MASK >> high & 1:
            continue
        raise XsaveError(f"{bit_name(low)} and {bit_name(high)} overlap in standard format", section=name)
