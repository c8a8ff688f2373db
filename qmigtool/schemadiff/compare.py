"""Would a stream of the one load in the other? Two descriptions of a device compared as QEMU's loader would meet them.

The rules are those of ``migration/vmstate.c`` and ``savevm.c``: a section and a subsection carry their version, a
nested struct does not (each side uses its own); a field belongs to a version if its own is not larger; a subsection is
sent if it is needed, and one that the destination does not know ends the migration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from qmigtool.errors import LimitError
from qmigtool.schemadiff.layout import How, Match, align, is_padding, number_width, same_bytes
from qmigtool.schemadiff.model import Body, Effect, Origin, SchemaDifference, Shape, ShapeField

__all__ = ["Comparer", "Present"]

PADDING = "padding holds the place: it is written as zeros, and what is read there is skipped"
_TOGETHER = {
    How.REGROUPED: ("field-regrouped", Effect.HARMLESS, "the same numbers in the same order are on the wire"),
    How.PADDED: ("field-padded", Effect.HARMLESS, PADDING),
    How.RECUT: ("field-regrouped", Effect.UNKNOWN, "the same length in all, cut into other fields"),
}
MAX_FIELDS = 1 << 20  # compared in all: shapes of a schema may be part of each other
Sent = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Present:
    """What a given stream holds: names of sections and of their descriptions, and those of its subsections."""

    names: frozenset[str]
    subsections: frozenset[str]


class Held(IntEnum):
    """Whether a side sends (or expects) a field of a version."""

    NO = 0
    MAYBE = 1
    YES = 2


class Level(IntEnum):
    """Where a body stands: only sections and subsections carry their version."""

    SECTION = 0
    SUBSECTION = 1
    STRUCT = 2


class Comparer:
    """Compares the bodies of two inputs; ``present`` says which subsections are sent for certain."""

    def __init__(self, a: Origin, b: Origin, *, counts_arrays: bool, present: Present | None) -> None:
        self._a, self._b = a, b
        self._mixed = a.typed != b.typed
        self._counted = counts_arrays and not self._mixed
        self._present = present
        self._work = 0

    def shapes(self, a: Shape, b: Shape) -> list[SchemaDifference]:
        """Return how two descriptions of one device differ."""
        versions_a, versions_b = (a.version, a.minimum), (b.version, b.minimum)
        out = list(self._versions(a.name, "", Level.SECTION, versions_a, versions_b))
        inner_a, inner_b = (a.body.version, a.body.minimum), (b.body.version, b.body.minimum)
        if (inner_a, inner_b) != (versions_a, versions_b):  # never in what QEMU wrote itself
            out += self._versions(a.name, a.body.name, Level.SECTION, inner_a, inner_b)
        if a.body.name != b.body.name:
            # What a stream's section is called is made of this.
            out.append(
                SchemaDifference(
                    "section-renamed",
                    a.name,
                    "",
                    Effect.BREAKS,
                    Effect.BREAKS,
                    f"the section is {a.body.name!r} in A and {b.body.name!r} in B",
                    "a section is found by its name",
                    a.body.name,
                    b.body.name,
                )
            )
            return out[-1:]  # neither is ever given to the other
        return [*out, *self._bodies(a.name, "", a.body, b.body, Level.SECTION)]

    # -- versions ----------------------------------------------------------------------------------------------------

    def _versions(
        self, device: str, path: str, level: Level, a: tuple[int, int | None], b: tuple[int, int | None]
    ) -> Iterator[SchemaDifference]:
        word = ("section", "subsection", "struct")[level]
        (version_a, minimum_a), (version_b, minimum_b) = a, b

        if level is Level.STRUCT:
            if version_a != version_b:
                why = "a nested struct's version is not sent; its fields are what counts"
                harmless = Effect.HARMLESS
                yield _told_apart("struct-version", device, path, harmless, harmless, why, version_a, version_b)
            return
        if version_a != version_b:
            forward, backward = _too_new(version_a, version_b, minimum_b), _too_new(version_b, version_a, minimum_a)
            why = f"a {word} newer than the destination's is refused"
            yield _told_apart(f"{word}-version", device, path, forward, backward, why, version_a, version_b)
        if minimum_a is not None and minimum_b is not None:
            forward, backward = _too_old(version_a, minimum_b), _too_old(version_b, minimum_a)
            if minimum_a != minimum_b or Effect.BREAKS in (forward, backward):
                rule = "minimum-version" if level is Level.SECTION else "subsection-minimum-version"
                why = f"a {word} older than the destination's minimum is refused"
                yield _told_apart(rule, device, path, forward, backward, why, minimum_a, minimum_b)

    # -- bodies ------------------------------------------------------------------------------------------------------

    def _bodies(self, device: str, path: str, a: Body, b: Body, level: Level) -> Iterator[SchemaDifference]:
        self._work += len(a.fields) + len(b.fields) + 1
        if self._work > MAX_FIELDS:
            raise LimitError(f"more than {MAX_FIELDS} fields to compare", section=device)
        fields_a, fields_b = a.fields, b.fields
        if self._mixed:  # of what was sent in one way or another, the usual one
            fields_a, fields_b = _usual(fields_a), _usual(fields_b)
        if fields_a and fields_b:
            if fields_a != fields_b:
                for match in align(fields_a, fields_b, counted=self._counted):
                    yield from self._match(device, path, match, a, b, level)
        elif (fields_a or fields_b) and not self._mixed:
            yield self._empty(device, path, a, b, level)
        if a.subsections != b.subsections:
            yield from self._subsections(device, path, a, b)

    def _empty(self, device: str, path: str, a: Body, b: Body, level: Level) -> SchemaDifference:
        """One side has no fields at all: a device that could not be migrated, or a struct that held nothing."""
        fields = a.fields or b.fields
        body = a if a.fields else b
        forward, backward = (
            max((_lacking(self._held(field, body, sent, level)) for field in fields), key=lambda effect: effect.rank)
            for sent in (a.version, b.version)
        )
        many = f"{len(fields)} field{'s' if len(fields) > 1 else ''}"
        side, other = ("A", "B") if a.fields else ("B", "A")
        return SchemaDifference(
            "field-missing" if a.fields else "field-extra", device, path, forward, backward,
            f"{many} in {side}, none in {other}", "what is sent and not read ends the migration",
            many if a.fields else None, None if a.fields else many,
        )  # fmt: skip

    def _match(
        self, device: str, path: str, match: Match, a: Body, b: Body, level: Level
    ) -> Iterator[SchemaDifference]:
        if match.how is How.SAME or match.how is How.RENAMED:
            yield from self._pair(device, path, match, a, b, level)
            return
        name = "+".join(field.name for field in match.a or match.b)
        place = f"{path}/{name}" if path else name
        if match.how in _TOGETHER:
            rule, effect, reason = _TOGETHER[match.how]
            named_b = "+".join(field.name for field in match.b)
            forward, backward = (
                max(effect, other, key=lambda one: one.rank) for other in self._agree(match, a, b, level)
            )
            yield SchemaDifference(
                rule, device, place, forward, backward, f"{name} in A, {named_b} in B", reason, name, named_b
            )
        elif match.how is How.MOVED:
            yield SchemaDifference(
                "field-order", device, place, Effect.BREAKS, Effect.BREAKS,
                f"{name} stands in another place in B", "fields are told apart by their order alone",
            )  # fmt: skip
        else:
            yield from self._alone(device, place, match, a, b, level)

    def _alone(
        self, device: str, place: str, match: Match, a: Body, b: Body, level: Level
    ) -> Iterator[SchemaDifference]:
        """A field that only one side has."""
        in_a = match.how is How.MISSING
        field, origin = (match.a[0], self._a) if in_a else (match.b[0], self._b)
        if self._mixed and not origin.typed and field.optional:
            return  # what was sent is silent about what was not needed
        body = a if in_a else b
        # Forward, a section of A's version is on the wire: A sends the field, or B expects it.
        forward = _lacking(self._held(field, body, a.version, level))
        backward = _lacking(self._held(field, body, b.version, level))
        reason = "every byte behind it is read as something else"
        if self._mixed and not origin.typed and Effect.BREAKS in (forward, backward):
            # An array whose length is told at run time is not in a vmdesc at all while it is empty.
            softer = Effect.MAY_BREAK if field.body is None else Effect.UNKNOWN  # such arrays are mostly of structs
            forward, backward = (softer if effect is Effect.BREAKS else effect for effect in (forward, backward))
            reason += ", unless it is an array that was empty"
        elif Effect.MAY_BREAK in (forward, backward):
            reason = f"{reason}, if it is sent"
        elif {forward, backward} == {Effect.HARMLESS}:
            reason = "no version that both know has it"
        elif Effect.HARMLESS in (forward, backward):
            reason += "; versions before it do not have it"
        yield SchemaDifference(
            f"field-{match.how}", device, place, forward, backward,
            f"{field.words}, only in {'A' if in_a else 'B'}", reason,
            field.words if in_a else None, None if in_a else field.words,
        )  # fmt: skip

    def _pair(self, device: str, path: str, match: Match, a: Body, b: Body, level: Level) -> Iterator[SchemaDifference]:
        """A field that both have, maybe by another name."""
        one, other = match.a[0], match.b[0]
        place = f"{path}/{one.name}" if path else one.name
        if match.how is How.RENAMED and is_padding(one) != is_padding(other):
            yield SchemaDifference(
                "field-padded", device, place, Effect.HARMLESS, Effect.HARMLESS,
                f"{one.name} in A, {other.name} in B", PADDING, one.name, other.name,
            )  # fmt: skip
        elif match.how is How.RENAMED:
            yield SchemaDifference(
                "field-renamed", device, place, Effect.HARMLESS, Effect.HARMLESS,
                f"called {other.name} in B", "names of fields are not sent; the place and the size are the same",
                one.name, other.name,
            )  # fmt: skip
        yield from self._presence(device, place, one, other, a, b, level)
        if one.body is not None and other.body is not None:
            yield from self._counts(device, place, one, other)
            if one.body is not other.body:
                versions = (one.body.version, one.body.minimum), (other.body.version, other.body.minimum)
                yield from self._versions(device, place, Level.STRUCT, *versions)
                yield from self._bodies(device, place, one.body, other.body, Level.STRUCT)
            return
        found = self._kind(one, other)
        if found is not None:
            rule, effect, reason = found
            effect = self._softened(effect, one, other)
            yield SchemaDifference(
                rule, device, place, effect, effect, f"{one.words} in A, {other.words} in B", reason,
                one.words, other.words,
            )  # fmt: skip
        else:
            yield from self._counts(device, place, one, other)

    def _kind(self, one: ShapeField, other: ShapeField) -> tuple[str, Effect, str] | None:
        """Say how type and size of a field differ: rule, effect, reason; None if they do not, or are not told."""
        if (one.body is None) != (other.body is None):
            if self._mixed or one.type == "old-style" or other.type == "old-style":
                return None  # a custom type, of which only one side tells what is in it
            if same_bytes((one,), (other,)):
                return "field-type", Effect.HARMLESS, "the same numbers in the same order are on the wire"
            return "field-type", Effect.UNKNOWN, "one is a struct; its bytes are not told to be the same"
        if one.type is not None and other.type is not None and one.type != other.type:
            if one.total is None or one.total != other.total:
                return "field-type", Effect.BREAKS, "another length: every byte behind it is read as something else"
            widths = number_width(one.type), number_width(other.type)
            if widths[0] is not None and widths[0] == widths[1] and not _checked(one.type, other.type):
                return "field-type", Effect.HARMLESS, "numbers of one width are the same bytes"
            return "field-type", Effect.UNKNOWN, "the same length, read as something else"
        if one.size is None or other.size is None or one.size == other.size:
            return None
        if self._mixed and not _plain(one.type or other.type or ""):
            return None  # a size in memory against one on the wire
        if not self._counted and (is_padding(one) or is_padding(other)):
            return "field-size", Effect.UNKNOWN, "a dump of a QEMU before 10.0 does not tell the length of an array"
        if one.total == other.total and one.count is not None and other.count is not None:
            return "field-size", Effect.UNKNOWN, "the same length in all, cut into other numbers"
        if self._a.typed or _numbers(one, other):
            if one.type in ("buffer", "bitmap"):
                return "field-size", Effect.MAY_BREAK, "unless another field tells its length"
            return "field-size", Effect.BREAKS, "every byte behind it is read as something else"
        return (
            "field-size",
            Effect.MAY_BREAK,
            "sizes in memory; those on the wire differ too unless its type is a custom one",
        )

    def _counts(self, device: str, place: str, one: ShapeField, other: ShapeField) -> Iterator[SchemaDifference]:
        if one.count == other.count or (self._mixed and None in (one.count, other.count)):
            return
        effect, reason = Effect.BREAKS, "every byte behind it is read as something else"
        if None in (one.count, other.count):
            if not self._counted or one.type is not None or 1 in (one.count, other.count):
                return
            effect, reason = Effect.UNKNOWN, "only one tells how many elements there are"
        elif self._a.typed or self._b.typed:
            effect, reason = Effect.MAY_BREAK, "unless another field tells how many elements there are"
        effect = self._softened(effect, one, other)
        counts = [count if count is not None else "not told" for count in (one.count, other.count)]
        yield SchemaDifference(
            "array-length", device, place, effect, effect, f"elements: {counts[0]} in A, {counts[1]} in B", reason,
            _text(one.count), _text(other.count),
        )  # fmt: skip

    # -- whether a field is there ------------------------------------------------------------------------------------

    def _presence(
        self, device: str, place: str, one: ShapeField, other: ShapeField, a: Body, b: Body, level: Level
    ) -> Iterator[SchemaDifference]:
        if self._mixed or (one.version, one.optional) == (other.version, other.optional):
            return
        forward, backward = self._agree(Match(How.SAME, (one,), (other,)), a, b, level)
        texts = [
            f"from version {field.version}" + (", if a function says so" if field.optional else "")
            for field in (one, other)
        ]
        rule = "field-version" if one.optional == other.optional else "field-condition"
        yield SchemaDifference(
            rule, device, place, forward, backward, f"{texts[0]} in A, {texts[1]} in B",
            "who sends it and who expects it must agree", texts[0], texts[1],
        )  # fmt: skip

    def _agree(self, match: Match, a: Body, b: Body, level: Level) -> tuple[Effect, Effect]:
        """Say whether who sends a field and who expects it agree on its being there: forward, backward."""
        one, other = match.a[0], match.b[0]  # of several, all come and go together
        if self._mixed:
            return Effect.HARMLESS, Effect.HARMLESS
        forward = _both(self._held(one, a, a.version, level), self._held(other, b, a.version, level))
        backward = _both(self._held(other, b, b.version, level), self._held(one, a, b.version, level))
        return forward, backward

    @staticmethod
    def _held(field: ShapeField, body: Body, sent: int, level: Level) -> Held:
        """Whether a body has a field when a version ``sent`` of the section is on the wire."""
        version = body.version if level is Level.STRUCT else sent
        if field.version > version:
            return Held.NO
        return Held.MAYBE if field.optional else Held.YES

    @staticmethod
    def _softened(effect: Effect, one: ShapeField, other: ShapeField) -> Effect:
        """What both may leave away may do no harm."""
        return Effect.MAY_BREAK if effect is Effect.BREAKS and one.optional and other.optional else effect

    # -- subsections -------------------------------------------------------------------------------------------------

    def _subsections(self, device: str, path: str, a: Body, b: Body) -> Iterator[SchemaDifference]:
        known_a = {sub.name: sub for sub in a.subsections}
        known_b = {sub.name: sub for sub in b.subsections}
        for name in dict.fromkeys([*known_a, *known_b]):
            place = f"{path}/{name}" if path else name
            one, other = known_a.get(name), known_b.get(name)
            if one is not None and other is not None:
                versions = (one.version, one.minimum), (other.version, other.minimum)
                yield from self._versions(device, place, Level.SUBSECTION, *versions)
                yield from self._bodies(device, place, one, other, Level.SUBSECTION)
                continue
            owner, lacking = (self._a, self._b) if other is None else (self._b, self._a)
            if lacking is Origin.VMDESC and owner is not Origin.VMDESC:
                continue  # not sent, because it was not needed
            effect, reason = self._unknown_subsection(name, owner, lacking)
            forward, backward = (effect, Effect.HARMLESS) if other is None else (Effect.HARMLESS, effect)
            yield SchemaDifference(
                "subsection-missing" if other is None else "subsection-extra", device, place, forward, backward,
                f"only in {'A' if other is None else 'B'}", reason,
                name if other is None else None, None if other is None else name,
            )  # fmt: skip

    def _unknown_subsection(self, name: str, owner: Origin, lacking: Origin) -> tuple[Effect, str]:
        if lacking.typed:
            return Effect.UNKNOWN, "it was not sent there; whether it could be loaded is not told"
        if owner is Origin.VMDESC or (self._present is not None and name in self._present.subsections):
            return Effect.BREAKS, "it is sent, and a subsection that the destination does not know ends the migration"
        return Effect.MAY_BREAK, "a subsection that the destination does not know ends the migration, if it is sent"


def _usual(fields: tuple[ShapeField, ...]) -> tuple[ShapeField, ...]:
    """Leave away fields that are there at times, where one of the same name always is."""
    always = {field.name for field in fields if not field.optional}
    return tuple(field for field in fields if not (field.optional and field.name in always))


def _told_apart(
    rule: str, device: str, path: str, forward: Effect, backward: Effect, why: str, a: object, b: object
) -> SchemaDifference:
    """A difference in a number: ``rule`` says in which."""
    what = rule.replace("-", " ").removeprefix("section ").removeprefix("subsection ").removeprefix("struct ")
    message = f"{what} {_told(a)} in A, {_told(b)} in B"
    return SchemaDifference(rule, device, path, forward, backward, message, why, _text(a), _text(b))


def _too_new(sent: int, known: int, minimum: int | None) -> Effect:
    if sent > known:
        return Effect.BREAKS
    # An older one is loaded if it is not older than the minimum, which has a rule of its own.
    return Effect.UNKNOWN if minimum is None and sent < known else Effect.HARMLESS


def _too_old(sent: int, minimum: int) -> Effect:
    return Effect.BREAKS if sent < minimum else Effect.HARMLESS


def _lacking(held: Held) -> Effect:
    return (Effect.HARMLESS, Effect.MAY_BREAK, Effect.BREAKS)[held]


def _both(sends: Held, expects: Held) -> Effect:
    if sends == expects:
        return Effect.HARMLESS
    return Effect.MAY_BREAK if Held.MAYBE in (sends, expects) else Effect.BREAKS


def _checked(*types: str) -> bool:
    """Whether one of two types refuses some values and the other does not, or other ones."""
    return any(type_.endswith((" equal", " positive")) for type_ in types)


def _plain(type_: str) -> bool:
    """Whether a field of this type has on the wire the size that it has in QEMU's memory."""
    return type_ in ("buffer", "unused_buffer") or (type_ != "timer" and number_width(type_) is not None)


def _numbers(one: ShapeField, other: ShapeField) -> bool:
    return {one.size, other.size} <= {1, 2, 4, 8} or "unused" in (one.name, other.name)


def _told(value: object) -> str:
    return "not told" if value is None else str(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
