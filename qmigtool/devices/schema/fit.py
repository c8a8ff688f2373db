"""Fitting a schema to one body, which gives its description.

A body has no tags, but it has a length, and every subsection starts with its name. So each known shape of a section is
tried on the bytes: fields have their sizes, structs any of their known shapes, and the fields (of the section and of
every struct) are followed by named subsections. The shape that ends where the body ends is the description; if several
do, the one of the most similar machine type is used, and the caller learns that it was a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import groupby, islice
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.devices.machinetypes import machine_type
from qmigtool.parsers.record import encode_name
from qmigtool.parsers.records import SectionType
from qmigtool.parsers.vmdesc import MAX_EMPTY, Description, FieldDescription
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from qmigtool.devices.schema.model import Node, NodeField, Schema, Variant

__all__ = ["Fit", "fit"]

MAX_STATES = 64  # alternatives followed at once; real bodies have a handful
MAX_STEPS = 100_000  # shapes, fields and ways tried for one body; the largest real one (AHCI, six ports) takes 15,000


class Fit(NamedTuple):
    """A description that fits, and whether others fit too."""

    description: Description
    ambiguous: bool


def fit(
    schema: Schema,
    idstr: str,
    version: int,
    data: bytes | memoryview,
    machine: str | None = None,
    *,
    ends: Callable[[int], bool] | None = None,
) -> Fit | None:
    """Return the description of a body by ``schema``, or None if none fits.

    ``data`` is the body; or, where its end is not known, everything from its start on, and ``ends(length)`` returns
    whether a body may end there. Raises :class:`~qmigtool.errors.BudgetError` after too many attempts.
    """
    budget = current()
    budget.charge("steps", 0)
    fitting = _Fitting(data)
    try:
        return _fit(fitting, schema, idstr, version, machine, ends or (lambda length: length == len(data)))
    finally:
        budget.charge("steps", fitting.steps)


def _fit(
    fitting: _Fitting, schema: Schema, idstr: str, version: int, machine: str | None, may_end: Callable[[int], bool]
) -> Fit | None:
    found: list[Description] = []
    for variant in sorted(schema.variants(idstr, version), key=lambda v: _rank(v, machine)):
        for description, end in fitting.body(variant.node, 0):
            # Empty shapes inside each other would give an endless description for a body of any length.
            if may_end(end) and description.empty <= MAX_EMPTY and description not in found:
                found.append(description)
                if len(found) > 1:  # one more is enough to know that it was a choice
                    return Fit(found[0], True)
    return Fit(found[0], False) if found else None


def _rank(variant: Variant, machine: str | None) -> int:
    """Order variants: seen on this machine type, then on one of its family (pc-q35), then the rest."""
    if machine is None:
        return 0
    if machine in variant.machines:
        return 0
    family = _family(machine)
    return 1 if any(_family(known) == family for known in variant.machines) else 2


def _family(machine: str) -> str:
    """Return the family of a machine type; one without a version is its own."""
    found = machine_type(machine)
    return machine if found is None else found.family


class _Fitting:
    """Tries shapes on one body; gives up if a schema has too many alternatives."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = data
        self._steps = MAX_STEPS
        self._known: dict[tuple[int, int], list[tuple[Description, int]]] = {}

    @property
    def steps(self) -> int:
        """The number of steps so far."""
        return MAX_STEPS - self._steps

    def body(self, node: Node, pos: int) -> Iterator[tuple[Description, int]]:
        """Yield (description, end) of every way to read a body of this shape at ``pos``."""
        self._steps -= 1
        if self._steps < 0:
            return
        states: list[tuple[int, tuple[FieldDescription, ...]]] = [(pos, ())]
        parts = _parts(node)
        for part in parts:
            if isinstance(part, _Plain):
                self._steps -= 1
                size = len(self._data) - part.size
                states = [(at + part.size, (*done, *part.fields)) for at, done in states if at <= size]
            else:
                more = ((end, (*done, *made)) for at, done in states for made, end in self._field(part, at))
                states = list(islice(more, MAX_STATES))
        plain = all(isinstance(part, _Plain) for part in parts)
        for at, fields in states:
            for subsections, end in self._subsections(node, at):
                self._steps -= 1
                if self._steps < 0:
                    return
                if plain and not subsections:
                    yield _plain_description(node), end
                else:
                    yield Description.of(node.name, node.version, fields, subsections), end

    def _bodies(self, node: Node, pos: int) -> list[tuple[Description, int]]:
        """Return the first ways to read a struct or subsection, cached because many outer alternatives need them."""
        key = id(node), pos
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = list(islice(self.body(node, pos), MAX_STATES))
        return found

    def _field(self, field: NodeField, pos: int) -> Iterator[tuple[tuple[FieldDescription, ...], int]]:
        count = 1 if field.array_len is None else field.array_len
        self._steps -= 1
        # Each state remembers its elements as a chain back to the first: a tuple each would have quadratic cost.
        states: list[tuple[int, _Chain | None]] = [(pos, None)]
        for _ in range(count):
            more = (
                (end, _Chain(done, made))
                for at, done in states
                for node in field.structs
                for made, end in self._bodies(node, at)
            )
            states = list(islice(more, MAX_STATES))
            self._steps -= len(states)
            if not states or self._steps < 0:
                return
        for end, chain in states:
            yield tuple(_elements(field, _unchain(chain))), end

    def _subsections(self, node: Node, pos: int) -> list[tuple[tuple[Description, ...], int]]:
        """Return the ways to read what follows the fields as subsections of this description, none of them twice."""
        own = encode_name(node.name)
        found: list[tuple[tuple[Description, ...], int]] = []
        states: list[tuple[tuple[Description, ...], int]] = [((), pos)]
        while states:
            longer: list[tuple[tuple[Description, ...], int]] = []
            for made, at in states:
                name = _subsection_at(self._data, at)
                if name is None or not name.startswith(own) or len(name) <= len(own):
                    found.append((made, at))
                    continue
                if any(encode_name(one.name) == name for one in made):
                    continue
                version = int.from_bytes(self._data[at + 2 + len(name) : at + 6 + len(name)], "big")
                for candidate in node.subsections:
                    if encode_name(candidate.name) == name and candidate.version == version:
                        more = self._bodies(candidate, at + 6 + len(name))
                        longer += [((*made, one), end) for one, end in more]
            states = longer[:MAX_STATES]
        return found[:MAX_STATES]


