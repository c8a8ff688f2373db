"""Align two lists of fields: the same field, or one that was renamed, regrouped or moved, or is missing.

Field names are not on the wire: a field that was renamed, or that moved into a struct, is the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from enum import StrEnum
from typing import NamedTuple

from qmigtool.schemadiff.model import ShapeField

__all__ = ["How", "Match", "align", "is_padding", "number_width", "same_bytes"]

MAX_PRODUCT = 1 << 20  # of lists longer than a thousand fields each only the equal ends are matched by name
MAX_LEAVES = 1 << 12
MAX_BYTES = 8  # of a number
NUMBER = re.compile(r"u?int(8|16|32|64)( le)?(?: equal| positive)?")

Fields = Sequence[ShapeField]
Key = Callable[[ShapeField], Hashable]


class How(StrEnum):
    """Why fields are matched."""

    SAME = "same"
    """One name."""
    RENAMED = "renamed"
    """One place and one size."""
    REGROUPED = "regrouped"
    """Several fields that take the same bytes as several others."""
    RECUT = "recut"
    """Several fields with the same total length as several others, but other bytes."""
    PADDED = "padded"
    """Fields for which the other side has padding, or the other way round."""
    MOVED = "moved"
    """One name in two places."""
    MISSING = "missing"
    EXTRA = "extra"


class Match(NamedTuple):
    """Fields of A and of B that belong together: one each, unless they are regrouped or a side has none."""

    how: How
    a: Fields
    b: Fields


def align(a: Fields, b: Fields, *, counted: bool = True) -> list[Match]:
    """Return the matches in the order of A; fields that only B has are at their place in it.

    ``counted``: both sides give the number of elements of an array.
    """
    matches: list[Match] = []
    for left, right, same in _cut(a, b, _outline if counted else _name_and_size):
        if same:
            matches.append(Match(How.SAME, left, right))
            continue
        shared = {field.name for field in left} & {field.name for field in right}
        if shared and len(left) != len(right) and (together := _together(left, right)):
            matches += together  # a field whose bytes were split among adjacent ones
            continue
        for some, others, named in _cut(left, right, lambda field: field.name):
            matches += [Match(How.SAME, some, others)] if named else _unlike(some, others, counted=counted)
    return _with_moved(matches)


def _outline(field: ShapeField) -> Hashable:
    return field.name, field.size, field.count, field.body is None


def _name_and_size(field: ShapeField) -> Hashable:
    return field.name, field.size, field.body is None


def _cut(a: Fields, b: Fields, key: Key) -> Iterator[tuple[Fields, Fields, bool]]:
    """Split both lists at equal keys: yield pairs of equal fields (True), and the fields between them."""
    keys_a, keys_b = [key(field) for field in a], [key(field) for field in b]
    if len(a) * len(b) <= MAX_PRODUCT:
        blocks: list[tuple[int, int, int]] = [
            (block.a, block.b, block.size)
            for block in SequenceMatcher(None, keys_a, keys_b, autojunk=False).get_matching_blocks()
        ]
    else:
        least = min(len(a), len(b))
        front = next((i for i in range(least) if keys_a[i] != keys_b[i]), least)
        back = next((i for i in range(least - front) if keys_a[-1 - i] != keys_b[-1 - i]), least - front)
        blocks = [(0, 0, front), (len(a) - back, len(b) - back, back)]
    at_a = at_b = 0
    for first_a, first_b, size in blocks:
        if at_a < first_a or at_b < first_b:
            yield a[at_a:first_a], b[at_b:first_b], False
        for i in range(size):
            yield a[first_a + i : first_a + i + 1], b[first_b + i : first_b + i + 1], True
        at_a, at_b = first_a + size, first_b + size
    if at_a < len(a) or at_b < len(b):
        yield a[at_a:], b[at_b:], False


def _unlike(a: Fields, b: Fields, *, counted: bool) -> list[Match]:
    """Match fields without a common name."""
    matched = _renamed(a, b, counted=counted)
    if matched is not None:
        return matched
    always_a, always_b = ([field for field in side if not field.optional] for side in (a, b))
    matched = _renamed(always_a, always_b, counted=counted) or _together(always_a, always_b)
    if matched is None:
        return [*(Match(How.MISSING, (field,), ()) for field in a), *(Match(How.EXTRA, (), (field,)) for field in b)]
    matched += [Match(How.MISSING, (field,), ()) for field in a if field.optional]
    return matched + [Match(How.EXTRA, (), (field,)) for field in b if field.optional]


def _renamed(a: Fields, b: Fields, *, counted: bool) -> list[Match] | None:
    pairs = list(zip(a, b, strict=False))
    if not pairs or len(a) != len(b):
        return None
    if all(one.optional == other.optional and _alike(one, other, counted=counted) for one, other in pairs):
        return [Match(How.RENAMED, (one,), (other,)) for one, other in pairs]
    return None


def _together(a: Fields, b: Fields) -> list[Match] | None:
    """Match fields whose total length is that of the other side's."""
    if not a or not b or not _of_one_version(a, b):
        return None
    if same_bytes(a, b):
        return [Match(How.REGROUPED, a, b)]
    if _as_long(a, b):
        padded = any(all(map(is_padding, side)) for side in (a, b))
        return [Match(How.PADDED if padded else How.RECUT, a, b)]
    return None


