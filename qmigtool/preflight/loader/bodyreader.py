"""A body as the target reads it, vmsd by vmsd (``vmstate_load_state`` in ``migration/vmstate.c``).

A body has no tags, so the target reads it by its own description, not by the stream's: the description of a body that
the target saved. A difference shows up where something else is expected, usually at the footer. The target's body also
has the values that are compared: fields that must be equal, and PCI configuration space.

Not everything can be read that way. A device that loads itself by older functions has no description, and in the
target's body a list may be empty and a pointer null: then :class:`Opaque` is raised.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qmigtool.parsers.record import decode_name, encode_name
from qmigtool.parsers.records import QEMU_VM_SECTION_FOOTER, SectionType
from qmigtool.parsers.vmstate import INTEGERS, decode_value, inside
from qmigtool.preflight.loader import esp as esp_fields
from qmigtool.preflight.loader import fieldfacts as facts
from qmigtool.preflight.loader.armregisters import OWN
from qmigtool.preflight.loader.hooks import HOOKS, LISTED, PLACED, RECORDED
from qmigtool.preflight.loader.lengths import VARIABLE
from qmigtool.preflight.loader.pciconfig import compare_config
from qmigtool.preflight.loader.shapes import any_element, known_shapes
from qmigtool.preflight.loader.virtio import Strange, cut_virtio, load_virtio
from qmigtool.preflight.loader.words import Refusal
from qmigtool.preflight.target.machines import is_x86
from qmigtool.util.budget import current

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qmigtool.parsers.vmdesc import Description, FieldDescription
    from qmigtool.preflight.loader.state import Load
    from qmigtool.preflight.target.model import TargetSection, TargetVmsd

__all__ = ["BodyReader", "Opaque", "Own"]

SMALL = 256  # maximum size of a value that is kept for later
MAX_COUNT = 1 << 20  # elements; no list of registers is longer


class Opaque(Exception):  # noqa: N818 - a signal
    """The rest of this body cannot be read by a description."""


@dataclass(slots=True)
class Own:
    """A position in the target's own body: ``data`` from ``at`` on; None if it has nothing there."""

    data: bytes | None
    at: int = 0

    def take(self, size: int) -> bytes | None:
        """Return the next bytes and skip them."""
        found = self.peek(size)
        self.at += size
        return found

    def peek(self, size: int) -> bytes | None:
        """Return the next bytes without skipping them; None if there are none."""
        return self.data[self.at : self.at + size] if self.data is not None else None

    def inner(self) -> Own:
        """Return a copy of this position that advances independently."""
        return Own(self.data, self.at)


