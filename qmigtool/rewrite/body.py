"""The body of a device section as a tree that can be changed, for edits that move bytes.

A change of a value does not need this: it is a patch at the field's offset. But an added or removed subsection changes
the size of every struct around it, and the vmdesc records each of these sizes. So the tree produces both the bytes and
their description from one state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

from qmigtool.parsers.records import SectionType
from qmigtool.parsers.records import Subsection as SubsectionHead
from qmigtool.parsers.vmdesc import Description, FieldDescription
from qmigtool.parsers.vmstate import inside

__all__ = ["BodyDraft", "EntryDraft"]

MAX_BODIES = 1 << 14  # elements that are decoded: larger arrays stay bytes, none has subsections inside


@dataclass(slots=True)
class EntryDraft:
    """The contents of one entry of ``fields``: the bodies of its elements, or bytes for a leaf."""

    description: FieldDescription
    content: list[BodyDraft] | bytes

    def encode(self) -> bytes:
        """Return the bytes."""
        if isinstance(self.content, bytes):
            return self.content
        return b"".join(body.encode() for body in self.content)

    def describe(self) -> Iterator[FieldDescription]:
        """Yield the description: one entry, or one for each shape among the elements."""
        if isinstance(self.content, bytes) or not self.content:
            yield self.description
            return
        for struct, run in groupby(body.describe() for body in self.content):
            count = len(list(run))
            array_len = count if count > 1 else None
            if count == len(self.content):
                array_len = self.description.array_len
            if self.description.inline:
                yield replace(self.description, size=struct.size, array_len=array_len, inline=(struct,))
            else:
                yield replace(self.description, size=struct.size, array_len=array_len, struct=struct)


@dataclass(slots=True)
class BodyDraft:
    """A body: fields, then subsections. ``path`` leads to it from the device, as paths of fields do."""

    name: str
    version: int
    entries: list[EntryDraft] = field(default_factory=list)
    subsections: list[BodyDraft] = field(default_factory=list)
    path: str = ""

    @classmethod
    def load(cls, description: Description, data: bytes, at: int = 0, path: str = "") -> BodyDraft:
        """Decode the body that ``description`` describes, at ``at`` in ``data``."""
        body = cls(description.name, description.version, path=path)
        prefix = path + "/" if path else ""
        # Consecutive entries with the same name are one array (see parsers/vmstate.py).
        for name, run in groupby(description.fields, key=lambda entry: entry.name):
            entries = list(run)
            single = len(entries) == 1 and entries[0].array_len is None
            index = 0
            for entry in entries:
                inner = inside(entry)
                count = 1 if entry.array_len is None else entry.array_len
                if inner is None or count > MAX_BODIES:
                    content: list[BodyDraft] | bytes = data[at : at + entry.total]
                else:
                    paths = [f"{prefix}{name}" if single else f"{prefix}{name}[{index + i}]" for i in range(count)]
                    content = [cls.load(inner, data, at + i * entry.size, paths[i]) for i in range(count)]
                body.entries.append(EntryDraft(entry, content))
                index += count
                at += entry.total
        for sub in description.subsections:
            at += sub.head_size
            body.subsections.append(cls.load(sub, data, at, prefix + sub.name))
            at += sub.size
        return body

    def encode(self) -> bytes:
        """Return the bytes of the body."""
        out = b"".join(entry.encode() for entry in self.entries)
        for sub in self.subsections:
            out += SubsectionHead(SectionType.QEMU_VM_SUBSECTION, sub.name, sub.version).build() + sub.encode()
        return out

    def describe(self) -> Description:
        """Return the description of the body as it is."""
        return Description.of(
            self.name,
            self.version,
            tuple(one for entry in self.entries for one in entry.describe()),
            tuple(sub.describe() for sub in self.subsections),
        )

    def walk(self) -> Iterator[BodyDraft]:
        """Yield this body and every one inside it."""
        yield self
        for entry in self.entries:
            if not isinstance(entry.content, bytes):
                for body in entry.content:
                    yield from body.walk()
        for sub in self.subsections:
            yield from sub.walk()
