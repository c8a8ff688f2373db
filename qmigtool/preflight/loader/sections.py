"""Sections as the target loads them: lookup of the registered section, version, footer (``migration/savevm.c``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qmigtool.parsers.record import decode_name
from qmigtool.parsers.records import QEMU_VM_SECTION_FOOTER
from qmigtool.preflight.loader import fieldfacts as facts
from qmigtool.preflight.loader.bodies import load_body
from qmigtool.preflight.loader.ramlist import load_ram
from qmigtool.preflight.loader.state import Undecided, signed
from qmigtool.preflight.loader.words import Refusal
from qmigtool.preflight.target.vcpus import NUMBERED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qmigtool.preflight.loader.state import Load
    from qmigtool.preflight.target.model import TargetSection

__all__ = ["Entry", "Registry", "load_part", "load_start", "vmsd_of"]

MAX_SECTIONS = 1 << 16  # for a target whose sections are not known; a large machine has hundreds
UNKNOWN = (
    "the sections of the target (neither a version nor -dump-vmstate lists the instances of a machine); "
    "give a stream saved by the target"
)
ANY_INSTANCE = 0xFFFFFFFF  # the alias of nearly every device (SaveStateEntry.alias_id is -1)


@dataclass(slots=True)
class Entry:
    """A registered section (``SaveStateEntry``), and the id and version that a stream sends for it.

    ``compat`` is (idstr without the device path, instance among sections of this name), for streams of old machine
    types.
    """

    idstr: str
    instance: int
    section: TargetSection | None
    compat: tuple[str, int] | None = None
    section_id: int | None = None
    version: int = 0
    place: int = 0


@dataclass(slots=True)
class Registry:
    """The sections that a target has registered, in order; ``known`` False: all sections of a stream are assumed."""

    known: bool = True
    count: int = 0
    by_name: dict[tuple[str, int], Entry] = field(default_factory=dict)
    by_id: dict[int, Entry] = field(default_factory=dict)

    @classmethod
    def of(cls, sections: Mapping[tuple[str, int], TargetSection] | None) -> Registry:
        """Create the registry of a target."""
        registry = cls(known=sections is not None)
        counts: dict[str, int] = {}
        for (idstr, instance), section in (sections or {}).items():
            name = vmsd_of(idstr, section)
            compat = None
            if name != idstr:
                compat = name, counts.get(name, 0)
                counts[name] = counts.get(name, 0) + 1
            registry.add(Entry(idstr, instance, section, compat))
        return registry

    def add(self, entry: Entry) -> None:
        """Register a section by its name and its compat name; if several have one name, the first is used."""
        entry.place = self.count
        self.count += 1
        names = [(entry.idstr, entry.instance)] + ([entry.compat] if entry.compat is not None else [])
        for name, instance in names:
            self.by_name.setdefault((name, instance), entry)
            self.by_name.setdefault((name, ANY_INSTANCE), entry)

    def find(self, idstr: str, instance: int) -> Entry | None:
        """Find a section as ``find_se`` does; instance 0xffffffff matches any."""
        return self.by_name.get((idstr, instance))

    def numbered(self, section_id: int) -> Entry | None:
        """Find the section that was sent under this id: the first registered, if several were."""
        found = self.by_id.get(section_id)
        return found if found is not None and found.section_id == section_id else None

    def send(self, entry: Entry, section_id: int, version: int) -> None:
        """Record the id that a stream sends for a section."""
        entry.section_id, entry.version = section_id, version
        other = self.numbered(section_id)
        if other is None or entry.place < other.place:
            self.by_id[section_id] = entry


def vmsd_of(idstr: str, section: TargetSection | None) -> str:
    """Return the name of a section's VMStateDescription: the idstr without the device path."""
    if section is not None and section.vmsd is not None and idstr.endswith(section.vmsd):
        return section.vmsd
    return idstr.rsplit("/", 1)[-1]