def _of_one_version(*sides: Fields) -> bool:
    """Whether each side's fields are always present together."""
    return all(len({field.version for field in side}) == 1 for side in sides)


def _as_long(a: Fields, b: Fields) -> bool:
    """Whether both are always present, and have the same length."""
    totals = [[None if field.optional else field.total for field in side] for side in (a, b)]
    if any(total is None for side in totals for total in side):
        return False
    one, other = (sum(total or 0 for total in side) for side in totals)
    return one == other


def _with_moved(matches: list[Match]) -> list[Match]:
    """Join a field that is missing in one place with the same field extra in another."""
    missing = {match.a[0].name for match in matches if match.how is How.MISSING}
    extra = {match.b[0].name: match for match in reversed(matches) if match.how is How.EXTRA}
    both = missing & extra.keys()
    dropped = {id(extra[name]) for name in both}
    out: list[Match] = []
    for match in matches:
        name = match.a[0].name if match.how is How.MISSING else None
        if name is not None and name in both:
            both.discard(name)  # of several with that name, the first
            out.append(Match(How.MOVED, match.a, extra[name].b))
        elif id(match) not in dropped:
            out.append(match)
    return out


def _alike(one: ShapeField, other: ShapeField, *, counted: bool) -> bool:
    """Whether two fields with different names can be one that was renamed, or padding in its place."""
    if one.body is not None and other.body is not None:
        return one.body.name == other.body.name or same_bytes((one,), (other,))
    totals = one.total, other.total
    if totals[0] is None or totals[1] is None:
        return False
    if is_padding(one) or is_padding(other):
        small, large = min(totals[0], totals[1]), max(totals[0], totals[1])
        return small == large or (not counted and small > 0 and large % small == 0)
    return same_bytes((replace(one, optional=False),), (replace(other, optional=False),))


def is_padding(field: ShapeField) -> bool:
    """Whether a field is padding: VMSTATE_UNUSED writes zeros, and skips the bytes on load."""
    return field.type == "unused_buffer" or (field.type is None and field.name == "unused")


def same_bytes(a: Fields, b: Fields) -> bool:
    """Whether two lists of fields are numbers of the same widths in a row, as far as is known."""
    one, other = _leaves(a), _leaves(b)
    return one is not None and one == other


def _leaves(fields: Fields) -> list[tuple[int, int]] | None:
    """Return (bytes, count) of the numbers in a row, None if that is not known, or too many."""
    row = _Row()
    return row.runs if row.add(fields) else None


class _Row:
    """Numbers in a row, as runs of one width."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []
        self._steps = 0

    def add(self, fields: Fields) -> bool:
        """Append fields; return whether that was possible."""
        self._steps += 1
        for field in fields:
            self._steps += 1
            if self._steps > MAX_LEAVES or field.optional:
                return False
            if field.body is not None:
                if (field.count is None and field.type is not None) or field.body.subsections:
                    return False
                inner = [one for one in field.body.fields if one.version <= field.body.version]
                if not all(self.add(inner) for _ in range(field.count or 1)):
                    return False
            elif field.size is None:
                return False
            else:
                width = field.size if _is_number(field) else 1
                many = field.size // width * (field.count or 1) if width else 0
                if self.runs and self.runs[-1][0] == width:
                    many += self.runs.pop()[1]
                self.runs.append((width, many))
        return True


def _is_number(field: ShapeField) -> bool:
    """Whether a field's elements are numbers; a dump has no types, so every field that could be a number counts."""
    if field.type is None:
        return field.size in (1, 2, 4, 8)
    return number_width(field.type) is not None


def number_width(type_: str) -> tuple[int, bool] | None:
    """Return the size of a number by its type in the vmdesc, and whether it is big-endian; None for other types."""
    if type_ == "bool":
        return 1, True
    if type_ in ("timer", "CPU_Double_U"):
        return MAX_BYTES, True
    match = NUMBER.fullmatch(type_)
    return None if match is None else (int(match[1]) // 8, match[2] is None)
