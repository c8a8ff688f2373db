"""What one walk of the loader knows and gathers; every part of it works on the same :class:`Load`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from qmigtool.preflight.loader.words import Vocabulary, family_of
from qmigtool.preflight.remark import Remark

if TYPE_CHECKING:
    from qmigtool.parsers.configuration import Configuration
    from qmigtool.preflight.loader.cursor import Cursor
    from qmigtool.preflight.loader.guestmemory import GuestMemory
    from qmigtool.preflight.loader.ramblocks import RamLoader
    from qmigtool.preflight.loader.words import Refusal
    from qmigtool.preflight.target.model import Target, Version
    from qmigtool.preflight.target.versions import Possible

__all__ = ["Load", "Undecided", "signed"]

Said = TypeVar("Said", Remark, str)

MAX_NOTES = 100  # a hostile stream has a section every 16 bytes


class Undecided(Exception):  # noqa: N818 - a signal that ends the walk, never seen by a caller
    """What follows depends on something that is not known of the target; ``remark`` says on what, and where."""

    def __init__(self, text: str, place: str = "") -> None:
        super().__init__(text)
        self.remark = Remark(text, place)

    def inside(self, place: str) -> Undecided:
        """Return it with the section that it is in, if it has no place yet."""
        return self if self.remark.place else Undecided(self.remark.text, place)


@dataclass(slots=True)
class Load:
    """A loader at work: what it reads, what it knows of itself (``target``), and what it has come to.

    ``doubts`` are what may make it refuse the stream and is not known, with what would decide it; ``unseen`` what could
    not be checked and does not; ``shaky`` is what all that follows
    rests on without being known; ``supposed`` are capabilities, off by default, that are taken as on because it is not
    known; ``dead`` has devices that load and do not work, and why. ``memory`` is what the
    stream holds of guest memory. ``started`` are the ids of the sections so far. ``registers`` has the fields of each
    ``cpu`` section by name, for what comes after loading.
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
    doubts: list[Remark] = field(default_factory=list)
    unseen: list[Remark] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[Remark] = field(default_factory=list)
    shaky: str = ""
    supposed: set[str] = field(default_factory=set)
    dead: dict[str, str] = field(default_factory=dict)

    def since(self, version: Version) -> bool:
        """Say whether the target's QEMU is of this version or a later.

        Raises :class:`~qmigtool.preflight.target.versions.Split` where the versions that it may be disagree: whoever
        started the walk starts it again for each kind.
        """
        return self.possible.since(version)

    @property
    def words(self) -> Vocabulary:
        """The words of the target's version; asked for only when something is said."""
        return family_of(self.possible)

    def refuse(self, rule: str, offset: int | None = None, section: str | None = None, **values: Any) -> Refusal:
        """Make a refusal in the target's words, to be raised."""
        return self.words.refusal(rule, self.cursor.pos if offset is None else offset, section, **values)

    def doubt(self, text: str, place: str = "") -> None:
        """Note what may make the target refuse the stream; ``place`` is the label of the section that it is in."""
        _add(self.doubts, Remark(text, place))

    def suppose(self, capability: str, sent: str) -> None:
        """Go on as if a capability were on; a target without it refuses the stream, and it is not known which."""
        self.supposed.add(capability)
        self.doubt(
            f"whether the target has the capability {capability} on, without which it refuses {sent}: "
            "query-migrate-capabilities decides it"
        )

    def miss(self, text: str, place: str = "") -> None:
        """Note what could not be checked."""
        _add(self.unseen, Remark(text, place))

    def note(self, text: str, place: str = "") -> None:
        """Note what else is worth knowing."""
        _add(self.notes, Remark(text, place))

    def warn(self, name: str, **values: Any) -> None:
        """Note what the target prints without stopping."""
        _add(self.warnings, self.words.warning(name, **values))

    def has(self, capability: str) -> bool | None:
        """Say whether a capability of the target is on; None if that is not known."""
        return self.target.capabilities.get(capability)

    @property
    def footers(self) -> bool:
        """Whether the target expects a footer behind every section."""
        return self.is_on("send-section-footer", True)

    def is_on(self, prop: str, default: bool) -> bool:
        """Say whether a ``-global migration.X`` of the target is on."""
        return self.target.properties.get(prop, default)


def signed(word: int) -> int:
    """Return a 32-bit word as ``%d`` prints it."""
    return word - (1 << 32) if word >= 1 << 31 else word


def _add(said: list[Said], one: Said) -> None:
    if len(said) < MAX_NOTES and one not in said:
        said.append(one)
