"""Plans: how to convert every area of one (layout, format, mask) to another, as a list of slice moves.

The rules of the ``strict`` policy, which a plan follows, are in :mod:`qmigtool.xsave.convert`. A plan is made once
and serves one area (:meth:`Plan.apply`) or many (:func:`~qmigtool.xsave.batch.apply_batch`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from qmigtool.errors import LiveStateError, XsaveError
from qmigtool.xsave.components import (
    COMPONENTS,
    EXTENDED_OFFSET,
    FCW_INIT,
    HEADER_RESERVED_OFFSET,
    LEGACY_MASK,
    MXCSR_INIT,
    MXCSR_OFFSET,
    SSE_PIECES,
    X87_PIECES,
    XCOMP_BV_COMPACTED,
    XCOMP_BV_OFFSET,
    XSTATE_BV_OFFSET,
    Format,
    bit_name,
    bits,
    initial_configuration,
    is_initial,
    mask_names,
)
from qmigtool.xsave.header import MXCSR_DEFINED, effective_mxcsr, header
from qmigtool.xsave.hyperv import HYPERV_QUIRK_MASK
from qmigtool.xsave.layout import Layout
from qmigtool.xsave.vendor import cpu_mxcsr_mask


@dataclass(frozen=True, slots=True)
class Move:
    """Component ``bit``: ``size`` bytes from ``src`` in the source area to ``dst`` in the target (-1: it has none)."""

    bit: int
    src: int
    dst: int
    size: int


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a conversion.

    ``data`` is the area. ``supervisor`` holds supervisor components (bit -> contents) that ``data`` cannot hold and
    that must be sent as MSRs. ``dropped`` is the mask of live components lost with permission. ``notes`` are sentences
    on what is unusual.
    """

    data: bytes
    supervisor: Mapping[int, bytes] = field(default_factory=dict)
    dropped: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How to convert every area of one layout, format and mask to another. Make one with :func:`make_plan`.

    ``source_mask`` is XCOMP_BV[62:0] of a compacted source and the layout's user components of a standard one.
    ``source_size`` is the minimum size of a source. ``moves`` has the components with a place on both sides,
    ``leaving`` those with a place in the source only.
    """

    source: Layout
    source_format: Format
    source_mask: int
    target: Layout
    target_format: Format
    target_mask: int
    drop: int
    hyperv_quirk: bool
    moves: tuple[Move, ...]
    leaving: tuple[Move, ...]
    source_size: int
    target_size: int

    def apply(self, area: bytes, *, supervisor: Mapping[int, bytes] | None = None) -> Result:
        """Convert one area; ``supervisor`` are components outside it (bit -> contents).

        Raises LiveStateError if live state has no place in the target and ``drop`` does not allow it, XsaveError if
        the area breaks a rule of its format or is not of the layout that the plan was made for.
        """
        declared = self.declared(area)
        notes: list[str] = []
        dropped = declared & ~(self.source_mask | LEGACY_MASK)
        lost = 0
        if dropped & ~self.drop:
            raise LiveStateError(
                f"XSTATE_BV {declared:#x} declares components, but {self.source.name} has no place for them: "
                f"{_reasons(dropped & ~self.drop, self.source)}",
                components=mask_names(dropped & ~self.drop),
            )
        if dropped:
            notes.append(f"dropped unread, because {self.source.name} has no place for it: {_names(dropped)}")
        declared &= ~dropped
        beside = self._checked_supervisor(supervisor or {}, declared)
        for move in self.leaving:
            if not declared >> move.bit & 1:
                continue
            contents = self._contents(area, move)
            # Compare every byte, so that IA32_LBR_DEPTH, which never makes LBR live, is kept.
            if contents == initial_configuration(move.bit, move.size):
                notes.append(f"{bit_name(move.bit)} left out: declared, but in its initial configuration")
            elif self.source.rows[move.bit].supervisor:
                beside[move.bit] = contents
            elif self.drop >> move.bit & 1:
                dropped |= 1 << move.bit
                notes.append(f"{bit_name(move.bit)} dropped: it is live, and the caller allowed the loss")
            else:
                lost |= 1 << move.bit
        if lost:
            raise self._lost(lost)
        data, carried = self._build(area, declared, beside, notes)
        return Result(data, carried, dropped, tuple(notes))

    def declared(self, area: bytes) -> int:
        """Check the area's header and return the components that hold state: XSTATE_BV, with the quirk applied."""
        if len(area) < self.source_size:
            raise XsaveError(
                f"the area has {len(area)} bytes", offset=len(area), expected=f"{self.source_size} or more"
            )
        xstate_bv, xcomp_bv = header(area)
        expected = self.source_mask | XCOMP_BV_COMPACTED if self.source_format is Format.COMPACTED else 0
        if xcomp_bv != expected:
            raise XsaveError(
                f"XCOMP_BV is {xcomp_bv:#x}",
                offset=XCOMP_BV_OFFSET,
                expected=f"{expected:#x} in this {self.source_format} area",
            )
        reserved = area[HEADER_RESERVED_OFFSET:EXTENDED_OFFSET]
        if any(reserved):
            offset = next(offset for offset, byte in enumerate(reserved, HEADER_RESERVED_OFFSET) if byte)
            raise XsaveError(f"a reserved header byte is {area[offset]:#x}", offset=offset, expected="0")
        if xstate_bv & XCOMP_BV_COMPACTED:
            raise XsaveError(f"XSTATE_BV is {xstate_bv:#x}", offset=XSTATE_BV_OFFSET, expected="bit 63 to be 0")
        if self.source_format is Format.COMPACTED and xstate_bv & ~xcomp_bv:
            raise XsaveError(
                f"XSTATE_BV {xstate_bv:#x} has components that XCOMP_BV does not have: {_names(xstate_bv & ~xcomp_bv)}",
                offset=XSTATE_BV_OFFSET,
                expected="a subset of XCOMP_BV",
            )
        if self.hyperv_quirk:
            xstate_bv |= xcomp_bv & HYPERV_QUIRK_MASK
        for one, other in self.source.overlapping(xstate_bv) if self.source_format is Format.STANDARD else ():
            raise XsaveError(
                f"XSTATE_BV has {bit_name(one)} and {bit_name(other)}, which share bytes in standard format",
                offset=XSTATE_BV_OFFSET,
            )
        return xstate_bv

    def _build(
        self, area: bytes, declared: int, beside: dict[int, bytes], notes: list[str]
    ) -> tuple[bytes, dict[int, bytes]]:
        kept = declared & self.target_mask
        contents = {move.bit: self._contents(area, move) for move in self.moves if kept >> move.bit & 1}
        if self.target_format is Format.STANDARD:
            for one, other in self.target.overlapping(kept):
                idle = [bit for bit in (one, other) if is_initial(bit, contents[bit])]
                if not idle:
                    raise XsaveError(
                        f"{bit_name(one)} and {bit_name(other)} are both live and share bytes in standard format",
                        section=self.target.name,
                    )
                kept &= ~(1 << idle[0])
                notes.append(f"{bit_name(idle[0])} left out: it is initial, and its place is in use")
        offsets = self.target.offsets(self.target_format, self.target_mask)
        for bit in [bit for bit in beside if bit in offsets]:
            contents[bit] = beside.pop(bit)
            kept |= 1 << bit
        mxcsr, stale = effective_mxcsr(area, declared, self.source_format)
        if stale:
            notes.append(f"MXCSR {stale:#x} in memory is stale (no CPU can hold it); 1F80 is used")
        elif mxcsr != MXCSR_INIT and not declared & 0x6:
            notes.append(f"MXCSR {mxcsr:#x} is read from memory, as XRSTOR does; KVM would use 1F80 here")
        self._check_mxcsr(mxcsr, notes)
        if mxcsr != MXCSR_INIT:
            kept |= 2
        if self.target_format is Format.COMPACTED and not self.target.has_xsavec:
            name, told = self.target.name, 1 in self.target.leaf
            without = "has no XSAVEC, so that CPU" if told else "does not record XSAVEC; a CPU without it"
            notes.append(f"{name} {without} refuses compacted areas")

        out = bytearray(self.target_size)
        struct.pack_into("<H", out, 0, FCW_INIT)
        for present, pieces in ((declared & 1, X87_PIECES), (declared & 2, SSE_PIECES)):
            for offset, size in pieces if present else ():
                out[offset : offset + size] = area[offset : offset + size]
        struct.pack_into("<II", out, MXCSR_OFFSET, mxcsr, 0)
        for bit, piece in contents.items():
            if kept >> bit & 1:
                out[offsets[bit] : offsets[bit] + len(piece)] = piece
        xcomp_bv = self.target_mask | XCOMP_BV_COMPACTED if self.target_format is Format.COMPACTED else 0
        struct.pack_into("<QQ", out, XSTATE_BV_OFFSET, kept, xcomp_bv)
        return bytes(out), beside

    @property
    def mxcsr_mask(self) -> int:
        """The MXCSR bits that both the source and the target can hold."""
        known = [mask for mask in map(cpu_mxcsr_mask, (self.source, self.target)) if mask is not None]
        return min(known, default=MXCSR_DEFINED)

    def _check_mxcsr(self, mxcsr: int, notes: list[str]) -> None:
        """Refuse an MXCSR that only one side's CPU accepts. One that no CPU accepts is kept, with a note."""
        if wrong := mxcsr & ~MXCSR_DEFINED:
            notes.append(f"MXCSR is {mxcsr:#x}, whose bits {wrong:#x} no CPU defines: XRSTOR faults on it")
        elif wrong := mxcsr & ~self.mxcsr_mask:
            where = next(one for one in (self.source, self.target) if cpu_mxcsr_mask(one) == self.mxcsr_mask)
            raise LiveStateError(
                f"MXCSR is {mxcsr:#x}, whose bits {wrong:#x} are reserved on {where.name}: XRSTOR faults there",
                components=(bit_name(1),),
            )

    def _contents(self, area: bytes, move: Move) -> bytes:
        if move.src + move.size > len(area):
            raise XsaveError(
                f"XSTATE_BV declares {bit_name(move.bit)}, which ends at byte {move.src + move.size}, but the area has "
                f"{len(area)}",
                offset=len(area),
            )
        return bytes(area[move.src : move.src + move.size])

    def _checked_supervisor(self, supervisor: Mapping[int, bytes], declared: int) -> dict[int, bytes]:
        for bit, contents in supervisor.items():
            check_supervisor(bit, contents, self.source)
            row = self.target.rows.get(bit)
            if row is not None and row.size != len(contents):
                raise XsaveError(f"{bit_name(bit)} has {len(contents)} bytes", expected=f"{row.size}")
            if declared >> bit & 1:
                raise XsaveError(f"{bit_name(bit)} is both in the area and outside it", section=self.source.name)
        return dict(supervisor)

    def _lost(self, lost: int) -> LiveStateError:
        target = f"a {self.target_format} area of {self.target.name} with mask {self.target_mask:#x}"
        return LiveStateError(
            f"live state would be lost, because {target} has no place for it: {_reasons(lost, self.target)}",
            components=mask_names(lost),
        )


