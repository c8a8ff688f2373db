"""The traffic of a capture as a picture: the rate of each channel, and of each pass what the guest wrote, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from qmigtool.documents.flows import rates
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.stream.traffic import Timeline, Traffic

__all__ = ["flows_svg"]

INTERVALS = 200
WIDTH, ROW, LEFT, GAP = 900, 70, 170, 24  # pixels
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#8c564b", "#e377c2")
SHOWN = 64  # channels, and passes of a migration


def flows_svg(traffic: Traffic, timelines: Sequence[Timeline]) -> str:
    """Return an SVG document: a line of rates for each channel, with when the guest stopped; bars for the passes."""
    seconds, channels = rates(traffic, INTERVALS)
    parts: list[str] = []
    top = GAP
    total = seconds * INTERVALS
    begin = top
    for i, (name, values) in enumerate(channels[:SHOWN]):
        most = max(values, default=0)
        label = f"{name}: at most {most / 1e6:.1f} MB/s"
        parts += [_text(4, top + ROW / 2, label), _line(values, most, top, COLOURS[i % len(COLOURS)])]
        top += ROW + 8
    for timeline in timelines:
        for moment, word in ((timeline.stopped, "stopped"), (timeline.resumed, "resumed")):
            if moment is not None and traffic.start is not None and total:
                x = LEFT + (moment.time - traffic.start) / 1e9 / total * (WIDTH - LEFT)
                parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{begin}" y2="{top}" stroke="#d62728"/>')
                parts.append(_text(min(x + 2, WIDTH - 60), begin - 6, word, "#d62728"))
    parts.append(_text(LEFT, top + 12, "0 s"))
    parts.append(_text(WIDTH - 60, top + 12, f"{total:.3f} s"))
    top += GAP + 12
    for timeline in timelines:
        bars = [one for one in timeline.passes if one.dirtied is not None][:SHOWN]
        if not bars:
            continue
        number = timeline.migration.number
        parts.append(_text(4, top, f"migration {number}: MB/s that the guest wrote in each pass"))
        top += 10
        most = max(one.dirtied or 0 for one in bars) or 1
        for one in bars:
            rate = one.dirtied or 0
            width = rate / most * (WIDTH - LEFT - 90)
            parts.append(_text(4, top + 11, f"pass {one.number}"))
            parts.append(f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="14" fill="#1f77b4"/>')
            parts.append(_text(LEFT + width + 4, top + 11, f"{rate * timeline.page_size / 1e6:.2f}"))
            top += 18
        top += GAP
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top + GAP}" '
        f'viewBox="0 0 {WIDTH} {top + GAP}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _line(values: Sequence[float], most: float, top: float, colour: str) -> str:
    step = (WIDTH - LEFT) / max(len(values), 1)
    points = [f"{LEFT},{top + ROW}"]
    for i, value in enumerate(values):
        y = top + ROW - (value / most * ROW if most else 0)
        points += [f"{LEFT + i * step:.1f},{y:.1f}", f"{LEFT + (i + 1) * step:.1f},{y:.1f}"]
    points.append(f"{WIDTH},{top + ROW}")
    return f'<polygon points="{" ".join(points)}" fill="{colour}" fill-opacity="0.5" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, colour: str = "black") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{escape(printable(text))}</text>'
