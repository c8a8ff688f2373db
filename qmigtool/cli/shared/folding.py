"""Tables of text cells, folded to a width: at spaces and after slashes, else at other punctuation, never inside words.

Where even that is too wide, the columns go into several tables, one below the other, each with the first columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import permutations, zip_longest
from typing import NamedTuple

from qmigtool.util.text import line_start

__all__ = ["Folded", "folded", "wrapped"]

GAP = 2
SAMPLE = 100  # rows by which widths are chosen
STEPS = (*range(12, 0, -1), 2, 1)  # what a column gives another
HANGING = 1  # what the first column's continuation lines are indented by
# Where a line may end, from the best places to the worst: behind a space or slash, a dot, other punctuation. Not inside
# numbers: 7.2 stays together, and -1. Not where a line would begin as a command to a CI runner.
_WORDS = r"(?<=\s)(?=\S)(?!::|##)|(?<=/)(?=[^\s/])(?!::|##)"
_DOTS = rf"{_WORDS}|(?<=\w\.)(?=[A-Za-z_])"
_PUNCTUATION = rf"{_DOTS}|(?<=\w[-_,:;=@])(?=\w)"
TIERS = tuple(map(re.compile, (_WORDS, _DOTS, _PUNCTUATION)))


class Folded(NamedTuple):
    """A table, or some of its columns: rows, the head first, of lines of padded cells."""

    columns: Sequence[int]
    rows: list[list[list[str]]]


def wrapped(text: str, width: int, *, hanging: int = 0) -> list[str]:
    """Return lines of at most ``width``, if no word is longer; those behind the first are indented."""
    if len(text) <= width:
        return [line_start(text)]
    breaks = next((tier for tier in TIERS if _longest(text, tier) + hanging <= width), TIERS[-1])
    lines: list[str] = []
    line = ""
    for piece in breaks.split(text):
        if line.strip() and len(line) + len(piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = " " * hanging
        line += piece
    return [line_start(one) for one in (*lines, line.rstrip())]


def folded(
    head: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool], width: int | None, keys: int = 1
) -> list[Folded]:
    """Return the table, folded; without a ``width`` with a line for each row. ``right`` columns are never folded.

    ``keys`` columns begin each table, where there have to be several.
    """
    every = [head, *cells]
    natural = [max(map(len, column)) for column in zip(*every, strict=True)]
    whole = range(len(head))
    if width is None or _total(natural) <= width:
        return [Folded(whole, _rows(every, natural, right))]
    for tier in TIERS:
        least = _least(every, natural, right, tier)
        if _total(least) <= width:
            return [Folded(whole, _rows(every, _fitting(every, natural, least, width), right))]
    tables = []
    key = natural[:keys] if sum(natural[:keys]) <= width // 2 else least[:keys]
    left = [*whole[keys:]]
    while left:
        chosen = [left.pop(0)]
        while left and _total([*key, *(natural[i] for i in (*chosen, left[0]))]) <= width:
            chosen.append(left.pop(0))
        rest = [natural[i] for i in chosen]
        if _total([*key, *rest]) > width:
            rest = [least[i] for i in chosen]
        columns = [*whole[:keys], *chosen]
        some = [[row[i] for i in columns] for row in every]
        widths = _fitting(some, [natural[i] for i in columns], [*key, *rest], width)
        tables.append(Folded(columns, _rows(some, widths, [right[i] for i in columns])))
    return tables


def _longest(text: str, breaks: re.Pattern[str]) -> int:
    return max((len(piece.rstrip()) for piece in breaks.split(text)), default=0)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _least(
    every: Sequence[Sequence[str]], natural: Sequence[int], right: Sequence[bool], breaks: re.Pattern[str]
) -> list[int]:
    """Return how narrow each column can be."""
    pieces = [max(_longest(row[i], breaks) for row in every) for i in range(len(natural))]
    pieces[0] += HANGING
    return [whole if flush else min(whole, piece) for whole, flush, piece in zip(natural, right, pieces, strict=True)]


def _fitting(every: Sequence[Sequence[str]], natural: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """Return widths with which the rows take few lines: columns give others what saves lines there."""
    widths = _shared(natural, least, width)
    sample = every[:SAMPLE]

    @cache
    def heights(column: int, at: int) -> list[int]:
        return [len(_wrapped(row[column], at, column)) for row in sample]

    def lines(some: Sequence[int]) -> tuple[int, int]:
        """Return the lines of the rows, and those of all cells."""
        found = [heights(i, at) for i, at in enumerate(some)]
        return sum(map(max, zip(*found, strict=True))), sum(map(sum, found))

    best = lines(widths)
    for step in STEPS:
        for giver, taker in permutations(range(len(widths)), 2):
            changed = list(widths)
            changed[giver] -= step
            changed[taker] += step
            if changed[giver] >= least[giver] and lines(changed) < best:
                widths, best = changed, lines(changed)
    return widths


def _wrapped(cell: str, width: int, column: int) -> list[str]:
    return wrapped(cell, width, hanging=HANGING if column == 0 else 0)


def _shared(natural: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """Return widths between the least and the natural ones: spare columns go where most is missing."""
    widths = list(least)
    for _ in range(width - _total(widths)):
        missing = [i for i in range(len(widths)) if widths[i] < natural[i]]
        if not missing:
            break
        widths[min(missing, key=lambda i: (widths[i] / natural[i], i))] += 1
    return widths


def _rows(every: Sequence[Sequence[str]], widths: Sequence[int], right: Sequence[bool]) -> list[list[list[str]]]:
    return [_lines(row, widths, right) for row in every]


def _lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[list[str]]:
    cells = [_wrapped(cell, width, i) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
    return [
        [part.rjust(w) if flush else part.ljust(w) for part, w, flush in zip(line, widths, right, strict=True)]
        for line in zip_longest(*cells, fillvalue="")
    ]
