"""The libvirt XML of two save images: what it says of the VM, fact by fact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from qmigtool.diff.model import Difference, DifferenceKind
from qmigtool.diff.values import BYTES
from qmigtool.stream.info import domain_document

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream

__all__ = ["DomainComparison", "differing_domains"]

TYPES = {"memory": BYTES}
ELSEWHERE = "the libvirt XML differs, in none of the facts that are compared: info --xml prints it"


class DomainComparison(NamedTuple):
    """The differences of the facts that ``info`` shows as ``domain``, and what could not be compared."""

    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()


def differing_domains(a: Stream, b: Stream, sides: tuple[str, str]) -> DomainComparison:
    """Compare the XML of two save images.

    The path of a difference is ``[XML cpu_model]``, or ``[XML device disk virtio]`` whose values are the numbers of
    such devices. A stream in another container has no XML: nothing is compared then, and a note says so.
    """
    headers = a.container.header, b.container.header
    ours, theirs = domain_document(a), domain_document(b)
    if ours is None or theirs is None:
        if ours is None and theirs is None:
            return DomainComparison()
        has, lacks = sides if theirs is None else sides[::-1]
        return DomainComparison(notes=(f"the libvirt XML of {has} is not compared: {lacks} has none",))
    if headers[0] is not None and headers[1] is not None and headers[0].xml == headers[1].xml:
        return DomainComparison()
    both = zip(sides, (ours, theirs), strict=True)
    unread = [f"{side}: {facts['unread']}" for side, facts in both if "unread" in facts]
    if unread:
        return DomainComparison(undecided=(f"the libvirt XML cannot be compared: {'; '.join(unread)}",))
    found = tuple(_differing(ours, theirs))
    return DomainComparison(found, () if found else (ELSEWHERE,))


def _differing(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[Difference]:
    for name in ours:
        if name == "devices":
            mine, other = Counter(ours[name]), Counter(theirs[name])
            for device in dict.fromkeys([*mine, *other]):
                yield from _one(f"device {device}", mine[device] or None, other[device] or None)
        else:
            yield from _one(name, ours[name], theirs[name])


def _one(name: str, a: Any, b: Any) -> Iterator[Difference]:
    if a != b:
        kind = DifferenceKind.ONLY_A if b is None else DifferenceKind.ONLY_B if a is None else DifferenceKind.CHANGED
        yield Difference(path=f"[XML {name}]", kind=kind, a=a, b=b, type=TYPES.get(name, ""), words="libvirt XML")
