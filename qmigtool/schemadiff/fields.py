"""The effect of different descriptions of one field, or of several that belong together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from qmigtool.devices.schema.conditions import TOLD_BY, TOLD_SINCE
from qmigtool.schemadiff.layout import How, Match, is_padding, number_width, same_bytes
from qmigtool.schemadiff.model import Effect, Origin, SchemaDifference, ShapeBody, ShapeField

__all__ = ["Level", "Place", "Told", "judge"]

SHIFTED = "every byte after it is misread"
PADDING = "padding takes its place: it is written as zeros, and skipped when read"
AGREE = "sender and loader must agree on it"

Effects = tuple[Effect, Effect]
"""Forward and backward."""


class Held(IntEnum):
    """Whether a side sends (or expects) a field of a version."""

    NO = 0
    MAYBE = 1
    YES = 2


class Level(IntEnum):
    """Where a body is: only sections and subsections carry their version."""

    SECTION = 0
    SUBSECTION = 1
    STRUCT = 2


@dataclass(frozen=True, slots=True)
class Told:
    """The origin of the two descriptions; ``counts_arrays``: no dump lacks the lengths of arrays."""

    a: Origin
    b: Origin
    counts_arrays: bool

    @property
    def mixed(self) -> bool:
        """Whether one side was sent and the other is a dump: only one has types, and only one marks optional parts."""
        return self.a.typed != self.b.typed

    @property
    def counted(self) -> bool:
        """Whether both give the length of an array in the same way."""
        return self.counts_arrays and not self.mixed


@dataclass(frozen=True, slots=True)
class Place:
    """Two bodies that are compared: of ``device``, reached by ``path``."""

    device: str
    path: str
    a: ShapeBody
    b: ShapeBody
    level: Level

    def to(self, name: str) -> str:
        """Return the path of something inside."""
        return f"{self.path}/{name}" if self.path else name

    def difference(
        self, rule: str, name: str, effects: Effects, message: str, reason: str, a: str | None, b: str | None
    ) -> SchemaDifference:
        """Make a difference of something inside."""
        return SchemaDifference(
            rule=rule,
            device=self.device,
            path=self.to(name),
            forward=effects[0],
            backward=effects[1],
            words=message,
            reason=reason,
            a=a,
            b=b,
        )

    def held(self, one: ShapeField | None, other: ShapeField | None) -> tuple[tuple[Held, Held], tuple[Held, Held]]:
        """Return whether a field of A is on the wire, and whether B's counterpart is, in either direction.

        The sender's version decides what is on the wire, also for the loader; but a nested struct's version is not
        sent, and each side uses its own.
        """
        forward = self._held(one, self.a, self.a.version), self._held(other, self.b, self.a.version)
        backward = self._held(one, self.a, self.b.version), self._held(other, self.b, self.b.version)
        return forward, backward

    def _held(self, field: ShapeField | None, body: ShapeBody, sent: int) -> Held:
        if field is None or field.version > (body.version if self.level is Level.STRUCT else sent):
            return Held.NO
        return Held.MAYBE if field.optional else Held.YES

    def agree(self, one: ShapeField | None, other: ShapeField | None) -> Effects:
        """Return the effect of a field that one side may have on the wire and the other does not."""
        forward, backward = (_disagreement(*held) for held in self.held(one, other))
        return forward, backward

    def where_sent(self, effect: Effect, one: ShapeField, other: ShapeField) -> Effects:
        """Return an effect for the directions in which the field is on the wire; if it may be, it may have it."""
        forward, backward = (
            Effect.HARMLESS
            if max(held) is Held.NO
            else Effect.MAY_BREAK
            if effect is Effect.BREAKS and max(held) is Held.MAYBE
            else effect
            for held in self.held(one, other)
        )
        return forward, backward

    def in_order(self) -> tuple[bool, bool]:
        """Return whether the fields that both have on the wire are in the same order, in either direction."""
        out = []
        for way in (0, 1):
            names_a = [one.name for one in self.a.fields if self.held(one, None)[way][0] is not Held.NO]
            names_b = [one.name for one in self.b.fields if self.held(None, one)[way][1] is not Held.NO]
            both = set(names_a) & set(names_b)
            out.append([name for name in names_a if name in both] == [name for name in names_b if name in both])
        return out[0], out[1]


def _disagreement(one: Held, other: Held) -> Effect:
    if one is other:
        return Effect.HARMLESS
    return Effect.MAY_BREAK if Held.MAYBE in (one, other) else Effect.BREAKS


_TOGETHER = {
    How.REGROUPED: ("field-regrouped", Effect.HARMLESS, "the same numbers in the same order are on the wire"),
    How.PADDED: ("field-padded", Effect.HARMLESS, PADDING),
    How.RECUT: ("field-regrouped", Effect.UNKNOWN, "the same total length, divided into other fields"),
}


def judge(told: Told, place: Place, match: Match) -> Iterator[SchemaDifference]:
    """Yield every difference of a match; the caller compares what is nested in its fields."""
    if match.how in _TOGETHER:
        yield _together(told, place, match)
        return
    if match.how in (How.MISSING, How.EXTRA):
        yield from _alone(told, place, match)
        return
    one, other = match.a[0], match.b[0]
    if match.how is How.MOVED:
        effects = [Effect.HARMLESS if ordered else Effect.BREAKS for ordered in place.in_order()]
        message = "is in another place in B"
        reason = "fields are identified only by their order"
        yield place.difference("field-order", one.name, (effects[0], effects[1]), message, reason, None, None)
    elif match.how is How.RENAMED:
        yield _renamed(place, one, other)
    if not told.mixed and (one.version, one.optional) != (other.version, other.optional):
        yield _presence(place, one, other)
    if is_padding(one) != is_padding(other) and one.total is not None and one.total == other.total:
        return  # one is padding for the other
    found = None
    if one.body is None or other.body is None:
        found = _kind(told, one, other)
    if found is None:
        found = _count(told, one, other)
    if found is not None:
        rule, effect, reason = found
        effects_ = place.where_sent(effect, one, other)
        message = f"{one.words} in A, {other.words} in B"
        yield place.difference(rule, one.name, effects_, message, reason, one.words, other.words)


def _together(told: Told, place: Place, match: Match) -> SchemaDifference:
    """Several fields that are as long as several others, and are present together."""
    rule, effect, reason = _TOGETHER[match.how]
    names = ["+".join(field.name for field in side) for side in (match.a, match.b)]
    agreed = (Effect.HARMLESS, Effect.HARMLESS) if told.mixed else place.agree(match.a[0], match.b[0])
    forward, backward = (max(effect, one, key=lambda effect: effect.rank) for one in agreed)
    if Effect.BREAKS in (forward, backward):
        reason += f"; {AGREE}"
    message = f"{names[0]} in A, {names[1]} in B"
    return place.difference(rule, names[0], (forward, backward), message, reason, names[0], names[1])


def _alone(told: Told, place: Place, match: Match) -> Iterator[SchemaDifference]:
    """A field that only one side has."""
    in_a = match.how is How.MISSING
    field, origin = (match.a[0], told.a) if in_a else (match.b[0], told.b)
    if told.mixed and not origin.typed and field.optional:
        return  # a stream does not show fields that were not needed
    effects = place.agree(field, None) if in_a else place.agree(None, field)
    reason = SHIFTED
    vmsd = place.a.name
    if field.name in TOLD_SINCE.get(vmsd, {}):
        # A side that knows the field reads whether it is present.
        forward, backward = effects
        effects = (forward, Effect.HARMLESS) if in_a else (Effect.HARMLESS, backward)
        reason = f"{TOLD_BY[vmsd]}, sent before it, shows whether it is present; a side that lacks it misreads the rest"
    if told.mixed and not origin.typed and Effect.BREAKS in effects:
        # A vmdesc does not list an array whose length is known only at run time while the array is empty.
        softer = Effect.MAY_BREAK if field.body is None else Effect.UNKNOWN  # such arrays are mostly of structs
        forward, backward = (softer if effect is Effect.BREAKS else effect for effect in effects)
        effects = forward, backward
        reason += ", unless it is an array that was empty"
    elif Effect.MAY_BREAK in effects:
        reason += ", if it is sent"
    elif set(effects) == {Effect.HARMLESS}:
        reason = "no version that is sent has it"
    elif Effect.HARMLESS in effects:
        reason += "; earlier versions do not have it"
    side, words = ("A", (field.words, None)) if in_a else ("B", (None, field.words))
    yield place.difference(f"field-{match.how}", field.name, effects, f"{field.words}, only in {side}", reason, *words)


def _renamed(place: Place, one: ShapeField, other: ShapeField) -> SchemaDifference:
    harmless = Effect.HARMLESS, Effect.HARMLESS
    if is_padding(one) != is_padding(other):
        message = f"{one.name} in A, {other.name} in B"
        return place.difference("field-padded", one.name, harmless, message, PADDING, one.name, other.name)
    message = f"called {other.name} in B"
    reason = "field names are not sent; place and size are the same"
    return place.difference("field-renamed", one.name, harmless, message, reason, one.name, other.name)


def _presence(place: Place, one: ShapeField, other: ShapeField) -> SchemaDifference:
    """A field whose first version or condition differs."""
    texts = [
        f"from version {field.version}" + (", if a function returns true" if field.optional else "")
        for field in (one, other)
    ]
    rule = "field-version" if one.optional == other.optional else "field-condition"
    message = f"{texts[0]} in A, {texts[1]} in B"
    return place.difference(rule, one.name, place.agree(one, other), message, AGREE, texts[0], texts[1])


def _kind(told: Told, one: ShapeField, other: ShapeField) -> tuple[str, Effect, str] | None:
    """Return how type and size of a field differ: rule, effect, reason; None if they do not, or that is not known."""
    if (one.body is None) != (other.body is None):
        if told.mixed or "old-style" in (one.type, other.type):
            return None  # a custom type, whose contents only one side describes
        if same_bytes((one,), (other,)):
            return "field-type", Effect.HARMLESS, "the same numbers in the same order are on the wire"
        return "field-type", Effect.UNKNOWN, "one is a struct; whether its bytes are the same is not known"
    if one.type is not None and other.type is not None and one.type != other.type:
        return ("field-type", *_types(one, other))
    if one.size is None or other.size is None or one.size == other.size:
        return None
    if told.mixed and not _plain(one.type or other.type or ""):
        return None  # a size in memory against one on the wire
    return ("field-size", *_sizes(told, one, other))


def _types(one: ShapeField, other: ShapeField) -> tuple[Effect, str]:
    if one.total is None or one.total != other.total:
        return Effect.BREAKS, f"another length: {SHIFTED}"
    widths = [number_width(field.type or "") for field in (one, other)]
    if widths[0] is not None and widths[0] == widths[1] and not (_checked(one) or _checked(other)):
        return Effect.HARMLESS, "numbers of the same width are the same bytes"
    return Effect.UNKNOWN, "the same length, but another meaning"


def _sizes(told: Told, one: ShapeField, other: ShapeField) -> tuple[Effect, str]:
    if not told.counts_arrays and not told.mixed and (is_padding(one) or is_padding(other)):
        return Effect.UNKNOWN, "a dump of a QEMU before 10.0 does not have the length of an array"
    if one.total == other.total and None not in (one.count, other.count):
        return Effect.UNKNOWN, "the same total length, divided into other numbers"
    if one.type in ("buffer", "bitmap"):
        return Effect.MAY_BREAK, f"{SHIFTED}, unless another field gives its length"
    if told.a.typed or {one.size, other.size} <= {1, 2, 4, 8} or is_padding(one):
        return Effect.BREAKS, SHIFTED
    return Effect.MAY_BREAK, f"these are sizes in memory; if those on the wire differ, {SHIFTED}"


def _count(told: Told, one: ShapeField, other: ShapeField) -> tuple[str, Effect, str] | None:
    """Return how the lengths of arrays differ."""
    if one.count == other.count:
        return None
    if None in (one.count, other.count):
        if not told.counted or one.type is not None:
            return None
        return "array-length", Effect.UNKNOWN, "only one side has the number of elements"
    if told.a.typed or told.b.typed:
        return "array-length", Effect.MAY_BREAK, f"{SHIFTED}, unless another field gives the number of elements"
    return "array-length", Effect.BREAKS, SHIFTED


def _checked(field: ShapeField) -> bool:
    """Whether a type refuses some values."""
    return (field.type or "").endswith((" equal", " positive"))


def _plain(type_: str) -> bool:
    """Whether a field of this type has the same size on the wire as in QEMU's memory."""
    return type_ in ("buffer", "unused_buffer") or (type_ != "timer" and number_width(type_) is not None)