def load_start(load: Load, registry: Registry) -> None:
    """Load a START or FULL section, after its type byte."""
    cursor = load.cursor
    start = cursor.pos - 1
    section_id = cursor.be32()
    length = cursor.u8()
    raw = cursor.peek(length)
    cursor.skip(length)
    if not length or len(raw) != length:
        raise load.refuse("section-name", start, section_id=section_id)
    idstr = decode_name(raw.partition(b"\0")[0])  # as in C
    instance, version = cursor.be32(), cursor.be32()
    if cursor.failed:
        raise load.refuse("section-header-cut", start, idstr)
    entry = registry.find(idstr, instance)
    if entry is None and registry.known and vmsd_of(idstr, None) in facts.NOT_ALWAYS_SENT:
        entry = _silent(load, registry, idstr, instance)
    if entry is None:
        if registry.known:
            raise load.refuse("unknown-section", start, idstr, idstr=idstr, instance=instance)
        if _beyond(load, idstr, instance):
            raise load.refuse("unknown-section", start, idstr, idstr=idstr, instance=instance)
        load.doubt(UNKNOWN)
        if registry.count >= MAX_SECTIONS:
            raise Undecided(f"more than {MAX_SECTIONS} sections")
        entry = Entry(idstr, instance, None)
        registry.add(entry)
    if entry.section is not None and version > entry.section.version:
        local = entry.section.version
        raise load.refuse("section-version", start, idstr, idstr=idstr, received=signed(version), local=local)
    registry.send(entry, section_id, version)
    load.started.add(section_id)
    try:
        if entry.idstr == "ram":
            load_ram(load, version)
        else:
            load_body(load, entry.section, idstr, instance, version, section_id)
    except Refusal as refusal:
        refusal.section = idstr
        level = "live" if entry.idstr == "ram" else "device"
        load.words.wrap(refusal, level, instance=instance, idstr=idstr)
        raise
    except Undecided as doubt:
        raise doubt.inside(f"{idstr}@{instance}") from None
    _footer(load, entry)


def _silent(load: Load, registry: Registry, idstr: str, instance: int) -> Entry:
    """Register a section that the target may have but not send, so that no reference contains it."""
    sound = any(vmsd_of(name, section) in facts.SOUND for (name, _), section in (load.target.sections or {}).items())
    if not (idstr == facts.AUDIO and sound):
        load.doubt(
            "whether the target has it, which it does not always send: the target itself decides it",
            f"{idstr}@{instance}",
        )
    entry = Entry(idstr, instance, None)
    registry.add(entry)
    return entry


def _beyond(load: Load, idstr: str, instance: int) -> bool:
    """Whether a section belongs to a vCPU that the target certainly does not have."""
    count = load.target.vcpus
    return count is not None and idstr in NUMBERED and count <= instance != ANY_INSTANCE


def load_part(load: Load, registry: Registry) -> None:
    """Load a PART or END section, after its type byte."""
    cursor = load.cursor
    start = cursor.pos - 1
    section_id = cursor.be32()
    if cursor.failed:
        raise load.refuse("section-id-cut", start)
    entry = registry.numbered(section_id)
    if entry is None:
        raise load.refuse("unknown-section-id", start, signed_id=signed(section_id))
    try:
        if entry.idstr == "ram":
            load_ram(load, entry.version)
        else:
            load_body(load, entry.section, entry.idstr, entry.instance, entry.version, section_id)
    except Refusal as refusal:
        load.words.wrap(refusal, "part", signed_id=signed(section_id), idstr=entry.idstr)
        raise
    _footer(load, entry)


def _footer(load: Load, entry: Entry) -> None:
    """Check the footer; errors name the target's idstr, even if the stream used another name."""
    if not load.is_on("send-section-footer", True):
        return
    cursor = load.cursor
    at = cursor.pos
    section_id = entry.section_id or 0
    values = {"idstr": entry.idstr, "section_id": section_id, "signed_id": signed(section_id)}
    marker = cursor.u8()
    if cursor.failed:
        raise load.refuse("footer-cut", at, entry.idstr, **values)
    if marker != QEMU_VM_SECTION_FOOTER:
        raise load.refuse("footer-missing", at, entry.idstr, **values)
    read = cursor.be32()
    if read != section_id:
        raise load.refuse("footer-id", at, entry.idstr, read=read, **values)
