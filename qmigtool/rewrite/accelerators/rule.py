"""The types of a rule and of a conversion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from qmigtool.errors import LiveStateError
from qmigtool.findings import Severity
from qmigtool.rewrite.fields import assign
from qmigtool.x86.lapic import pairs

if TYPE_CHECKING:
    from qmigtool.rewrite.draft import Draft
    from qmigtool.rewrite.sectiondraft import SectionDraft
    from qmigtool.x86.traits import Traits
    from qmigtool.x86.vcpu import VCpu

__all__ = ["Conversion", "ConversionRule", "Loss"]


class Loss(NamedTuple):
    """The effect of leaving a rule out, as a finding of preflight: its name, its severity and a message."""

    name: str
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True)
class ConversionRule:
    """One rule: ``why`` it is needed, and in ``status`` how that is known; ``loss`` is the effect of leaving it out.

    ``proved``: shown to be necessary by leaving it out, with real QEMU and /dev/kvm; ``source``: from QEMU's source;
    ``inferred``. ``loss`` is None for a rule without such an effect, or whose effect preflight finds by other means.
    """

    name: str
    why: str
    status: str
    applies: Callable[[Traits, Traits], bool]
    run: Callable[[Conversion], None]
    loss: Loss | None


@dataclass(slots=True)
class Conversion:
    """The operand of rules: the draft, both accelerators, and what the caller allows."""

    draft: Draft
    source: Traits
    target: Traits
    mask: int | None
    """The user components that the target's XCR0 can have, if known."""
    mask_name: str
    """What gives the mask, for messages."""
    lossy: bool
    name: str = ""
    """The current rule."""

    def apply(self, rule: ConversionRule) -> None:
        """Apply one rule."""
        self.name = rule.name
        with self.draft.edit(rule.name, rule.why):
            rule.run(self)

    def cpus(self) -> Iterator[tuple[SectionDraft, VCpu]]:
        """Yield each x86 vCPU with its section."""
        for section in self.draft.x86_cpus():
            yield section, self.draft.vcpu(section)

    def paired(self, name: str) -> Iterator[tuple[SectionDraft, VCpu, SectionDraft]]:
        """Yield each vCPU with its section ``name``: ``cpu_common`` or ``apic``. A vCPU may have no APIC."""
        cpus, others = list(self.cpus()), self.draft.named(name)
        found = pairs(cpus, others)
        if found is None:
            self.refuse(f"{len(cpus)} vCPUs and {len(others)} sections {name!r}: they cannot be paired")
        for (section, vcpu), other in found or ():
            yield section, vcpu, other

    def number(self, section: SectionDraft, path: str) -> int:
        """Return a number, 0 for a field that was not sent."""
        return section.device.number(path) or 0

    def assign(self, section: SectionDraft, path: str, value: Any) -> None:
        """Set a field; a field that the stream does not have is not added, with a note if the value is not 0."""
        if section.device.get(path) is not None:
            assign(self.draft, section, path, value)
        elif value:
            self.note(f"{section.label} has no {path}, which should become {value:#x}")

    def lose(self, section: SectionDraft, path: str, what: str, value: Any = None, *, expected: Any = None) -> None:
        """Record state at a path that the caller drops next.

        ``value`` is what the stream has there, ``expected`` what the target can hold. Raises
        :class:`~qmigtool.errors.LiveStateError` unless ``lossy``.
        """
        place = f"{section.label}/{path}"
        self.check_lossy(f"{self.target.name} cannot hold it: {place}: {what}")
        values = {name: one for name, one in (("value", value), ("expected", expected)) if one is not None}
        self.draft.lose(
            what,
            device=section.label,
            path=path,
            offset=self.draft.source_offset(section, path),
            values=values,
            rule=self.name,
        )

    def check_lossy(self, message: str, components: tuple[str, ...] = ()) -> None:
        """Raise :class:`~qmigtool.errors.LiveStateError` with ``message`` unless ``lossy``."""
        if not self.lossy:
            raise LiveStateError(message, components=components, rule=self.name, advice="--lossy drops it")

    def refuse(self, what: str) -> None:
        """Raise :class:`~qmigtool.errors.LiveStateError` for state that cannot be dropped."""
        raise LiveStateError(f"{self.target.name} cannot load it: {what}", rule=self.name)

    def note(self, text: str) -> None:
        """Add a note about something that the conversion cannot change."""
        self.draft.note(text, rule=self.name)