class _Plain(NamedTuple):
    """Consecutive fields that are not structs: their size is constant."""

    size: int
    fields: tuple[FieldDescription, ...]


@lru_cache(maxsize=1 << 14)
def _parts(node: Node) -> tuple[_Plain | NodeField, ...]:
    """Return the fields of a shape, with consecutive fields that are not structs joined."""
    parts: list[_Plain | NodeField] = []
    for structs, run in groupby(node.fields, key=lambda field: bool(field.structs)):
        fields = list(run)
        if structs:
            parts += fields
        else:
            made = tuple(FieldDescription(f.name, f.type, f.size, f.array_len, None, f.inline) for f in fields)
            parts.append(_Plain(sum(one.total for one in made), made))
    return tuple(parts)


@lru_cache(maxsize=1 << 14)
def _plain_description(node: Node) -> Description:
    """Return the description of a shape without structs, which no subsection follows."""
    fields = tuple(field for part in _parts(node) if isinstance(part, _Plain) for field in part.fields)
    return Description.of(node.name, node.version, fields, ())


class _Chain(NamedTuple):
    """Elements of an array, the last first."""

    before: _Chain | None
    last: Description


def _unchain(chain: _Chain | None) -> tuple[Description, ...]:
    out: list[Description] = []
    while chain is not None:
        out.append(chain.last)
        chain = chain.before
    return tuple(reversed(out))


def _elements(field: NodeField, elements: tuple[Description, ...]) -> Iterator[FieldDescription]:
    """Describe the elements as QEMU does: as one array if they are alike, otherwise one by one."""
    if field.array_len is not None and len(set(map(id, elements))) <= 1 and elements:
        yield FieldDescription(field.name, field.type, elements[0].size, field.array_len, elements[0], field.inline)
        return
    if field.array_len is not None and elements and all(one == elements[0] for one in elements):
        yield FieldDescription(field.name, field.type, elements[0].size, field.array_len, elements[0], field.inline)
        return
    for one in elements:
        yield FieldDescription(field.name, field.type, one.size, None, one, field.inline)


def _subsection_at(data: bytes | memoryview, pos: int) -> bytes | None:
    """Return the name of the subsection that starts at ``pos``, or None."""
    if pos + 2 > len(data) or data[pos] != SectionType.QEMU_VM_SUBSECTION:
        return None
    length = data[pos + 1]
    if pos + 6 + length > len(data):
        return None
    return bytes(data[pos + 2 : pos + 2 + length])
