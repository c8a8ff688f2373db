"""A plan applied to many areas at once, with numpy: one vectorised step per component instead of one per area."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qmigtool.errors import LiveStateError, QmigError, XsaveError
from qmigtool.xsave.components import (
    AVX_MASK,
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
    initial_configuration,
)
from qmigtool.xsave.header import MXCSR_DEFINED
from qmigtool.xsave.hyperv import HYPERV_QUIRK_MASK
from qmigtool.xsave.plan import Move, Plan

__all__ = ["apply_batch"]

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Areas = NDArray[np.uint8]
    Rows = NDArray[np.bool_]
    Masks = NDArray[np.uint64]


def apply_batch(plan: Plan, areas: Areas) -> Areas:
    """Convert ``areas``, uint8 of shape (N, bytes of one area), to uint8 of shape (N, ``plan.target_size``).

    Each row follows the rules of :meth:`~qmigtool.xsave.plan.Plan.apply`; the error names the first row that breaks
    one. A batch cannot return supervisor state, so live supervisor state without a place in the target is refused.
    """
    if areas.dtype != np.uint8 or areas.ndim != 2:
        raise XsaveError(f"the batch is {areas.dtype} of shape {areas.shape}", expected="uint8 of shape (N, bytes)")
    if areas.shape[1] < plan.source_size:
        raise XsaveError(f"the areas have {areas.shape[1]} bytes", expected=f"{plan.source_size} or more")
    declared, bad = _headers(plan, areas)
    for move in plan.leaving:
        bad |= _has(declared, move.bit) & _lossy(plan, areas, move)
    for move in plan.moves:
        if move.src + move.size > areas.shape[1]:
            bad |= _has(declared, move.bit)
    kept = declared & np.uint64(plan.target_mask)
    if plan.target_format is Format.STANDARD:
        by_bit = {move.bit: move for move in plan.moves}
        for one, other in plan.target.overlapping(plan.target_mask):
            if one in by_bit and other in by_bit:
                bad |= _leave_idle(areas, kept, by_bit[one], by_bit[other])
    mxcsr = _u32(areas, MXCSR_OFFSET).copy()
    if plan.source_format is Format.COMPACTED:
        mxcsr[~_has(declared, 1)] = MXCSR_INIT
    else:
        stale = (mxcsr & np.uint32(~MXCSR_DEFINED & 0xFFFFFFFF) != 0) & (
            declared & np.uint64(LEGACY_MASK | AVX_MASK) == 0
        )
        mxcsr[stale] = MXCSR_INIT
    bad |= (mxcsr & np.uint32(~plan.mxcsr_mask & 0xFFFFFFFF) != 0) & (mxcsr <= np.uint32(MXCSR_DEFINED))
    if bad.any():
        _raise_for(plan, areas, int(bad.argmax()))
    kept[mxcsr != MXCSR_INIT] |= np.uint64(2)

    out = np.zeros((len(areas), plan.target_size), dtype=np.uint8)
    out[:, :2] = np.frombuffer(FCW_INIT.to_bytes(2, "little"), dtype=np.uint8)
    legacy = [Move(bit, o, o, size) for bit, pieces in enumerate((X87_PIECES, SSE_PIECES)) for o, size in pieces]
    for move in (*legacy, *plan.moves):
        # After the MXCSR rule bit 1 of `kept` may be set where SSE is initial: `declared` has the components in memory.
        rows = _has(declared if move.bit < 2 else kept, move.bit)
        if rows.any():
            where = slice(None) if rows.all() else rows
            out[where, move.dst : move.dst + move.size] = areas[where, move.src : move.src + move.size]
    out[:, MXCSR_OFFSET : MXCSR_OFFSET + 8] = 0
    _put(out, MXCSR_OFFSET, mxcsr)
    _put(out, XSTATE_BV_OFFSET, kept)
    if plan.target_format is Format.COMPACTED:
        _put(out, XCOMP_BV_OFFSET, np.full(len(out), plan.target_mask | XCOMP_BV_COMPACTED, dtype=np.uint64))
    return out


def _headers(plan: Plan, areas: Areas) -> tuple[Masks, Rows]:
    """Return the components that each row declares, and the rows that break a rule of the header."""
    declared, xcomp_bv = _u64(areas, XSTATE_BV_OFFSET).copy(), _u64(areas, XCOMP_BV_OFFSET)
    compacted = plan.source_format is Format.COMPACTED
    bad = xcomp_bv != np.uint64(plan.source_mask | XCOMP_BV_COMPACTED if compacted else 0)
    bad |= areas[:, HEADER_RESERVED_OFFSET:EXTENDED_OFFSET].any(axis=1)
    placed = plan.source_mask | LEGACY_MASK
    if compacted:
        bad |= declared & ~xcomp_bv != 0
    bad |= declared & np.uint64(~(placed | plan.drop) & (1 << 64) - 1 | XCOMP_BV_COMPACTED) != 0
    declared &= np.uint64(placed)
    if plan.hyperv_quirk:
        declared |= np.uint64(plan.source_mask & HYPERV_QUIRK_MASK)
    if not compacted:
        for one, other in plan.source.overlapping(plan.source_mask):
            bad |= _has(declared, one) & _has(declared, other)
    return declared, bad


def _lossy(plan: Plan, areas: Areas, move: Move) -> Rows:
    """Return the rows where dropping ``move`` would lose state (or where the component is outside the area)."""
    if move.src + move.size > areas.shape[1]:
        return np.ones(len(areas), dtype=np.bool_)
    if plan.drop >> move.bit & 1 and not plan.source.rows[move.bit].supervisor:
        return np.zeros(len(areas), dtype=np.bool_)
    return _live(areas, move)


def _leave_idle(areas: Areas, kept: Masks, one: Move, other: Move) -> Rows:
    """Clear the idle one of two components with a common place in ``kept``; return the rows where both are live."""
    both = _has(kept, one.bit) & _has(kept, other.bit)
    if max(one.src + one.size, other.src + other.size) > areas.shape[1] or not both.any():
        return np.zeros(len(areas), dtype=np.bool_)
    one_live, other_live = _live(areas, one), _live(areas, other)
    kept[both & ~one_live] &= np.uint64(~(1 << one.bit) & (1 << 64) - 1)
    kept[both & one_live & ~other_live] &= np.uint64(~(1 << other.bit) & (1 << 64) - 1)
    return both & one_live & other_live


def _live(areas: Areas, move: Move) -> Rows:
    differs = areas[:, move.src : move.src + move.size] != np.frombuffer(
        initial_configuration(move.bit, move.size), dtype=np.uint8
    )
    rows: Rows = differs.any(axis=1)
    return rows


def _raise_for(plan: Plan, areas: Areas, row: int) -> None:
    """Raise the error that this row alone gives, with the row's index."""
    try:
        result = plan.apply(areas[row].tobytes())
    except QmigError as error:
        error.message = f"row {row}: {error.message}"
        error.args = (error.message,)
        raise
    names = tuple(bit_name(bit) for bit in result.supervisor)
    raise LiveStateError(
        f"row {row}: live supervisor state has no place in the target, and a batch cannot return it: "
        f"{', '.join(names)}",
        components=names,
    )


def _has(masks: Masks, bit: int) -> Rows:
    rows: Rows = masks & np.uint64(1 << bit) != 0
    return rows


def _u64(areas: Areas, offset: int) -> Masks:
    return np.ascontiguousarray(areas[:, offset : offset + 8]).view("<u8")[:, 0]


def _u32(areas: Areas, offset: int) -> NDArray[np.uint32]:
    return np.ascontiguousarray(areas[:, offset : offset + 4]).view("<u4")[:, 0]


def _put(out: Areas, offset: int, values: NDArray[np.uint32] | Masks) -> None:
    size = values.dtype.itemsize
    out[:, offset : offset + size] = values.astype(f"<u{size}").view(np.uint8).reshape(-1, size)
