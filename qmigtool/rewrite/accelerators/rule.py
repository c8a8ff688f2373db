"""What a rule is, and what it works on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qmigtool.errors import LiveStateError
from qmigtool.rewrite.fields import assign

if TYPE_CHECKING:
    from qmigtool.rewrite.draft import Draft
    from qmigtool.rewrite.sectiondraft import SectionDraft
    from qmigtool.x86.traits import Traits
    from qmigtool.x86.vcpu import VCpu

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
    name: str = ""
    """The rule that is applied."""

    def apply(self, rule: Rule) -> None:
        """Apply one rule."""
        self.name = rule.name
        with self.draft.edit(rule.name, rule.why):
            rule.run(self)

    def cpus(self) -> Iterator[tuple[SectionDraft, VCpu]]:
        """Give each x86 vCPU with its section."""
        for section in self.draft.x86_cpus():
            yield section, self.draft.vcpu(section)

    def beside(self, name: str) -> Iterator[tuple[SectionDraft, VCpu, SectionDraft]]:
        """Give each vCPU with its own section ``name``: ``cpu_common`` or ``apic``.

        ``cpu`` and ``cpu_common`` count vCPUs; ``apic`` has the APIC ID, which rises with that count and has gaps where
        a topology's numbers are no powers of two. So it is the order that pairs them. A vCPU may have no APIC.
        """
        cpus, others = list(self.cpus()), self.draft.named(name)
        if others and len(others) != len(cpus):
            self.refuse(f"{len(cpus)} vCPUs and {len(others)} sections {name!r}: which belong together is not known")
        for (section, vcpu), other in zip(cpus, others, strict=False):
            yield section, vcpu, other

    def number(self, section: SectionDraft, path: str) -> int:
        """Return a number, 0 for a field that was not sent."""
        return section.device.number(path) or 0

    def assign(self, section: SectionDraft, path: str, value: Any) -> None:
        """Give a field another value; one that the stream lacks stays away, with a word if it is not initial there."""
        if section.device.get(path) is not None:
            assign(self.draft, section, path, value)
        elif value:
            self.note(f"{section.label} has no {path}, which should become {value:#x}")

    def lose(self, what: str, components: tuple[str, ...] = ()) -> None:
        """Take note of state that is dropped; raises :class:`~qmigtool.errors.LiveStateError` if it may not be.

        The caller drops it then.
        """
        if not self.lossy:
            raise LiveStateError(
                f"{self.target.name} cannot hold it: {what}",
                components=components,
                rule=self.name,
                advice="--lossy drops it",
            )
        self.draft.losses.append(f"{what} ({self.name})")

    def refuse(self, what: str) -> None:
        """Raise :class:`~qmigtool.errors.LiveStateError` for what cannot be dropped either."""
        raise LiveStateError(f"{self.target.name} cannot take it: {what}", rule=self.name)

    def note(self, text: str) -> None:
        """Say something that nobody can do anything about here."""
        self.draft.note(text, rule=self.name)
