"""The state of one walk of the loader; every part of it works on the same :class:`Load`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from qmigtool.findings import Finding, Severity
from qmigtool.preflight.loader.words import Vocabulary, family_of
from qmigtool.preflight.remark import MEASURED, remark

if TYPE_CHECKING:
    from qmigtool.parsers.configuration import Configuration
    from qmigtool.preflight.loader.cursor import Cursor
    from qmigtool.preflight.loader.guestmemory import GuestMemory
    from qmigtool.preflight.loader.ramblocks import RamLoader
    from qmigtool.preflight.loader.words import Refusal
    from qmigtool.preflight.target.model import Target, Version
    from qmigtool.preflight.target.versions import Possible

__all__ = ["Load", "Undecided", "signed"]

Said = TypeVar("Said", Finding, str)

MAX_NOTES = 100  # a hostile stream has a section every 16 bytes


class Undecided(Exception):  # noqa: N818 - a signal that ends the walk, never seen by a caller
    """The rest depends on an unknown property of the target; ``remark`` names the property and the place."""

    def __init__(self, text: str, place: str = "") -> None:
        super().__init__(text)
        self.remark = remark(text, place)

    def inside(self, place: str) -> Undecided:
        """Return it with the section as its place, unless it has a place."""
        return self if self.remark.device else Undecided(self.remark.message, place)


@dataclass(slots=True)
class Load:
    """A running loader: its input, the ``target``, and its results so far.

    ``doubts`` are unknowns that may make it refuse the stream, with what decides them; ``unseen`` are checks that were
    not possible and cannot make it refuse; ``shaky`` is an assumption on which everything that follows depends;
    ``supposed`` are capabilities, off by default, that are assumed to be on because their state is not known; ``dead``
    has devices that load and do not work, and why. ``memory`` is the guest memory in the stream. ``started`` are the
    ids of the sections so far. ``registers`` has the fields of each ``cpu`` section by name, for the step after
    loading.
    """

    cursor: Cursor
    target: Target
    possible: Possible
    ram: RamLoader
    memory: GuestMemory
    configuration: Configuration | None = None
    capabilities: frozenset[str] = frozenset()
    postcopy: int = 0
    return_path: bool = False
    started: set[int] = field(default_factory=set)
    registers: dict[int, dict[str, Any]] = field(default_factory=dict)
    doubts: list[Finding] = field(default_factory=list)
    unseen: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    shaky: str = ""
    supposed: set[str] = field(default_factory=set)
    dead: dict[str, Finding] = field(default_factory=dict)

    def since(self, version: Version) -> bool:
        """Return whether the target's QEMU is of this version or a later one.

        Raises :class:`~qmigtool.preflight.target.versions.Split` if the possible versions differ: the caller then
        repeats the walk for each group of versions.
        """
        return self.possible.since(version)

    @property
    def words(self) -> Vocabulary:
        """The messages of the target's version; evaluated only when a message is needed."""
        return family_of(self.possible)

    def refuse(self, rule: str, offset: int | None = None, section: str | None = None, **values: Any) -> Refusal:
        """Return a refusal with the target's message, to be raised."""
        return self.words.refusal(rule, self.cursor.pos if offset is None else offset, section, **values)

    def doubt(self, text: str, place: str = "") -> None:
        """Add what may make the target refuse the stream; ``place`` is the label of its section."""
        _add(self.doubts, remark(text, place))

    def suppose(self, capability: str, sent: str) -> None:
        """Assume that a capability is on; a target without it refuses the stream."""
        self.supposed.add(capability)
        self.doubt(
            f"whether the target has the capability {capability} on (it refuses {sent} without it): "
            "query-migrate-capabilities decides it"
        )

    def miss(self, text: str, place: str = "") -> None:
        """Add what could not be checked."""
        _add(self.unseen, remark(text, place))

    def note(self, text: str, place: str = "") -> None:
        """Add a note."""
        _add(self.notes, remark(text, place))

    def dies(self, device: str, text: str) -> None:
        """Record a device that loads and does not work."""
        self.dead[device] = Finding("device-broken", Severity.ERROR, text, MEASURED, device=device)

    def warn(self, name: str, **values: Any) -> None:
        """Add a message that the target prints without stopping."""
        _add(self.warnings, self.words.warning(name, **values))

    def has(self, capability: str) -> bool | None:
        """Return whether a capability of the target is on; None if that is not known."""
        return self.target.capabilities.get(capability)

    @property
    def footers(self) -> bool:
        """Whether the target expects a footer after every section."""
        return self.is_on("send-section-footer", True)

    def is_on(self, prop: str, default: bool) -> bool:
        """Return whether a ``-global migration.X`` of the target is on."""
        return self.target.properties.get(prop, default)


def signed(word: int) -> int:
    """Return a 32-bit word as ``%d`` prints it."""
    return word - (1 << 32) if word >= 1 << 31 else word


def _add(said: list[Said], one: Said) -> None:
    if len(said) < MAX_NOTES and one not in said:
        said.append(one)
