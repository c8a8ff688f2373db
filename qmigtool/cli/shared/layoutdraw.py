"""The drawing of a layout: standard and compacted format side by side, with offsets, gaps and alignment."""

from __future__ import annotations

from itertools import zip_longest
from typing import NamedTuple

from qmigtool.util.text import printable
from qmigtool.xsave import Format, Layout, mask_names
from qmigtool.xsave.components import EXTENDED_OFFSET, LEGACY_SIZE

BAR = 24  # cells of a bar


class DrawnBlock(NamedTuple):
    """A stretch of an area; ``name`` is empty for a gap."""

    start: int
    size: int
    name: str
    note: str = ""


def draw(layout: Layout, mask: int, columns: int | None = None) -> str:
    """Return the drawing of ``layout`` for areas with the components of ``mask``.

    The two formats are side by side, or one above the other where they do not fit ``columns``. Raises
    :class:`~qmigtool.errors.XsaveError` if the layout cannot place a component.
    """
    compacted = _blocks(layout, Format.COMPACTED, mask)
    standard = _blocks(layout, Format.STANDARD, mask & ~layout.supervisor_mask)
    left = _column(standard, f"standard, {_end(standard)} bytes")
    right = _column(compacted, f"compacted, {_end(compacted)} bytes")
    lines = [f"{printable(layout.name)}: {printable(layout.title)}"]
    lines += [f"mask {mask:#x}: {' '.join(mask_names(mask))}", "bars: place and size to scale, one cell at least", ""]
    width = max(map(len, left))
    if columns is not None and width + 3 + max(map(len, right)) > columns:
        lines += [*left, "", *right]
    else:
        for one, other in zip_longest(left, right, fillvalue=""):
            lines.append(f"{one:{width}}   {other}".rstrip())
    beside = mask & layout.supervisor_mask
    if beside:
        lines += ["", f"only in compacted format (supervisor): {' '.join(mask_names(beside))}"]
    for bit, reason in layout.absent.items():
        lines += ["", f"not usable: {mask_names(1 << bit)[0]}: {reason}"]
    return "\n".join(lines)


def _blocks(layout: Layout, form: Format, mask: int) -> list[DrawnBlock]:
    """Return the stretches of an area in rising order, gaps among them."""
    placed = [DrawnBlock(0, LEGACY_SIZE, "x87 SSE"), DrawnBlock(LEGACY_SIZE, EXTENDED_OFFSET - LEGACY_SIZE, "header")]
    for bit, offset in layout.offsets(form, mask).items():
        row = layout.rows[bit]
        note = "aligned to 64" if form is Format.COMPACTED and row.align64 else ""
        placed.append(DrawnBlock(offset, row.size, mask_names(1 << bit)[0], note))
    blocks = []
    end = 0
    for block in sorted(placed):
        if block.start > end:
            blocks.append(DrawnBlock(end, block.start - end, ""))
        blocks.append(block if block.start >= end else block._replace(note="overlaps the one above"))
        end = max(end, block.start + block.size)
    return blocks


def _end(blocks: list[DrawnBlock]) -> int:
    return max(block.start + block.size for block in blocks)


def _column(blocks: list[DrawnBlock], title: str) -> list[str]:
    total = _end(blocks)
    lines = [title, f"{'byte':>5}  {'size':>5}"]
    for block in blocks:
        first = block.start * BAR // total
        cells = max(1, (block.start + block.size) * BAR // total - first)
        bar = ("░" if not block.name else "█") * cells
        name = block.name or "(gap)"
        text = f"{block.start:5}  {block.size:5}  {name:10} {' ' * first}{bar}"
        lines.append(f"{text} {block.note}" if block.note else text)
    lines.append(f"{total:5}  end")
    return lines
