"""The outcome of a comparison of two streams: state and memory, and whether all of them could be compared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from qmigtool.diff.text import verdict
from qmigtool.errors import BudgetError

if TYPE_CHECKING:
    from qmigtool.diff.model import Comparison
    from qmigtool.diff.ram import RamComparison
    from qmigtool.stream.model import Stream

__all__ = ["Outcome", "limits_reached"]


class Outcome(NamedTuple):
    """The result for two streams; ``moved``: look for pages that moved."""

    state: Comparison
    memory: RamComparison | None
    streams: tuple[Stream, Stream]
    moved: bool

    @property
    def same(self) -> bool:
        """Whether neither state nor, where that was asked for, memory differs."""
        return self.state.same and (self.memory is None or self.memory.same)

    @property
    def undecided(self) -> bool:
        """Whether all that can be compared is the same, and something cannot."""
        partly = bool(self.state.undecided or limits_reached(self.streams))
        return not self.state.differences and partly and (self.memory is None or self.memory.same)

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
        broken = [
            name
            for name, stream in zip("AB", self.streams, strict=True)
            if any(not isinstance(one, BudgetError) for one in stream.problems)
        ]
        if broken:
            words.append(f"{' and '.join(broken)} broken: compared as far as can be read")
        return "; ".join(words)


def limits_reached(streams: Iterable[Stream]) -> list[str]:
    """Return the limits that were reached, so that not everything could be compared."""
    return [str(one) for stream in streams for one in stream.problems if isinstance(one, BudgetError)]
