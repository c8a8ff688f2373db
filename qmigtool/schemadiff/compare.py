"""Compare two descriptions of a device by the rules of QEMU's loader: would a stream of one load in the other?

The rules are those of ``migration/vmstate.c`` and ``savevm.c``: a section and a subsection carry their version, a
nested struct does not (each side uses its own); a field belongs to a version if its own is not larger; a subsection is
sent if it is needed, and one that the destination does not know ends the migration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qmigtool.errors import LimitError
from qmigtool.schemadiff.fields import Level, Place, Told, judge
from qmigtool.schemadiff.layout import align
from qmigtool.schemadiff.model import Effect, Origin, SchemaDifference, Shape, ShapeBody, ShapeField

__all__ = ["Comparer", "Present", "weight"]

MAX_FIELDS = 1 << 18  # compared in all: shapes of a schema may be part of each other

Versions = tuple[int, int | None]
"""Version and minimum version, None where it is not known."""


@dataclass(frozen=True, slots=True)
class Present:
    """The contents of a given stream: names of sections and of their descriptions, and of its subsections."""

    names: frozenset[str]
    subsections: frozenset[str]


class Comparer:
    """Compares the bodies of two inputs, made by one :class:`~qmigtool.schemadiff.unique.Unique`.

    ``present``: the subsections that are certainly sent.
    """

    def __init__(self, told: Told, present: Present | None) -> None:
        self._told = told
        self._present = present
        self._work = 0

    def shapes(self, a: Shape, b: Shape) -> list[SchemaDifference]:
        """Return how two descriptions of one device differ."""
        if a.body.name != b.body.name:
            # The name of a stream's section contains it, so the loader never gives one to the other.
            message = f"the section is {a.body.name!r} in A and {b.body.name!r} in B"
            reason = "a section is found by its name"
            breaks = Effect.BREAKS, Effect.BREAKS
            names = a.body.name, b.body.name
            return [
                SchemaDifference(
                    rule="section-renamed",
                    device=a.name,
                    forward=breaks[0],
                    backward=breaks[1],
                    words=message,
                    reason=reason,
                    a=names[0],
                    b=names[1],
                )
            ]
        versions_a, versions_b = (a.version, a.minimum), (b.version, b.minimum)
        out = list(_versions(a.name, "", Level.SECTION, versions_a, versions_b))
        inner_a, inner_b = _ids(a.body), _ids(b.body)
        if (inner_a, inner_b) != (versions_a, versions_b):  # never in descriptions that QEMU wrote itself
            out += _versions(a.name, a.body.name, Level.SECTION, inner_a, inner_b)
        return [*out, *self._bodies(Place(a.name, "", a.body, b.body, Level.SECTION))]

    def _bodies(self, place: Place) -> Iterator[SchemaDifference]:
        a, b = place.a, place.b
        if a is b:
            return
        self._work += len(a.fields) + len(b.fields) + 1
        if self._work > MAX_FIELDS:
            raise LimitError(f"more than {MAX_FIELDS} fields to compare", section=place.device)
        fields_a, fields_b = a.fields, b.fields
        if self._told.mixed:  # of the shapes that were sent, the usual one
            fields_a, fields_b = _usual(fields_a), _usual(fields_b)
        if fields_a and fields_b:
            for match in align(fields_a, fields_b, counted=self._told.counted):
                yield from judge(self._told, place, match)
                if len(match.a) == len(match.b) == 1:
                    yield from self._structs(place, match.a[0], match.b[0])
        elif (fields_a or fields_b) and not self._told.mixed:
            yield _empty(place)
        yield from self._subsections(place)

    def _structs(self, place: Place, one: ShapeField, other: ShapeField) -> list[SchemaDifference]:
        """Compare what is nested in a field; of several shapes in a schema, the most similar ones."""
        found: list[list[SchemaDifference]] = []
        path = place.to(one.name)
        for a in one.bodies:
            for b in other.bodies:
                if a is b:
                    return []
                versions = _versions(place.device, path, Level.STRUCT, _ids(a), _ids(b))
                found.append([*versions, *self._bodies(Place(place.device, path, a, b, Level.STRUCT))])
        return min(found, key=weight, default=[])

    def _subsections(self, place: Place) -> Iterator[SchemaDifference]:
        known_a = {sub.name: sub for sub in place.a.subsections}
        known_b = {sub.name: sub for sub in place.b.subsections}
        for name in dict.fromkeys([*known_a, *known_b]):
            one, other = known_a.get(name), known_b.get(name)
            path = place.to(name)
            if one is not None and other is not None:
                yield from _versions(place.device, path, Level.SUBSECTION, _ids(one), _ids(other))
                yield from self._bodies(Place(place.device, path, one, other, Level.SUBSECTION))
                continue
            owner, lacking = (self._told.a, self._told.b) if other is None else (self._told.b, self._told.a)
            if lacking is Origin.VMDESC and owner is not Origin.VMDESC:
                continue  # not sent, because it was not needed
            effect, reason = self._unknown_subsection(name, owner, lacking)
            if other is None:
                rule, effects, message = "subsection-missing", (effect, Effect.HARMLESS), "only in A"
            else:
                rule, effects, message = "subsection-extra", (Effect.HARMLESS, effect), "only in B"
            yield place.difference(rule, name, effects, message, reason, None, None)

    def _unknown_subsection(self, name: str, owner: Origin, lacking: Origin) -> tuple[Effect, str]:
        if lacking.typed:
            return Effect.UNKNOWN, "it was not sent there; whether it could be loaded is not known"
        reason = "a subsection that the destination does not know ends the migration"
        if owner is Origin.VMDESC or (self._present is not None and name in self._present.subsections):
            return Effect.BREAKS, f"{reason}, and it is sent"
        return Effect.MAY_BREAK, f"{reason}, if it is sent"


def weight(differences: Iterable[SchemaDifference]) -> tuple[int, ...]:
    """How much two bodies differ: the worst effects count first."""
    counts = [0] * len(Effect)
    for difference in differences:
        for effect in (difference.forward, difference.backward):
            counts[-1 - effect.rank] += 1
    return tuple(counts)


def _ids(body: ShapeBody) -> Versions:
    return body.version, body.minimum


def _usual(fields: tuple[ShapeField, ...]) -> tuple[ShapeField, ...]:
    """Drop fields that are sometimes present, if one of the same name always is."""
    always = {field.name for field in fields if not field.optional}
    return tuple(field for field in fields if not (field.optional and field.name in always))


def _empty(place: Place) -> SchemaDifference:
    """One side has no fields at all: a device that could not be migrated, or a struct that held nothing."""
    in_a = bool(place.a.fields)
    fields = place.a.fields or place.b.fields
    every = [place.agree(field, None) if in_a else place.agree(None, field) for field in fields]
    forward, backward = (max((effects[way] for effects in every), key=lambda effect: effect.rank) for way in (0, 1))
    many = f"{len(fields)} field{'s' if len(fields) > 1 else ''}"
    rule, side, other = ("field-missing", "A", "B") if in_a else ("field-extra", "B", "A")
    message, reason = f"{many} in {side}, none in {other}", "the loader must read exactly what is sent"
    words = (many, None) if in_a else (None, many)
    return SchemaDifference(
        rule=rule,
        device=place.device,
        path=place.path,
        forward=forward,
        backward=backward,
        words=message,
        reason=reason,
        a=words[0],
        b=words[1],
    )


def _versions(device: str, path: str, level: Level, a: Versions, b: Versions) -> Iterator[SchemaDifference]:
    """Yield the differences of the versions of two bodies; the version of a nested struct is not sent."""
    (version_a, minimum_a), (version_b, minimum_b) = a, b
    word = level.name.lower()
    harmless = Effect.HARMLESS
    if level is Level.STRUCT:
        if version_a != version_b:
            why = "a nested struct's version is not sent; only its fields matter"
            yield _number("struct-version", _VERSION, device, path, (harmless, harmless), why, version_a, version_b)
        return
    if version_a != version_b:
        effects = _too_new(version_a, version_b, minimum_b), _too_new(version_b, version_a, minimum_a)
        why = f"a {word} newer than the destination's is refused"
        yield _number(f"{word}-version", _VERSION, device, path, effects, why, version_a, version_b)
    effects = _too_old(version_a, minimum_b), _too_old(version_b, minimum_a)
    told = minimum_a is not None and minimum_b is not None
    if (told and minimum_a != minimum_b) or Effect.BREAKS in effects:
        rule = "minimum-version" if level is Level.SECTION else "subsection-minimum-version"
        why = f"a {word} older than the destination's minimum is refused"
        yield _number(rule, _MINIMUM, device, path, effects, why, minimum_a, minimum_b)


_VERSION, _MINIMUM = "version", "minimum version"


def _number(
    rule: str, what: str, device: str, path: str, effects: tuple[Effect, Effect], why: str, a: int | None, b: int | None
) -> SchemaDifference:
    """A difference of a version; ``what`` names it."""
    texts = [None if value is None else str(value) for value in (a, b)]
    message = f"{what} {texts[0] or 'not known'} in A, {texts[1] or 'not known'} in B"
    return SchemaDifference(
        rule=rule,
        device=device,
        path=path,
        forward=effects[0],
        backward=effects[1],
        words=message,
        reason=why,
        a=texts[0],
        b=texts[1],
    )


def _too_new(sent: int, known: int, minimum: int | None) -> Effect:
    if sent > known:
        return Effect.BREAKS
    # An older one is loaded if it is not older than the minimum, which has a rule of its own.
    return Effect.UNKNOWN if minimum is None and sent < known else Effect.HARMLESS


def _too_old(sent: int, minimum: int | None) -> Effect:
    return Effect.BREAKS if minimum is not None and sent < minimum else Effect.HARMLESS
