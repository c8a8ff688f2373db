"""Tables of text cells, folded to a width: at spaces and after slashes, else after dots of a path, not inside names.

A table that is too wide for that is stacked: the columns that do not fit go to more lines of each row, indented. Where
columns are read downwards (``keys``), it is split instead: several tables, one below the other, each with the first
columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import permutations, zip_longest
from typing import NamedTuple

from qmigtool.util.text import line_start

__all__ = ["FoldedLine", "folded", "wrapped"]

GAP = 2
SAMPLE = 100  # rows by which widths are chosen
STEPS = (*range(12, 0, -1), 2, 1)  # what a column gives another
HANGING = 1  # what the first column's continuation lines are indented by
STACKED = 2  # what the second line of a stacked row is indented by
# Where a line may end, from the best places to the worst: between parts that two spaces separate, after a space or
# slash, a dot of a path (not of a file name), other punctuation. Not inside numbers: 7.2 stays together, and -1. Not
# where a line would begin as a command to a CI runner. A command in backquotes stays together.
_PARTS = r"(?<=  )(?=[^ ])(?!::|##)"
_WORDS = r"(?<= )(?=[^ ])(?!::|##)|(?<=/)(?=[^ /])(?!::|##)"
_DOTS = rf"{_WORDS}|(?<=[A-Za-z_\]]\.)(?=[A-Za-z_]\w{{5}})"
_PUNCTUATION = rf"{_WORDS}|(?<=\w\.)(?=[A-Za-z_])|(?<=\w[-_,:;=@])(?=\w)"
# 64 bits of a number, up to the 512 of a register: without a limit a long number would take quadratic time.
_GROUPS = r"(?<=[0-9a-f])(?=(?:[0-9a-f]{16}){1,8}(?![0-9a-zA-Z]))"
NAMES = tuple(map(re.compile, (_WORDS, _DOTS, rf"{_DOTS}|{_GROUPS}")))  # those that leave names as they are
TIERS = (re.compile(_PARTS), *NAMES, re.compile(rf"{_PUNCTUATION}|{_GROUPS}"))
_COMMAND = re.compile(r"`[^`]+`")
_KEPT = "\x00"  # in no text: it is printable


class FoldedLine(NamedTuple):
    """A line of a row: padded cells, each with the number of its column."""

    columns: Sequence[int]
    cells: list[str]
    indent: int = 0


def wrapped(text: str, width: int, *, hanging: int = 0) -> list[str]:
    """Return lines of at most ``width``, if no word is longer; those after the first are indented."""
    if len(text) <= width:
        return [line_start(text)]
    kept = text if "`" not in text else _COMMAND.sub(lambda found: _together(found[0], width - hanging), text)
    breaks = next((tier for tier in TIERS if _longest(kept, tier) + hanging <= width), TIERS[-1])
    lines: list[str] = []
    line = ""
    for piece in breaks.split(kept):
        if line.strip() and len(line) + len(piece.rstrip(" ")) > width:
            lines.append(line.rstrip(" "))
            line = " " * hanging
        line += piece
    return [line_start(one.replace(_KEPT, " ")) for one in (*lines, line.rstrip(" "))]


def _together(command: str, width: int) -> str:
    return command.replace(" ", _KEPT) if len(command) < width else command


def folded(
    head: Sequence[str],
    cells: Sequence[Sequence[str]],
    right: Sequence[bool],
    width: int | None,
    keys: int | None = None,
) -> list[list[list[FoldedLine]]]:
    """Return tables of rows of lines, the head first; without a ``width`` one table with a line for each row.

    ``right`` columns are never folded. With ``keys``, a table that is too wide is split, and so many columns begin each
    part; without, it is stacked.
    """
    every = [head, *cells]
    natural = [max(map(len, column)) for column in zip(*every, strict=True)]
    whole = range(len(head))
    if width is None or _total(natural) <= width:
        return [_rows(every, whole, natural, right)]
    found = None
    for tier in NAMES:
        least = _least(every, natural, right, tier)
        if _total(least) <= width:
            found = _rows(every, whole, _fitting(every, natural, least, width), right)
            break
    if keys is not None:
        return _split(every, natural, right, width, keys) if found is None else [found]
    stacked = _stacked(every, natural, right, width)
    return [stacked if found is None or _height(stacked) < _height(found) else found]


def _stacked(
    every: Sequence[Sequence[str]], natural: Sequence[int], right: Sequence[bool], width: int
) -> list[list[FoldedLine]]:
    """Return rows of several lines each, with the columns that fit in one."""
    groups: list[list[int]] = [[0]]
    for i in range(1, len(natural)):
        room = width - STACKED * (len(groups) > 1)
        if _total([natural[one] for one in (*groups[-1], i)]) > room:
            groups.append([])
        groups[-1].append(i)
    rows: list[list[FoldedLine]] = [[] for _ in every]
    for number, group in enumerate(groups):
        indent = STACKED if number else 0
        widths = [min(natural[i], width - indent) for i in group]
        some = [[row[i] for i in group] for row in every]
        for row, lines in zip(rows, _rows(some, group, widths, [right[i] for i in group]), strict=True):
            row.extend(line._replace(indent=indent) for line in lines if not number or any(map(str.strip, line.cells)))
    return rows


def _split(
    every: Sequence[Sequence[str]], natural: Sequence[int], right: Sequence[bool], width: int, keys: int
) -> list[list[list[FoldedLine]]]:
    """Return several tables, each with the first columns."""
    tables = []
    least = _least(every, natural, right, TIERS[-1])
    key = next(_narrower(every, natural, right, keys, width // 2), least[:keys])
    left = [*range(keys, len(natural))]
    while left:
        chosen = [left.pop(0)]
        while left and _total([*key, *(natural[i] for i in (*chosen, left[0]))]) <= width:
            chosen.append(left.pop(0))
        rest = [natural[i] for i in chosen]
        if _total([*key, *rest]) > width:
            rest = [least[i] for i in chosen]
        columns = [*range(keys), *chosen]
        some = [[row[i] for i in columns] for row in every]
        widths = _fitting(some, [natural[i] for i in columns], [*key, *rest], width)
        tables.append(_rows(some, columns, widths, [right[i] for i in columns]))
    return tables


def _narrower(
    every: Sequence[Sequence[str]], natural: Sequence[int], right: Sequence[bool], keys: int, room: int
) -> Iterator[Sequence[int]]:
    """Yield widths of the first columns that fit in ``room``, from the best folding to the worst."""
    for widths in (natural, *(_least(every, natural, right, tier) for tier in NAMES)):
        if sum(widths[:keys]) <= room:
            yield widths[:keys]


def _height(rows: Sequence[Sequence[FoldedLine]]) -> int:
    return sum(map(len, rows))


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


def _rows(
    every: Sequence[Sequence[str]], columns: Sequence[int], widths: Sequence[int], right: Sequence[bool]
) -> list[list[FoldedLine]]:
    return [[FoldedLine(columns, cells) for cells in _lines(row, widths, right)] for row in every]


def _lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[list[str]]:
    cells = [_wrapped(cell, width, i) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
    return [
        [part.rjust(w) if flush else part.ljust(w) for part, w, flush in zip(line, widths, right, strict=True)]
        for line in zip_longest(*cells, fillvalue="")
    ]
