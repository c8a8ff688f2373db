"""The shapes that are compared, from any source, and the result of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from qmigtool.findings import Severity, ValueDifference

__all__ = [
    "Direction",
    "Effect",
    "Origin",
    "SchemaComparison",
    "SchemaDifference",
    "Shape",
    "ShapeBody",
    "ShapeField",
    "Shapes",
]


class Origin(StrEnum):
    """The source of the shapes."""

    VMDESC = "vmdesc"
    """A stream's own description, or its text: the bodies that were sent, with types and wire sizes."""
    SCHEMA = "schema"
    """What `schema learn` saw in several streams: like a vmdesc, but bodies may have different parts."""
    DUMP = "dump"
    """-dump-vmstate: everything that may be sent, with versions, without types; sizes are those in QEMU's memory."""

    @property
    def typed(self) -> bool:
        """Whether fields have types and the sizes of the wire."""
        return self is not Origin.DUMP


def _bytes(size: int | None) -> str:
    return "some bytes" if size is None else f"{size} byte{'' if size == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class ShapeField:
    """One field.

    ``type`` is as in the vmdesc, None in a dump. ``size`` is the bytes of one element; None if the size on the wire is
    not known. ``count`` is the number of elements of an array, 1 for other fields, None if it is not known. ``version``
    is the first version with the field; ``optional``: the sender decides at run time. ``body`` is what is nested in it,
    ``others`` what else a schema has seen there.
    """

    name: str
    type: str | None
    size: int | None
    count: int | None = 1
    version: int = 0
    optional: bool = False
    body: ShapeBody | None = None
    others: tuple[ShapeBody, ...] = ()

    @property
    def bodies(self) -> tuple[ShapeBody, ...]:
        """All bodies that may be nested in it."""
        return self.others if self.body is None else (self.body, *self.others)

    @property
    def total(self) -> int | None:
        """The bytes of all elements; None if not known, or if they are those of :attr:`body`."""
        return None if self.size is None or self.body is not None else self.size * (self.count or 1)

    @property
    def words(self) -> str:
        """Its type, size and count for messages: ``uint32[4]``, ``4 bytes``."""
        what = self.body.name if self.body is not None else self.type or _bytes(self.size)
        if self.type in ("buffer", "unused_buffer", "bitmap"):
            what = f"{self.type} of {_bytes(self.size)}"
        return what if self.count in (None, 1) else f"{what}[{self.count}]"


@dataclass(frozen=True, slots=True, eq=False)
class ShapeBody:
    """A vmstate description; ``minimum`` is the oldest version it loads, None if it is not known.

    One may be part of many others, so comparing two by their contents could take unlimited time: see
    :class:`qmigtool.schemadiff.unique.Unique`.
    """

    name: str
    version: int
    minimum: int | None
    fields: tuple[ShapeField, ...]
    subsections: tuple[ShapeBody, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A device: ``name`` is the device type of a dump, else the name of the section without the device's path.

    ``version`` and ``minimum`` are the section's; QEMU takes them from the description, so that they are the same.
    """

    name: str
    version: int
    minimum: int | None
    body: ShapeBody


@dataclass(frozen=True, slots=True)
class Shapes:
    """The descriptions of one input."""

    source: str
    origin: Origin
    machine: str | None
    shapes: tuple[Shape, ...]
    counts_arrays: bool = True


class Effect(StrEnum):
    """The effect of a difference on a migration in one direction."""

    BREAKS = "breaks"
    MAY_BREAK = "may break"
    """It breaks if the part is sent: a device that the VM has, a subsection or field that is needed."""
    HARMLESS = "harmless"
    UNKNOWN = "unknown"
    """The descriptions do not suffice to decide."""

    @property
    def rank(self) -> int:
        """Larger is worse."""
        return (Effect.HARMLESS, Effect.UNKNOWN, Effect.MAY_BREAK, Effect.BREAKS).index(self)


class Direction(StrEnum):
    """Which migrations count."""

    FORWARD = "forward"
    """A's streams, loaded by B."""
    BACKWARD = "backward"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaDifference(ValueDifference):
    """One difference between two descriptions of a device.

    ``rule`` is a stable name (``field-missing``); *missing* is what A has and B lacks, *extra* the other way round.
    ``path`` leads to the place inside the device, subsections and nested structs by name; no description has an
    offset. ``forward`` is the effect on a stream of A that B loads, ``backward`` on one of B that A loads. ``words``
    describe the difference, ``a`` and ``b`` are what the two descriptions have.
    """

    forward: Effect
    backward: Effect

    def effect(self, direction: Direction = Direction.BOTH) -> Effect:
        """Return the effect in a direction, the worse one of both."""
        if direction is Direction.BOTH:
            return max(self.forward, self.backward, key=lambda effect: effect.rank)
        return self.forward if direction is Direction.FORWARD else self.backward

    @property
    def severity(self) -> Severity:
        """The severity of the worse direction."""
        return _SEVERITY[self.effect()]

    def as_dict(self) -> dict[str, Any]:
        """Return the parts, as ``--json`` has them."""
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "device": self.device,
            "path": self.path,
            "forward": self.forward.value,
            "backward": self.backward.value,
            "message": self.words,
            "reason": self.reason,
            "a": self.a,
            "b": self.b,
        }


_SEVERITY = {
    Effect.BREAKS: Severity.ERROR,
    Effect.MAY_BREAK: Severity.WARNING,
    Effect.UNKNOWN: Severity.WARNING,
    Effect.HARMLESS: Severity.NOTE,
}


@dataclass(frozen=True, slots=True)
class SchemaComparison:
    """Every difference, device by device, and notes on what could not be compared."""

    differences: tuple[SchemaDifference, ...]
    notes: tuple[str, ...] = field(default=())

    def as_dict(self, one: Shapes, other: Shapes) -> dict[str, Any]:
        """Return what ``schema diff --json`` prints, without its ``schema``; the shapes are the two inputs."""
        return {
            **{
                side: {"source": shapes.source, "origin": shapes.origin.value, "machine": shapes.machine}
                for side, shapes in (("a", one), ("b", other))
            },
            "differences": [difference.as_dict() for difference in self.differences],
            "notes": list(self.notes),
        }

    def status(self, direction: Direction = Direction.BOTH, *, strict: bool = False) -> int:
        """Return the exit status of ``schema diff``: 1 if a direction may break, ``strict`` if anything differs."""
        return int(bool(self.differences) if strict else self.breaks(direction))

    def breaks(self, direction: Direction = Direction.BOTH) -> bool:
        """Whether anything breaks, or may break, a direction."""
        return any(one.effect(direction) in (Effect.BREAKS, Effect.MAY_BREAK) for one in self.differences)

    def counts(self, direction: Direction) -> dict[Effect, int]:
        """Return the number of differences with each effect in a direction."""
        effects = [one.effect(direction) for one in self.differences]
        return {effect: effects.count(effect) for effect in Effect}

    def grouped(self, direction: Direction = Direction.BOTH) -> list[tuple[SchemaDifference, list[str]]]:
        """Return each difference once, with all devices that have it; the worst first."""
        groups: dict[SchemaDifference, list[str]] = {}
        for one in self.differences:
            groups.setdefault(replace(one, device=None), []).append(one.device or "")
        return sorted(groups.items(), key=lambda item: -item[0].effect(direction).rank)
