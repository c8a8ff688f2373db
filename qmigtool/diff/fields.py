"""Compare two devices field by field: aligned by name, not by place, so that an inserted field shifts nothing.

A field that only one side has counts if it is not at its default (:mod:`qmigtool.diff.defaults`): QEMU omits a
subsection whose fields are at their defaults. Where names differ between versions of QEMU and the fields around them
agree, fields are paired by position.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from qmigtool.diff.defaults import default_of
from qmigtool.parsers.vmstate import LONG, Field, Kind
from qmigtool.util.budget import current

__all__ = ["HELD", "Pair", "differing"]

MAX_ELEMENTS = 16  # differing elements of an array; more are reported as one range
HELD = 2  # bytes of memory per byte of a long buffer: its value, and the pages of the file that it was read from
PADDING = ("unused_buffer",)  # bytes that QEMU skips on load


class Pair(NamedTuple):
    """A place where two devices differ: the fields there, None where a side has none, and their values.

    ``elements`` is the number of differing elements of an array, if the pair covers the range from the first to the
    last of them; the values are then those of the first 16.
    """

    path: str
    a: Field | None
    b: Field | None
    value_a: Any
    value_b: Any
    elements: int = 1


def differing(
    a: Sequence[Field], b: Sequence[Field], prefix: str = "", skip: Container[int] = frozenset()
) -> Iterator[Pair]:
    """Yield every place where the fields ``a`` and ``b`` of one structure differ, in the order of ``a``.

    ``skip`` holds the ``id`` of each field that is compared elsewhere. Raises
    :class:`~qmigtool.errors.StreamError` where a side contradicts its description.
    """
    ours, theirs = ([field for field in side if id(field) not in skip] for side in (a, b))
    fields = [[field for field in side if field.kind is not Kind.SUBSECTION] for side in (ours, theirs)]
    subsections = [[field for field in side if field.kind is Kind.SUBSECTION] for side in (ours, theirs)]
    for one, other in (*_aligned(*fields), *_by_name(*subsections)):
        yield from _differ(one, other, prefix, skip)


def _by_name(a: Sequence[Field], b: Sequence[Field]) -> Iterator[tuple[Field | None, Field | None]]:
    """Pair subsections, whose order is free; several with the same name are paired in order."""
    later: dict[str, list[Field]] = {}
    for field in b:
        later.setdefault(field.name, []).append(field)
    for field in a:
        same = later.get(field.name)
        yield field, same.pop(0) if same else None
    for same in later.values():
        yield from ((None, field) for field in same)


def _aligned(a: Sequence[Field], b: Sequence[Field]) -> Iterator[tuple[Field | None, Field | None]]:
    """Pair the fields of two structures by name, and the rest between the same neighbours by position."""
    places = {_key(field): i for i, field in reversed(list(enumerate(b)))}
    at = 0
    waiting: list[Field] = []
    for field in a:
        found = places.get(_key(field))
        if found is None or found < at:
            waiting.append(field)
            continue
        yield from _renamed(waiting, b[at:found])
        waiting = []
        yield field, b[found]
        at = found + 1
    yield from _renamed(waiting, b[at:])


def _renamed(a: Sequence[Field], b: Sequence[Field]) -> Iterator[tuple[Field | None, Field | None]]:
    alike = len(a) == len(b) and all(
        (one.kind, one.length) == (other.kind, other.length) for one, other in zip(a, b, strict=True)
    )
    if alike:
        yield from zip(a, b, strict=True)
        return
    yield from ((field, None) for field in a)
    yield from ((None, field) for field in b)


def _key(field: Field) -> tuple[str, str | None]:
    # QEMU appends [0], [1] to names that occur twice; the nested description distinguishes them.
    return field.name, field.struct_name


def _differ(a: Field | None, b: Field | None, prefix: str, skip: Container[int]) -> Iterator[Pair]:
    if a is None or b is None:
        one = a if a is not None else b
        if one is not None and one.type not in PADDING:
            yield from _alone(one, prefix, skip, first=b is None)
        return
    path = prefix + (a.name if a.name == b.name else f"{a.name}|{b.name}")
    if (a.kind, a.type) == (b.kind, b.type) and a.kind is Kind.LEAF and a.same_raw(b):
        return
    if a.type in PADDING and b.type in PADDING:
        return
    if a.kind is Kind.LEAF or b.kind is Kind.LEAF:
        if a.kind is b.kind:
            yield from _unequal(a, b, path)
        elif not a.same_raw(b):
            _keep(a)
            _keep(b)
            yield Pair(path, a, b, a.raw, b.raw)
        return
    if a.kind is Kind.ARRAY and b.kind is Kind.ARRAY:
        yield from _arrays(a, b, path)
        return
    yield from differing(a.children, b.children, path + "/", skip)


def _unequal(a: Field, b: Field, path: str) -> Iterator[Pair]:
    """Give a pair for two leaves if their values differ."""
    one, other = _value(a), _value(b)
    if not _equal(one, other):
        yield Pair(path, a, b, one, other)


def _value(leaf: Field) -> Any:
    """Return the value of a leaf; that of a long buffer is kept with the difference, and charged."""
    _keep(leaf)
    return leaf.value


def _keep(field: Field) -> None:
    if field.length > LONG:
        current().charge("memory", HELD * field.length, field.offset, field.name)


def _equal(a: Any, b: Any) -> bool:
    return type(a) is type(b) and a == b if isinstance(a, bytes | str) or isinstance(b, bytes | str) else bool(a == b)


def _arrays(a: Field, b: Field, path: str) -> Iterator[Pair]:
    if (a.type, a.struct_name) == (b.type, b.struct_name) and a.same_raw(b):
        return
    ours, theirs = a.value, b.value
    if ours is None or theirs is None:
        yield from _structs(a, b, path)
        return
    # An array can have millions of elements: only a limited number of places is kept.
    where: list[int] = []
    count, last = 0, 0
    for i, (x, y) in enumerate(zip_longest(ours, theirs)):
        if not _equal(x, y):
            count, last = count + 1, i
            if len(where) < MAX_ELEMENTS:
                where.append(i)
    if count > len(where):
        shown = slice(where[0], min(last + 1, where[0] + MAX_ELEMENTS))
        yield Pair(f"{path}[{where[0]}:{last + 1}]", a, b, ours[shown], theirs[shown], count)
        return
    elements_a, elements_b = (
        {i: child for i, child in enumerate(field.iter_children()) if i in where} for field in (a, b)
    )
    for i in where:
        one, other = elements_a.get(i), elements_b.get(i)
        yield Pair(f"{path}[{i}]", one, other, one and ours[i], other and theirs[i])


def _structs(a: Field, b: Field, path: str) -> Iterator[Pair]:
    """Compare arrays of structs: the first differing elements part by part, the number of further ones in one line."""
    shown = more = last = 0
    for i, (one, other) in enumerate(zip_longest(a.iter_children(), b.iter_children())):
        if shown < MAX_ELEMENTS:
            found = list(_elements(one, other, f"{path}[{i}]"))
            shown += bool(found)
            yield from found
        elif one is None or other is None or not one.same_raw(other):
            more, last = more + 1, i
    if more:
        yield Pair(f"{path}[...{last}]", a, b, None, None, more)


def _elements(a: Field | None, b: Field | None, path: str) -> Iterator[Pair]:
    if a is None or b is None:
        one = a if a is not None else b
        if one is not None:
            yield from _leaves(one, path, first=b is None)
    elif a.kind is Kind.LEAF and b.kind is Kind.LEAF:
        yield from _unequal(a, b, path)
    elif not a.same_raw(b):
        yield from differing(a.children, b.children, path + "/")


def _alone(field: Field, prefix: str, skip: Container[int], *, first: bool) -> Iterator[Pair]:
    """Yield the leaves of a field that one side does not have, unless they are at their defaults."""
    yield from _leaves(field, prefix + field.name, skip, first=first)


def _leaves(field: Field, path: str, skip: Container[int] = frozenset(), *, first: bool) -> Iterator[Pair]:
    if field.type in PADDING or id(field) in skip:
        return
    if field.kind is Kind.LEAF:
        value = _value(field)
        if not _equal(value, default_of(path, value)):
            yield Pair(path, field, None, value, None) if first else Pair(path, None, field, None, value)
        return
    values = field.value if field.kind is Kind.ARRAY else None
    if values is not None and not any(v if not isinstance(v, bytes) else v.strip(b"\0") for v in values):
        return
    for i, child in enumerate(field.children):
        inner = f"{path}[{i}]" if field.kind is Kind.ARRAY else f"{path}/{child.name}"
        yield from _leaves(child, inner, skip, first=first)
