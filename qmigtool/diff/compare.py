"""Compare two streams as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from qmigtool.diff.domain import differing_domains
from qmigtool.diff.fields import HELD, Pair, differing
from qmigtool.diff.model import Comparison, Difference, DifferenceKind
from qmigtool.diff.noise import (
    ACCELERATORS_DIFFER,
    ANOTHER_INSTRUCTION,
    IGNORED,
    NO_X87_EXCEPTION,
    Noise,
    default_noise,
)
from qmigtool.diff.values import BYTES
from qmigtool.diff.words import change, decides
from qmigtool.diff.xstate import differing_registers, x87_unknown
from qmigtool.errors import BudgetError, QmigError, UndecidedError, UnsupportedError
from qmigtool.stream.words import not_reached
from qmigtool.util.budget import current
from qmigtool.x86.accelerator import UNKNOWN
from qmigtool.x86.registers import FSW
from qmigtool.x86.vcpu import SAVED_BY

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.stream.model import Stream
    from qmigtool.x86.vcpu import VCpu

__all__ = ["compare", "compare_sides"]

_Key = tuple[str, int]  # a label, and the number among devices with that label

MAX_DIFFERENCES = 100_000  # each of counted and of excused differences


def compare(a: Stream, b: Stream, *, noise: Noise | None = None) -> Comparison:
    """Compare the state of two streams: their global properties, RAMBlocks, and devices field by field.

    ``noise`` are the rules that excuse differences (default: :func:`~qmigtool.diff.noise.default_noise`).
    :func:`qmigtool.diff.ram.compare_ram` compares the contents of RAM. A fault in a stream does not raise: it is in
    its :attr:`~qmigtool.stream.model.Stream.problems`, and a device that cannot be decoded is compared by its bytes.
    """
    return compare_sides(a, b, ("A", "B"), noise)


def compare_sides(a: Stream, b: Stream, sides: tuple[str, str], noise: Noise | None) -> Comparison:
    """Compare two streams under other names: a common base is neither A nor B."""
    return _Comparer(a, b, sides, default_noise() if noise is None else noise).run()


class _Comparer:
    def __init__(self, a: Stream, b: Stream, sides: tuple[str, str], noise: Noise) -> None:
        for stream in (a, b):
            stream.prove()  # otherwise the rest of another stream might be compared
        self._a, self._b = self._streams = a, b
        self._unreached: tuple[list[str], list[str]] = [], []
        self._sides = sides
        self._noise = noise
        self._found: list[Difference] = []
        self._excused: list[Difference] = []
        self._notes: list[str] = []
        self._vcpus = {id(vcpu.device): vcpu for stream in (a, b) for vcpu in stream.vcpus}
        self._left = 0
        self._conditions: list[str] = []
        ours, theirs = a.accelerator.name, b.accelerator.name
        self._hypervisors = [stream.accelerator.tcg is False for stream in (a, b)]
        self._one_meaning = ours == theirs
        self._undecided: list[str] = []
        self._cut = [any(isinstance(one, BudgetError) for one in stream.problems) for stream in (a, b)]
        if ours != theirs:
            streams = zip(sides, (a, b), strict=True)
            self._notes.append("; ".join(f"{name}: {s.accelerator.told(decides([name]))}" for name, s in streams))
            if UNKNOWN not in (ours, theirs):
                self._conditions.append(ACCELERATORS_DIFFER)

    def run(self) -> Comparison:
        for difference in self._whole():
            side = 0 if difference.a is None else 1 if difference.b is None else None
            if side is not None and self._cut[side]:
                self._unseen(side, difference.path)
            elif side is not None and self._streams[side].stopped is not None and not self._streams[side].lists_blocks:
                self._unreached[side].append(difference.path)  # it ends before the list of RAM blocks
            else:
                self._take(difference)
        domains = differing_domains(self._a, self._b, self._sides)
        for difference in domains.differences:
            self._take(difference)
        self._notes += domains.notes
        self._undecided += domains.undecided
        for a, b in _pairs(self._a.devices, self._b.devices):
            if a is not None and b is not None:
                self._device(a, b)
                continue
            side, one = (0, b) if a is None else (1, a)
            assert one is not None  # noqa: S101 - a pair has one device at least
            if self._cut[side]:
                self._unseen(side, one.label)
            elif self._streams[side].may_have(one.name, one.instance_id):
                self._unreached[side].append(one.label)
            else:
                self._take(_alone(a, b))
        for name, stream, labels in zip(self._sides, self._streams, self._unreached, strict=True):
            if labels and stream.stopped is not None:
                self._undecided.append(f"{', '.join(labels)}: {not_reached(stream.stopped, name)}")
        if self._left:
            self._notes.append(f"{self._left} more differences are not listed")
        used = {difference.rule for difference in self._excused}
        idle = (rule.id for rule in self._noise.rules if rule.topic == IGNORED and rule.id not in used)
        self._notes += (f"{rule} matches no difference" for rule in idle)
        return Comparison(tuple(self._found), tuple(self._excused), tuple(self._notes), tuple(self._undecided))

    def _unseen(self, side: int, what: str) -> None:
        """Note something in one stream that may also be in the other, which a limit stopped reading."""
        self._undecided.append(f"{what}: {self._sides[side]} was not read to its end because of a limit")

    def _take(self, difference: Difference, types: Iterable[str] = (), conditions: Iterable[str] = ()) -> None:
        holds = {*self._conditions, *conditions}
        rule = self._noise.find(difference.where, types, difference.a, difference.b, holds)
        if rule is not None:
            difference = difference.named(rule.id, rule.topic, excused=rule.excuse)
        kept = self._excused if difference.excused else self._found
        if len(kept) < MAX_DIFFERENCES:
            kept.append(difference)
        else:
            self._left += 1

    def _whole(self) -> Iterator[Difference]:
        """Compare the properties that belong to no device."""
        a, b = _facts(self._a), _facts(self._b)
        for name in dict.fromkeys([*a, *b]):
            (x, type_a), (y, type_b) = (facts.get(name, (None, "")) for facts in (a, b))
            if x != y:
                yield Difference(path=f"[{name}]", kind=_kind(x, y), a=x, b=y, type=type_a or type_b)

    def _device(self, a: Device, b: Device) -> None:
        if a.version_id != b.version_id:
            self._take(
                Difference(
                    device=a.label,
                    path="[version]",
                    kind=DifferenceKind.CHANGED,
                    a=a.version_id,
                    b=b.version_id,
                    offset=a.section.offset,
                    offset_b=b.section.offset,
                )
            )
        if a.description == b.description and a.description is not None and self._one_meaning and a.same_body(b):
            self._order(a, b)
            return
        try:
            self._fields(a, b)
        except QmigError as error:
            for one, stream in ((a, self._a), (b, self._b)):
                _report(one, stream)
            if not a.same_body(b):
                self._take(_bytes(a, b, f"cannot be decoded: {error.message}"))

    def _fields(self, a: Device, b: Device) -> None:
        fields = a.fields, b.fields
        skip: set[int] = set()
        holds: list[str] = []
        x86 = id(a) in self._vcpus and id(b) in self._vcpus
        if x86:
            if a.number("env.eip") != b.number("env.eip"):
                holds.append(ANOTHER_INSTRUCTION)
            skip = self._registers(self._vcpus[id(a)], self._vcpus[id(b)])
        for pair in differing(*fields, skip=skip):
            types = tuple(field.type for field in (pair.a, pair.b) if field is not None)
            self._take(_difference(a.label, pair, x86=x86), types, holds)

    def _order(self, a: Device, b: Device) -> None:
        """Note what is not known of the x87 registers of two devices, if they are vCPUs."""
        one, other = self._vcpus.get(id(a)), self._vcpus.get(id(b))
        if one is not None and other is not None and (unknown := x87_unknown(one, other, self._sides)) is not None:
            (self._notes if unknown.equal else self._undecided).append(unknown.words)

    def _registers(self, a: VCpu, b: VCpu) -> set[int]:
        """Compare extended state; return the ``id`` of each field that it covers."""
        try:
            found = list(differing_registers(a, b, declared=(self._hypervisors[0], self._hypervisors[1])))
            pending = int.from_bytes(a.x87_control[2:4], "little") | int.from_bytes(b.x87_control[2:4], "little")
            pending &= FSW["ES"]  # an unmasked x87 exception is pending
        except QmigError as error:
            why = str(error)
            if isinstance(error, UndecidedError) and error.feature == SAVED_BY:
                hint = decides(name for name, vcpu in zip(self._sides, (a, b), strict=True) if vcpu.tcg is None)
                why = "; ".join(filter(None, (error.told, hint)))
            words = f"{a.device.label}: extended state is compared field by field: {why}"
            (self._undecided if isinstance(error, UndecidedError) else self._notes).append(words)
            return set()
        for difference in found:
            self._take(difference, conditions=() if pending else (NO_X87_EXCEPTION,))
        self._order(a.device, b.device)
        return {id(field) for vcpu in (a, b) for _, field in vcpu.sent}


def _facts(stream: Stream) -> dict[str, tuple[Any, str]]:
    """Return name -> (value, type of a difference in it) for the properties that belong to no device."""
    raw = stream.configuration.uuid if stream.configuration is not None else None
    return {
        "machine": (stream.machine, ""),
        "page size": (stream.page_size, BYTES),
        "uuid": (None if raw is None else str(UUID(bytes=raw)), ""),
        **{f"capability {name}": (True, "") for name in stream.capabilities},
        **{f"RAM block {block.idstr}": (block.used_length, BYTES) for block in stream.ram_blocks},
    }


def _pairs(a: Sequence[Device], b: Sequence[Device]) -> Iterator[tuple[Device | None, Device | None]]:
    """Pair devices by idstr and instance; several with the same name are paired in order.

    An old machine type sends ``ide`` where a newer one sends ``0000:00:01.1/ide`` (QEMU: ``find_se`` accepts both): a
    device that only one side has is paired by its name without the path, if that is unambiguous.
    """
    ours, theirs = dict(_numbered(a)), dict(_numbered(b))
    left_a, left_b = (_without_path(one, other) for one, other in ((ours, theirs), (theirs, ours)))
    # One of them must have no path: a device in another slot is another device.
    alias = {left_a[n]: left_b[n] for n in left_a.keys() & left_b.keys() if n in (left_a[n][0], left_b[n][0])}
    for key, device in ours.items():
        yield device, theirs.pop(alias.get(key, key), None)
    for device in theirs.values():
        yield None, device


def _without_path(some: dict[_Key, Device], others: dict[_Key, Device]) -> dict[str, _Key]:
    """Return label without a device path -> key, for devices that only ``some`` has, without ambiguous ones."""
    labels = [(key[0].rpartition("/")[2], key) for key in some if key not in others]
    counts = Counter(label for label, _ in labels)
    return {label: key for label, key in labels if counts[label] == 1}


def _numbered(devices: Sequence[Device]) -> Iterator[tuple[_Key, Device]]:
    seen: Counter[str] = Counter()
    for device in devices:
        seen[device.label] += 1
        yield (device.label, seen[device.label]), device


def _alone(a: Device | None, b: Device | None) -> Difference:
    label = next(side.label for side in (a, b) if side is not None)
    return Difference(
        device=label,
        kind=_kind(a, b),
        a=None if a is None else a.section.body_length,
        b=None if b is None else b.section.body_length,
        offset=None if a is None else a.section.offset,
        offset_b=None if b is None else b.section.offset,
        type=BYTES,
    )


def _bytes(a: Device, b: Device, words: str) -> Difference:
    places = a.section.body_offset, b.section.body_offset
    current().charge("memory", HELD * (a.section.body_length + b.section.body_length), places[0], a.label)
    return Difference(
        device=a.label,
        kind=DifferenceKind.CHANGED,
        a=a.body,
        b=b.body,
        offset=places[0],
        offset_b=places[1],
        words=words,
    )


def _difference(label: str, pair: Pair, *, x86: bool) -> Difference:
    kind = (
        DifferenceKind.ONLY_A if pair.b is None else DifferenceKind.ONLY_B if pair.a is None else DifferenceKind.CHANGED
    )
    return Difference(
        device=label,
        path=pair.path,
        kind=kind,
        a=pair.value_a,
        b=pair.value_b,
        offset=None if pair.a is None else pair.a.offset,
        offset_b=None if pair.b is None else pair.b.offset,
        words=change(pair, x86=x86),
        lacks=pair.path.rpartition("/")[0] if pair.a is None or pair.b is None else "",
        type=next(field.type for field in (pair.a, pair.b) if field is not None),
    )


def _kind(a: Any, b: Any) -> DifferenceKind:
    return DifferenceKind.ONLY_A if b is None else DifferenceKind.ONLY_B if a is None else DifferenceKind.CHANGED


def _report(device: Device, stream: Stream) -> None:
    """Record on its stream why a device cannot be decoded."""
    try:
        _ = device.fields
    except UnsupportedError:
        pass  # a limitation of qmigtool, which the difference reports
    except QmigError as error:
        stream.report(error)
