"""What a rule is, and what it works on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qmigtool.errors import LiveStateError
from qmigtool.rewrite.fields import assign

if TYPE_CHECKING:
    from qmigtool.cpu_x86 import VCpu
    from qmigtool.rewrite.accelerators.traits import Traits
    from qmigtool.rewrite.draft import Draft, SectionDraft

__all__ = ["Conversion", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: ``why`` it is needed; ``status`` says how that is known.

    ``proved``: shown necessary by leaving it out, with real QEMU and /dev/kvm; ``source``: read in QEMU; ``inferred``.
    """

    name: str
    why: str
    status: str
    applies: Callable[[Traits, Traits], bool]
    run: Callable[[Conversion], None]


@dataclass(slots=True)
class Conversion:
    """What rules work on: the draft, both accelerators, and what the caller allows."""

    draft: Draft
    source: Traits
    target: Traits
    mask: int | None
    lossy: bool
    rule: Rule | None = None

    def apply(self, rule: Rule) -> None:
        """Apply one rule."""
        self.rule = rule
        rule.run(self)

    @property
    def name(self) -> str:
        """The name of the rule that is applied."""
        return "" if self.rule is None else self.rule.name

    @property
    def why(self) -> str:
        """Its reason."""
        return "" if self.rule is None else self.rule.why

    def cpus(self) -> Iterator[tuple[SectionDraft, VCpu]]:
        """Give each x86 vCPU with its section."""
        for section in self.draft.named("cpu"):
            yield section, self.draft.vcpu(section)

    def number(self, section: SectionDraft, path: str) -> int:
        """Return a number, 0 for a field that was not sent."""
        return section.device.number(path) or 0

    def assign(self, section: SectionDraft, path: str, value: Any) -> None:
        """Give a field another value, in the name of the rule; a field that the stream lacks stays away."""
        if section.device.get(path) is not None:
            assign(self.draft, section, path, value, self.name, self.why)

    def lose(self, what: str, components: tuple[str, ...] = ()) -> None:
        """Take note of state that is dropped; raises :class:`~qmigtool.errors.LiveStateError` if it may not be."""
        if not self.lossy:
            raise LiveStateError(
                f"{self.target.name} cannot hold it: {what} (rule {self.name}; --lossy drops it)",
                components=components,
            )
        self.draft.losses.append(f"{what} ({self.name})")

    def note(self, text: str) -> None:
        """Say something that nobody can do anything about here."""
        self.draft.notes.append(f"{text} ({self.name})")