@lru_cache(maxsize=512)
def make_plan(
    source: Layout,
    source_format: Format,
    source_mask: int,
    target: Layout,
    target_format: Format,
    target_mask: int,
    *,
    drop: int = 0,
    hyperv_quirk: bool = False,
) -> Plan:
    """Make the plan from (source layout, format, mask) to (target layout, format, mask).

    The masks are XCOMP_BV for a compacted area (bit 63 is ignored) and the user components for a standard one;
    x87 and SSE are always included. Raises XsaveError if a layout has no place for a component of its mask.
    """
    for mask in (source_mask, target_mask):
        if not 0 <= mask < 1 << 64:
            raise XsaveError(f"{mask:#x} is not a component mask", expected="a 64-bit number")
    source_mask &= ~XCOMP_BV_COMPACTED
    target_mask = target_mask & ~XCOMP_BV_COMPACTED | LEGACY_MASK
    src = source.offsets(source_format, source_mask)
    dst = target.offsets(target_format, target_mask)
    moves, leaving = [], []
    for bit, offset in src.items():
        size = source.rows[bit].size
        if bit not in dst:
            leaving.append(Move(bit, offset, -1, size))
        elif target.rows[bit].size != size:
            raise XsaveError(
                f"{bit_name(bit)} has {size} bytes in {source.name} and {target.rows[bit].size} in {target.name}"
            )
        else:
            moves.append(Move(bit, offset, dst[bit], size))
    compacted = source_format is Format.COMPACTED
    return Plan(
        source=source,
        source_format=source_format,
        source_mask=source_mask,
        target=target,
        target_format=target_format,
        target_mask=target_mask,
        drop=drop,
        hyperv_quirk=hyperv_quirk and compacted,
        moves=tuple(moves),
        leaving=tuple(leaving),
        source_size=source.compacted_size(source_mask) if compacted else EXTENDED_OFFSET,
        target_size=max((offset + target.rows[bit].size for bit, offset in dst.items()), default=EXTENDED_OFFSET),
    )


def _reasons(mask: int, layout: Layout) -> str:
    return ", ".join(
        f"{bit_name(bit)} ({layout.absent[bit]})" if bit in layout.absent else bit_name(bit) for bit in bits(mask)
    )


def _names(mask: int) -> str:
    return ", ".join(mask_names(mask))


def check_supervisor(bit: int, contents: bytes, source: Layout) -> None:
    """Raise XsaveError unless ``contents`` can belong to supervisor component ``bit``."""
    row = source.rows.get(bit)
    known = COMPONENTS.get(bit)
    supervisor = known.supervisor if known else row is not None and row.supervisor
    if not supervisor:
        raise XsaveError(f"{bit_name(bit)} is not a supervisor component", section=source.name)
    size = known.size if known else row.size if row else 0
    if len(contents) != size:
        raise XsaveError(f"{bit_name(bit)} has {len(contents)} bytes", section=source.name, expected=f"{size}")