@dataclass(slots=True)
class BodyReader:
    """One body that is being read; ``values`` has the plain fields that are needed later."""

    load: Load
    section: TargetSection
    label: str
    instance: int
    section_id: int
    values: dict[str, Any] = field(default_factory=dict)
    place: str = ""
    """The path of the struct that is being read."""
    read: set[tuple[str, str]] = field(default_factory=set)
    """(vmsd, field) of each field whose reading has begun."""
    places: dict[int, tuple[Description, dict[str, tuple[Description, int]]]] = field(default_factory=dict)
    """Identity of a description, which is valid as long as the description is kept -> its subsections."""
    shaky: str = ""
    """A field that was skipped by an assumed length: nothing after it can decide anything."""

    # -- one vmsd ------------------------------------------------------------------------------------------------

    def state(self, description: Description, version: int, own: Own) -> None:
        """Read the fields and subsections of one vmsd, in a body of ``version``."""
        load, vmsd = self.load, description.name
        current().charge("objects", 1 + len(description.fields), load.cursor.pos, vmsd)
        current().tick(load.cursor.pos, vmsd)
        local, minimum = self.versions(description)
        start = load.cursor.pos
        if version > local:
            raise load.refuse("version-too-new", start, vmsd=vmsd, received=version, local=local)
        if version < minimum:
            raise load.refuse("version-too-old", start, vmsd=vmsd, received=version, local=minimum)
        since = self.since(vmsd) if version < local else {}
        tells, dependent, size = facts.CONDITIONAL.get(vmsd, ("", "", 0))
        esp = self.esp(vmsd, local)
        not_sent = {dependent} if esp is None else esp_fields.not_sent(esp)
        names = [entry.name for entry in description.fields]
        marked = _marked(description, own)
        for entry in description.fields:
            place, behind = own.inner(), own.at + entry.total
            if entry.type == "ptr-marker":
                self.pointers(entry, description)
            elif entry.name in marked:
                pass  # read after its mark
            elif since.get(entry.name, 0) <= version and entry.name not in not_sent:
                name = facts.plain_name(entry.name, description)
                self.field(vmsd, name, entry, place)
                if (vmsd, name) in facts.VALIDATED:
                    self.validate(vmsd, name, own.peek(entry.total), local)
                if name == tells and self.values.get(f"{vmsd}/{name}"):
                    load.cursor.skip(size)
            if esp is not None:
                load.cursor.skip(esp_fields.more_behind(entry.name, esp, names))
            own.at = behind
        self.subsections(description, own)
        hook = HOOKS.get(vmsd)
        if hook is not None:
            hook(load, self.values, {"vmsd": vmsd, "version": local, "minimum": minimum}, self.instance)

    def esp(self, vmsd: str, local: int) -> int | None:
        """Return the version whose fields of ``esp`` are read; None if that is the target's own."""
        shape = self.section.description
        if vmsd != esp_fields.VMSD or shape is None or all(one.name != esp_fields.SENT for one in shape.fields):
            return None
        version = esp_fields.effective(self.values, local)
        return version if version < local else None

    def versions(self, description: Description) -> tuple[int, int]:
        """Return the version and the minimum version of a vmsd of the target; an unknown minimum is 0."""
        table = self.vmsd(description.name)
        if description is self.section.description:
            minimum = self.section.minimum_version
            if minimum is None and table is not None:
                minimum = table.minimum_version
            return self.section.version, minimum or 0
        version = table.version if table is not None and table.version is not None else description.version
        return version, (table.minimum_version or 0) if table is not None else 0

    def vmsd(self, name: str) -> TargetVmsd | None:
        """Return what is known of a vmsd of the target."""
        return (self.load.target.vmsds or {}).get(name)

    def since(self, name: str) -> Mapping[str, int]:
        """Return the first version of each field of a vmsd."""
        table = self.vmsd(name)
        found = table.field_versions if table is not None else None
        if found is None and (name not in facts.X86_ONLY or is_x86(self.load.target)):
            found = facts.SINCE.get(name)
        if found is None:
            raise Opaque(
                f"the fields of {name} in this older version are unknown; the target's -dump-vmstate decides it"
            )
        return found

    # -- fields --------------------------------------------------------------------------------------------------

    def field(self, vmsd: str, name: str, entry: FieldDescription, own: Own) -> None:
        """Read all elements of a field; an error inside it names the field."""
        start = self.load.cursor.pos
        self.read.add((vmsd, entry.name))
        try:
            self.elements(vmsd, name, entry, own)
            if self.load.cursor.failed:
                raise self.load.refuse("body-cut", start, vmsd=vmsd)
        except Refusal as refusal:
            self.load.words.wrap(refusal, "field", vmsd=vmsd, field=name)
            raise

    def validate(self, vmsd: str, name: str, own: bytes | None, version: int) -> None:
        """Compare the field that has just been read, if the target's version does."""
        check = facts.VALIDATED[vmsd, name]
        if own and self.load.since(facts.VALIDATES):
            at = self.load.cursor.pos - len(own)
            if bytes(self.load.cursor.data[at : at + len(own)]) != own:
                raise self.load.refuse("validation", at, vmsd=vmsd, field=check, version=version)

    def elements(self, vmsd: str, name: str, entry: FieldDescription, own: Own) -> None:
        """Read the elements of a field."""
        load = self.load
        known = 1 if entry.array_len is None else entry.array_len
        count = self.count(vmsd, entry, known, own)
        inner = inside(entry)
        if (inner is None and entry.type in INTEGERS) or entry.type in facts.FIXED:
            self.leaves(vmsd, name, entry, own, count)
            return
        for index in range(count):
            if not index & 0xFF:
                current().charge("objects", min(0x100, count - index), load.cursor.pos, name)
                current().tick(load.cursor.pos, name)
            place = Own(own.data, own.at + index * entry.size) if index < known else Own(None)
            if inner is not None:
                outer = self.place
                self.place += f"{name}/" if entry.array_len is None else f"{name}[{index}]/"
                self.state(inner, inner.version, place)
                self.place = outer
            elif entry.type in facts.LISTS:
                self.list_of(entry)
            elif entry.type in ("struct", "tmp", "vstruct"):
                load.cursor.skip(entry.size)
            elif entry.type in VARIABLE:
                if not VARIABLE[entry.type](load.cursor):
                    raise Opaque(f"the format of {name} ({entry.type}) is unknown")
            else:
                self.foreign(name, entry, place)
            if load.cursor.failed:
                return

    def count(self, vmsd: str, entry: FieldDescription, known: int, own: Own) -> int:
        """Return the number of elements of an array in this body: with few exceptions that of the target's own."""
        key = vmsd, entry.name
        if key in facts.COUNTED and not (key in facts.COUNTED_BEFORE and self.load.since(facts.COUNTED_BEFORE[key])):
            received = self.values.get(facts.COUNTED[key], known)
            return received if isinstance(received, int) and 0 <= received <= MAX_COUNT else known
        if key in facts.PER_VCPU and own.data is None:
            if self.load.target.maxcpus is None:
                raise Opaque(
                    f"the number of vCPUs of {vmsd} in the target is unknown; `maxcpus` of a TOML target decides it"
                )
            return self.load.target.maxcpus
        return known

    def pointers(self, entry: FieldDescription, description: Description) -> None:
        """Read pointers, each after a mark of whether it is null (VMSTATE_ARRAY_OF_POINTER since 11.0)."""
        shapes = [other for other in description.fields if other.name == entry.name and other.type == "struct"]
        shape = inside(shapes[0]) if shapes else None
        for _ in range(1 if entry.array_len is None else entry.array_len):
            marker = self.load.cursor.take(1)
            if marker == b"1" and shape is None:
                raise Opaque(
                    f"the format that {entry.name} points to is unknown: the pointer is null in the target's state"
                )
            if marker == b"1" and shape is not None:
                self.state(shape, shape.version, Own(None))
            elif marker != b"0":
                # A vmdesc loses a change of its last element, so the number of elements is uncertain.
                raise Opaque(f"the number of pointers in {entry.name} is unknown; the target itself decides it")

    def leaves(self, vmsd: str, name: str, entry: FieldDescription, own: Own, count: int) -> None:
        """Read plain values: all at once, unless each of them is compared."""
        load, type_ = self.load, entry.type
        size = facts.SIZED.get((vmsd, name))
        if size is not None:
            load.cursor.skip(max(0, int(self.values.get(f"{vmsd}/{size}", self.values.get(size, entry.size)))))
            return
        if not type_.endswith((" equal", " le")) and type_ not in facts.LOOKED_AT:
            length = entry.size * count
            if vmsd in RECORDED and (length <= SMALL or (vmsd, name) in LISTED):
                if (vmsd, name) in LISTED:
                    self.values[OWN + name] = own.peek(entry.total)
                self.record(vmsd, name, entry, load.cursor.take(length))
            else:
                load.cursor.skip(length)
            return
        for _ in range(count):
            at = load.cursor.pos
            raw, mine = load.cursor.take(entry.size), own.take(entry.size)
            if load.cursor.failed:
                return
            if type_ == "pci irq state":
                words = [int.from_bytes(raw[i : i + 4], "big", signed=True) for i in range(0, len(raw), 4)]
                if bad := [word for word in words if word not in (0, 1)]:
                    raise load.refuse("irq-state", at, received=bad[0])
            elif type_ == "nullptr":
                if raw != b"0":
                    raise load.refuse("null-pointer", at)
            elif mine is None:
                load.doubt(
                    f"{vmsd}:{name} must equal the target's: a reference stream that contains it decides it", self.label
                )
            elif type_ == "pci config":
                compare_config(load, raw, mine, at)
            else:
                self.compare(type_, raw, mine, at)
            if vmsd in RECORDED and entry.array_len is None:
                self.record(vmsd, name, entry, raw)

    def record(self, vmsd: str, name: str, entry: FieldDescription, raw: bytes) -> None:
        """Store a value by its name, or by its vmsd and name in a subsection, or by its path in one of ``PLACED``."""
        value = decode_value(entry.type, raw) if entry.array_len is None else raw
        if vmsd in PLACED:
            self.values[self.place + name] = value
        else:
            self.values[name if vmsd == self.section.vmsd else f"{vmsd}/{name}"] = value

    def compare(self, type_: str, raw: bytes, mine: bytes, at: int) -> None:
        """Compare a value that must equal the target's, or not exceed it."""
        received, local = decode_value(type_, raw), decode_value(type_, mine)
        if not isinstance(received, int) or not isinstance(local, int):
            return
        if type_.endswith(" le"):
            if not 0 <= received <= local:
                raise self.load.refuse("not-less-or-equal", at, received=received, local=local)
        elif received != local:
            mask = (1 << 8 * len(raw)) - 1
            raise self.load.refuse("not-equal", at, received=received & mask, local=local & mask)

    def list_of(self, entry: FieldDescription) -> None:
        """Read a list: 01 before each element, 00 after the last."""
        load = self.load
        shape = any_element(entry)
        while load.cursor.u8():
            if load.cursor.failed:
                return
            if shape is None:
                raise Opaque(f"the format of the list {entry.name} is unknown: it is empty in the target's state")
            self.state(shape, shape.version, Own(None))

    def foreign(self, name: str, entry: FieldDescription, own: Own) -> None:
        """Read a field that a device loads by its own functions, as far as possible; else the body is undecided."""
        if entry.type == "virtio":
            try:
                load_virtio(self.load, own.take(entry.size), self.label, self.section.vmsd)
            except Strange as strange:
                raise Opaque(f"virtio: {strange}; the target itself decides it") from None
            if self.load.cursor.failed:
                self.load.note("the file ends in this section: QEMU prints more messages, from inside it", self.label)
                raise cut_virtio(self.load)
            return
        if entry.type == "virtio-gpu" and not any(self.load.cursor.peek(4)) and not any(own.peek(4) or b"\1"):
            self.load.cursor.skip(entry.size)  # neither has resources
            return
        self.load.doubt(f"{name} ({entry.type}) is in a device-specific format", self.label)
        self.load.cursor.skip(entry.size)
        self.shaky = name

    # -- subsections ---------------------------------------------------------------------------------------------

    def subsections(self, description: Description, own: Own) -> None:
        """Read every subsection whose name begins with this vmsd's, in any order."""
        load, vmsd = self.load, description.name
        cursor = load.cursor
        prefix = encode_name(vmsd)
        while cursor.look() == SectionType.QEMU_VM_SUBSECTION:
            head = cursor.peek(2)
            if len(head) < 2:
                return
            raw = cursor.peek(head[1], 2)
            if len(raw) != head[1] or head[1] < len(prefix) + 1 or not raw.startswith(prefix):
                return
            at, name = cursor.pos, decode_name(raw.partition(b"\0")[0])
            if self.knows(description, name) is False:
                raise load.refuse("unknown-subsection", at, name=name, vmsd=vmsd)
            cursor.skip(2 + head[1])
            version = cursor.be32() & 0xFF  # QEMU keeps eight bits of it
            shape, place = self.shape(description, name, own)
            try:
                self.state(shape, version, place)
            except Refusal as refusal:
                load.words.wrap(refusal, "subsection", name=name, vmsd=vmsd)
                raise

    def knows(self, description: Description, name: str) -> bool | None:
        """Return whether the target has this subsection; None if that is not known."""
        if name in self.sent_by_target(description):
            return True
        table = self.vmsd(description.name)
        names = table.subsections if table is not None else None
        if description is self.section.description and self.section.subsections is not None:
            names = self.section.subsections | (names or frozenset())
        if names is not None and name in names:
            return True
        if names is not None and (table is None or name not in table.maybe):
            return False
        self.load.doubt(
            f"whether the target knows the subsection {name}: its version or its -dump-vmstate decides it", self.label
        )
        return None

    def sent_by_target(self, description: Description) -> dict[str, tuple[Description, int]]:
        """Return the subsections that the target has sent, by name, with the offset of each body after the fields."""
        if id(description) not in self.places:
            found: dict[str, tuple[Description, int]] = {}
            at = 0
            for sub in description.subsections:
                found.setdefault(sub.name, (sub, at + sub.head_size))
                at += sub.head_size + sub.size
            self.places[id(description)] = description, found
        return self.places[id(description)][1]

    def shape(self, description: Description, name: str, own: Own) -> tuple[Description, Own]:
        """Find the shape of a subsection, and the target's own body of it if it has sent one."""
        own_place = self.sent_by_target(description).get(name)
        if own_place is not None:
            return own_place[0], Own(own.data, own.at + own_place[1])
        shapes = known_shapes(name)
        if not shapes:
            table, sent = self.vmsd(name), self.sent(name)
            if sent is not None and table is not None and table.version == sent.version:
                return sent, Own(None)  # a version of a subsection has one shape
            raise Opaque(f"the format of the subsection {name} is unknown")
        if len(shapes) > 1:
            fitting = [shape for shape in shapes if self.ends(shape.size)]
            if len(fitting) != 1:
                raise Opaque(
                    f"the target's length of {name} is unknown; a reference stream that contains it decides it"
                )
            return fitting[0], Own(None)
        return shapes[0], Own(None)

    def sent(self, name: str) -> Description | None:
        """Return the description of a subsection in the stream's own vmdesc, if there is one."""
        idstr, _, instance = self.label.rpartition("@")
        found = self.load.memory.description(idstr, int(instance))
        waiting = [] if found is None else [found]
        while waiting:
            one = waiting.pop()
            for sub in one.subsections:
                if sub.name == name:
                    return sub
            waiting += one.subsections
            waiting += [shape for entry in one.fields if (shape := inside(entry)) is not None]
        return None

    def ends(self, size: int) -> bool:
        """Return whether a footer or another subsection follows after so many bytes."""
        ahead = self.load.cursor.peek(2, size)
        return ahead[:1] == bytes([QEMU_VM_SECTION_FOOTER]) or (
            ahead[:1] == bytes([SectionType.QEMU_VM_SUBSECTION]) and ahead[1:] != b"\0"
        )


def _marked(description: Description, own: Own) -> set[str]:
    """Return the arrays of pointers in which every pointer has a mark, not only null ones.

    The target's own body shows it: VMSTATE_ARRAY_OF_POINTER_TO_STRUCT_ALLOC and similar macros write a mark 1; other
    arrays (``css`` of s390_css) have no mark before a pointer that is not null.
    """
    found, at = set(), own.at
    for entry in description.fields:
        if entry.type == "ptr-marker" and own.data is not None and b"1" in own.data[at : at + entry.total]:
            found.add(entry.name)
        at += entry.total
    return found
