"""Assertions about saved state, for any test framework; the pytest plugin is :mod:`qmigtool.testing.plugin`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qmigtool.diff import compare, default_noise
from qmigtool.diff.text import HEAD, cells, saver, verdict
from qmigtool.stream.model import Stream
from qmigtool.stream.opening import open_stream
from qmigtool.util.text import printable

if TYPE_CHECKING:
    import os

    from qmigtool.diff import Comparison, Noise

__all__ = ["assert_same_state", "explanation"]

SHOWN = 30  # differences in an explanation


def assert_same_state(
    a: Stream | str | os.PathLike[str] | bytes,
    b: Stream | str | os.PathLike[str] | bytes,
    *,
    ignore: str | Iterable[str] = (),
    noise: Noise | None = None,
    ram: bool = False,
) -> None:
    """Assert that two streams hold the same state; an :class:`AssertionError` lists the differences.

    ``ignore`` are patterns over ``device@instance/path`` (``"cpu@*/env.tsc"``; ``*`` is anything); ``noise`` are the
    rules that excuse differences (default: clocks, the TSC, timers; see :mod:`qmigtool.diff.noise`). ``ram`` compares
    guest memory, too. A broken stream never equals another: its
    :attr:`~qmigtool.stream.model.Stream.problems` fail the assertion.
    """
    __tracebackhide__ = True
    rules = default_noise() if noise is None else noise
    patterns = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    with contextlib.ExitStack() as stack:
        one, other = (s if isinstance(s, Stream) else stack.enter_context(open_stream(s)) for s in (a, b))
        found = compare(one, other, noise=rules.ignoring(*patterns))
        problems = [f"{name} is broken: {p}" for name, s in (("A", one), ("B", other)) for p in s.problems]
        memory = _memory(one, other) if ram else []
        if not found.same or problems or memory:
            raise AssertionError(explanation(found, (one, other), [*problems, *memory]))


def explanation(found: Comparison, streams: tuple[Stream, Stream], more: Sequence[str] = ()) -> str:
    """Return a comparison as lines for people: the streams, what differs, what was excused."""
    lines = ["the saved states differ: " + verdict(found)]
    lines += [
        printable(f"  {name}: {_short(s.source.name)}, {s.machine or 'no machine type'}, {saver(s)}")
        for name, s in zip("AB", streams, strict=True)
    ]
    rows = [cells(difference) for difference in found.differences[:SHOWN]]
    if rows:
        table = [HEAD, *rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table]
    left = len(found.differences) - len(rows)
    lines += [f"  ... and {left} more"] if left else []
    lines += [f"  undecided: {printable(why)}" for why in found.undecided]
    return "\n".join([*lines, *(f"  note: {printable(note)}" for note in found.notes), *map(printable, more)])


def _short(name: str) -> str:
    """Return a path relative to the working directory, if it is below it."""
    here = f"{Path.cwd()}/"
    return name.removeprefix(here)


def _memory(a: Stream, b: Stream) -> list[str]:
    """Return the differences of guest memory as lines, none if it is the same."""
    from qmigtool.diff.ram import compare_ram
    from qmigtool.diff.ram.text import ram_verdict, range_cells

    found = compare_ram(a, b)
    if found.same:
        return []
    ranges = [
        f"  {block} at {offset}: {pages} pages {kind}" for block, offset, pages, kind in range_cells(found, SHOWN)
    ]
    problems = [f"  {block.name}: {problem}" for block in found.blocks for problem in block.problems]
    return [ram_verdict(found), *ranges, *problems]
