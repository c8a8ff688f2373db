"""100,000 areas converted: apply_batch against a loop of Plan.apply and a loop of naive slicing.

The loops run over the first 5,000 areas and are compared by the time for one area.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

import qmigtool
from qmigtool.xsave import Format, Plan, make_plan
from qmigtool.xsave.batch import apply_batch
from tests.bench.measure import Figure, medians, ms, peak
from tests.bench.rivals import slicer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qmigtool.xsave import Layout

    Areas = NDArray[np.uint8]

TITLE = "100,000 areas converted (figure: time for one area; ratio: our time by the rival's)"
AREAS, LOOPED, REPEAT = 100_000, 5_000, 3
CASES = (("amd-zen4", 0x2E7, AREAS), ("intel-spr", 0x602E7, 10_000))
"""(layout, mask, areas in one batch): 10,000 areas with AMX are 110 MB, and ten such batches are the 100,000."""


def standard_areas(layout: Layout, mask: int, count: int, *, alike: bool) -> Areas:
    """Make valid areas of random contents: ``alike`` ones declare every component, others each a random subset."""
    rng = np.random.default_rng(1)
    areas = np.zeros((count, layout.standard_size(mask)), dtype=np.uint8)
    declared = np.full(count, mask, dtype=np.uint64)
    if not alike:
        declared &= rng.integers(0, 1 << 32, size=count, dtype=np.uint64)
    areas[:, :416] = rng.integers(0, 256, size=(count, 416), dtype=np.uint8)
    areas[:, 24:32] = np.frombuffer((0x1FA0).to_bytes(4, "little") + bytes(4), dtype=np.uint8)  # MXCSR and its mask
    declared |= np.uint64(2)  # because MXCSR is not 1F80
    areas[:, 512:520] = declared.astype("<u8").view(np.uint8).reshape(-1, 8)
    for bit, offset in layout.offsets(Format.STANDARD, mask).items():
        size = layout.rows[bit].size
        areas[:, offset : offset + size] = rng.integers(0, 256, size=(1, size), dtype=np.uint8)
        areas[:, offset] = np.arange(count) & 0xFF | 1  # no two neighbours alike, and none initial
    return areas


def figures() -> Iterator[Figure]:
    """Measure both layouts, both ways."""
    for name, mask, size in CASES:
        layout = qmigtool.layout(name)
        there = make_plan(layout, Format.STANDARD, mask, layout, Format.COMPACTED, mask)
        back = make_plan(layout, Format.COMPACTED, mask, layout, Format.STANDARD, mask)
        for alike in (True, False):
            areas = standard_areas(layout, mask, size, alike=alike)
            kind = "all components in each" if alike else "random subsets"
            compacted = apply_batch(there, areas)
            yield from _way(f"{name} {mask:#x}, {kind}, standard to compacted", there, areas)
            yield from _way(f"{name} {mask:#x}, {kind}, compacted to standard", back, compacted)


def _way(what: str, plan: Plan, areas: Areas) -> Iterator[Figure]:
    rows = [row.tobytes() for row in areas[:LOOPED]]
    xcomp_bv = plan.target_mask | 1 << 63 if plan.target_format is Format.COMPACTED else 0
    naive = slicer([(move.bit, move.src, move.dst, move.size) for move in plan.moves], plan.target_size, xcomp_bv)
    batch = apply_batch(plan, areas)
    for area, result in zip(rows[:200], batch, strict=False):
        assert plan.apply(area).data == result.tobytes()
        # The naive loop takes x87 and SSE as they are, declared or not.
        assert naive(area)[576:] == result[576:].tobytes()
    rounds = AREAS // len(areas)
    ways: dict[str, Callable[[], object]] = {
        "batch": lambda: [apply_batch(plan, areas) for _ in range(rounds)],
        "Plan.apply loop": lambda: [plan.apply(area) for area in rows],
        "naive slicing loop": lambda: [naive(area) for area in rows],
        "numpy copy of the input": lambda: [areas.copy() for _ in range(rounds)],
    }
    times = medians(ways, REPEAT)
    each = {name: time / (len(rows) if "loop" in name else AREAS) for name, time in times.items()}
    extra = peak(lambda: apply_batch(plan, areas)) / (len(areas) * plan.target_size)
    for rival in ("Plan.apply loop", "naive slicing loop", "numpy copy of the input"):
        yield Figure(what, ms(each["batch"]), rival, ms(each[rival]), each["batch"] / each[rival])
        what = f"  peak memory {extra:.2f} x the result" if rival == "Plan.apply loop" else ""
