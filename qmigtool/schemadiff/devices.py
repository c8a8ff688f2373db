"""Match the devices of two inputs, and compare all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qmigtool.schemadiff.compare import Comparer, Present, weight
from qmigtool.schemadiff.fields import Told
from qmigtool.schemadiff.model import (
    Effect,
    Origin,
    SchemaComparison,
    SchemaDifference,
    Shape,
    Shapes,
)
from qmigtool.schemadiff.unique import Unique
from qmigtool.tables import Column, Table

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream

__all__ = ["compare_schemas", "present_in", "schema_differences"]


def present_in(*streams: Stream) -> Present:
    """Return the contents of streams, to compare only those."""
    names: set[str] = set()
    subsections: set[str] = set()
    for stream in streams:
        stream.prove()
        for device in stream.devices:
            names.add(device.name.rsplit("/", 1)[-1])
            if device.description is not None:
                names.add(device.description.name)
                waiting = [device.description]
                while waiting:
                    description = waiting.pop()
                    subsections.update(sub.name for sub in description.subsections)
                    waiting += description.subsections
                    inner = [part for f in description.fields for part in (f.struct, *f.inline) if part is not None]
                    waiting += inner
    return Present(frozenset(names), frozenset(subsections))


def compare_schemas(a: Shapes, b: Shapes, present: Present | None = None) -> SchemaComparison:
    """Compare the descriptions of two inputs; with ``present``, only of devices that are in a given stream.

    Two dumps are matched by device type, anything else by the name of the section (or, where a dump is on one side, of
    its description): of several shapes with that name, each of A's is compared with the most similar one of B.
    """
    notes = list(_notes(a, b))
    if present is not None:
        kept = {shape.name for shapes in (a, b) for shape in shapes.shapes if _is_present(shape, present)}
        a, b = (_only(shapes, kept) for shapes in (a, b))
    unique = Unique()
    a, b = unique.shapes(a), unique.shapes(b)
    mixed = a.origin.typed != b.origin.typed
    comparer = Comparer(Told(a.origin, b.origin, a.counts_arrays and b.counts_arrays), present)
    found: list[SchemaDifference] = []
    names_a, names_b = _by_name(a, by_description=mixed), _by_name(b, by_description=mixed)
    for name in dict.fromkeys([*names_a, *names_b]):
        ours, theirs = names_a.get(name, []), names_b.get(name, [])
        if ours and theirs:
            for one in ours:
                found += min((comparer.shapes(one, other) for other in theirs), key=weight)
        elif (b if ours else a).origin is Origin.VMDESC and (a if ours else b).origin is not Origin.VMDESC:
            continue  # a device that the stream does not have
        else:
            found += _alone(a, b, name, bool(ours), present)
    if mixed and any(difference.rule in _ALONE for difference in found):
        notes.append(
            "a dump lists device types only: cpu, timer, PCIBUS and others that are registered without one are unknown"
        )
    return SchemaComparison(tuple(dict.fromkeys(found)), tuple(notes))


def _notes(a: Shapes, b: Shapes) -> Iterator[str]:
    if a.machine is not None and b.machine is not None and a.machine != b.machine:
        yield f"machine types differ: {a.machine} and {b.machine}"
    origins = {a.origin, b.origin}
    if origins == {Origin.DUMP}:
        if a.counts_arrays != b.counts_arrays:
            yield f"{(b if a.counts_arrays else a).source} is from a QEMU before 10.0: array lengths are not compared"
    elif Origin.DUMP in origins:
        yield "one side is a dump, the other was sent: only one has types and optional parts, which are not compared"
    else:
        yield "only bodies that were sent are compared: parts that were not needed are unknown"


def _is_present(shape: Shape, present: Present) -> bool:
    return shape.name in present.names or shape.body.name in present.names


def _only(shapes: Shapes, names: set[str]) -> Shapes:
    return replace(shapes, shapes=tuple(shape for shape in shapes.shapes if shape.name in names))


def _by_name(shapes: Shapes, *, by_description: bool) -> dict[str, list[Shape]]:
    """Return the different shapes of each name."""
    out: defaultdict[str, dict[Any, Shape]] = defaultdict(dict)
    for shape in shapes.shapes:
        name = shape.body.name if by_description and shapes.origin is Origin.DUMP else shape.name
        same = (shape.version, shape.minimum, shape.body)
        out[name].setdefault(same, shape)
    return {name: list(found.values()) for name, found in out.items()}


_ALONE = ("device-missing", "device-extra")  # only A has it, only B has it


def _alone(a: Shapes, b: Shapes, name: str, in_a: bool, present: Present | None) -> Iterator[SchemaDifference]:
    """A device that only one side has."""
    owner, other = (a, b) if in_a else (b, a)
    mine = next(shape for shape in owner.shapes if name in (shape.name, shape.body.name))
    alike = sorted({shape.name for shape in other.shapes if shape.body.name == mine.body.name})
    effect, reason = Effect.MAY_BREAK, "a section that the destination does not know ends the migration"
    if other.origin is Origin.SCHEMA:
        effect, reason = Effect.UNKNOWN, "a schema has the devices that were seen, not all that exist"
    elif owner.origin.typed and not other.origin.typed:
        effect, reason = Effect.UNKNOWN, "a dump lists device types only"
    elif owner.origin is Origin.VMDESC:
        effect = Effect.BREAKS
    elif alike:
        reason += f"; {', '.join(map(repr, alike[:3]))} also have sections of that name"
    elif present is not None:
        reason += ", and the stream has one; but a dump does not list what is registered without a device type"
    else:
        reason += ", if the guest has one"
    forward, backward = (effect, Effect.HARMLESS) if in_a else (Effect.HARMLESS, effect)
    yield SchemaDifference(
        rule=_ALONE[not in_a],
        device=name,
        forward=forward,
        backward=backward,
        words=f"only in {'A' if in_a else 'B'}",
        reason=reason,
    )


def _schema_differences(comparison: SchemaComparison) -> Iterator[tuple[Any, ...]]:
    """The differences between two descriptions of device state."""
    for one in comparison.differences:
        yield (
            one.rule, one.severity.value, one.device, one.path, one.forward.value, one.backward.value,
            one.words, one.reason, one.a, one.b,
        )  # fmt: skip


schema_differences = Table(
    "schema_differences",
    (
        Column("rule", "category", "kind of difference"),
        Column("severity", "category", "error, warning, note: of the worse direction"),
        Column("device", "category", "device type, or section name"),
        Column("path", "string", "place inside the device"),
        Column("forward", "category", "A to B: breaks, may break, harmless, unknown"),
        Column("backward", "category", "B to A"),
        Column("message", "string", "what differs"),
        Column("reason", "string", "why it matters, or not"),
        Column("a", "string", "description in A; missing if it has none"),
        Column("b", "string", "description in B"),
    ),
    _schema_differences,
    "The differences of a :class:`SchemaComparison`.",
)
