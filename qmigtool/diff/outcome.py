"""The outcome of a comparison of two streams: state and memory, and whether all of them could be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from qmigtool.diff.text import verdict
from qmigtool.errors import BudgetError
from qmigtool.stream.info import problems_document
from qmigtool.util.jsontext import materialised

if TYPE_CHECKING:
    from qmigtool.diff.model import Comparison
    from qmigtool.diff.ram import RamComparison
    from qmigtool.diff.threeway import ThreeWay
    from qmigtool.stream.model import Stream

__all__ = ["Outcome", "folders_document", "limits_reached", "snapshot_of", "three_way_document"]


class Outcome(NamedTuple):
    """The result for two streams; ``moved``: look for pages that moved."""

    state: Comparison
    memory: RamComparison | None
    streams: tuple[Stream, Stream]
    moved: bool

    @property
    def same(self) -> bool:
        """Whether state and, if it was compared, memory are the same."""
        return self.state.same and (self.memory is None or self.memory.same)

    @property
    def undecided(self) -> bool:
        """Whether all that can be compared is the same, and something cannot."""
        partly = bool(self.state.undecided or limits_reached(self.streams))
        return not self.state.differences and partly and (self.memory is None or self.memory.same)

    @property
    def equal(self) -> bool | None:
        """Whether both are the same, None if that is not known: undecided, or a stream is broken.

        What was not reached in a broken stream is undecided, and what cannot be read of it does not show.
        """
        return None if self.undecided or broken(self.streams) else self.same

    @property
    def verdict(self) -> str:
        """The outcome as text."""
        # "no difference" is about all that was compared.
        words = [verdict(self.state, "the state of devices" if self.memory is not None else None)]
        if self.memory is not None:
            from qmigtool.diff.ram.text import ram_verdict

            words.append(ram_verdict(self.memory))
        limits = limits_reached(self.streams)
        if limits:
            words[0] = f"at least {words[0]}" if self.state.differences else f"{words[0]} in what was compared"
            words.append(f"not all was compared: {limits[0]}")
        which = [name for name, stream in zip("AB", self.streams, strict=True) if broken([stream])]
        if which:
            words.append(f"{' and '.join(which)} broken: compared as far as can be read")
        return "; ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``diff --json`` prints, without its ``schema``."""
        found: dict[str, Any] = materialised(self.lazy_dict())
        return found

    def lazy_dict(self) -> dict[str, Any]:
        """Return what :meth:`as_dict` does, long buffers made while it is written (:mod:`qmigtool.util.jsontext`)."""
        one, other = self.streams
        document: dict[str, Any] = {
            "same": self.equal,
            "a": {"file": one.source.name, "snapshot": snapshot_of(one), "proved": one.proved},
            "b": {"file": other.source.name, "snapshot": snapshot_of(other), "proved": other.proved},
            "differences": [d.lazy_dict() for d in self.state.differences],
            "excused": [d.lazy_dict() for d in self.state.excused],
            "notes": list(self.state.notes),
            "undecided": list(self.state.undecided),
        }
        if self.memory is not None:
            from qmigtool.diff.ram.text import ram_as_dict

            document["ram"] = ram_as_dict(self.memory, moved=self.moved)
        broken_a, broken_b = (problems_document(stream)["problems"] for stream in self.streams)
        return {**document, "problems_a": broken_a, "problems_b": broken_b}


def limits_reached(streams: Iterable[Stream]) -> list[str]:
    """Return the limits that were reached, so that not everything could be compared."""
    return [str(one) for stream in streams for one in stream.problems if isinstance(one, BudgetError)]


def broken(streams: Iterable[Stream]) -> bool:
    """Return whether one of the streams has an error; a limit that was reached is none."""
    return any(not isinstance(one, BudgetError) for stream in streams for one in stream.problems)


def folders_document(files: Sequence[dict[str, Any]], only_a: Sequence[str], only_b: Sequence[str]) -> dict[str, Any]:
    """Return what ``diff -r --json`` prints, without its ``schema``.

    ``files`` are the documents of the pairs; one that could not be compared has no ``same``, or null.
    """
    answers = [one.get("same") for one in files]
    same = False if only_a or only_b or False in answers else None if None in answers else True
    return {"same": same, "only_a": list(only_a), "only_b": list(only_b), "files": list(files)}


def three_way_document(found: ThreeWay, streams: Sequence[Stream]) -> dict[str, Any]:
    """Return what ``diff --base --json`` prints, without its ``schema``."""
    undecided = not found.changes and (found.undecided or limits_reached(streams))
    return {
        "same": None if undecided or broken(streams) else found.same,
        "changes": [change.as_dict() for change in found.changes],
        "notes": list(found.notes),
        "undecided": list(found.undecided),
    }


def snapshot_of(stream: Stream) -> str | None:
    """Return which snapshot of an image a stream is, or None."""
    name = stream.container.details.get("snapshot")
    return None if name is None else str(name)
