"""Streams with one thing changed by hand: bytes at places that a sample's own section and field table gives."""

from __future__ import annotations

import functools
from collections.abc import Callable

import qmigtool
from qmigtool.devices.schema import built_in
from qmigtool.devices.schema.shapes import find_shape
from qmigtool.parsers.section import Section, Type
from qmigtool.parsers.vmstate import Field
from tests.preflight import recorded
from tests.support import packedsamples, samplefiles

Edit = Callable[["Edited"], None]


def be16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def be32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def be64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def str8(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def subsection(name: str, data: bytes = b"", version: int = 1) -> bytes:
    return b"\x05" + str8(name) + be32(version) + data


def known_subsection(name: str, start: bytes = b"", version: int = 1) -> bytes:
    """A subsection as QEMU sends it: ``start``, and zeros up to its length."""
    shape = find_shape(built_in(), name)
    assert shape is not None
    return subsection(name, start.ljust(shape.size, b"\0"), version)


@functools.cache
def source(name: str) -> bytes:
    """A sample, a packed sample, or a reference, by its name."""
    if name.startswith("t") and name[1:3].isdigit():
        return recorded.reference(name)
    if name in samplefiles.NAMES:
        return samplefiles.read(name)
    return packedsamples.read(name)


@functools.cache
def _stream(name: str) -> qmigtool.Stream:
    return qmigtool.open(source(name))


class Edited:
    """A sample and the changes to it; offsets are those of the sample."""

    def __init__(self, name: str) -> None:
        self.data = source(name)
        self.stream = _stream(name)
        self._changes: list[tuple[int, int, bytes]] = []

    def replace(self, start: int, end: int, data: bytes) -> None:
        self._changes.append((start, end, data))

    def insert(self, at: int, data: bytes) -> None:
        self.replace(at, at, data)

    def put(self, at: int, data: bytes) -> None:
        self.replace(at, at + len(data), data)

    def cut(self, start: int, end: int) -> None:
        self.replace(start, end, b"")

    def result(self) -> bytes:
        out, at = bytearray(), 0
        for start, end, data in sorted(self._changes, key=lambda change: change[:2]):
            assert start >= at, "two changes overlap"
            out += self.data[at:start] + data
            at = end
        return bytes(out + self.data[at:])

    # -- places ----------------------------------------------------------------------------------------------------

    def sections(self, type_: Type | None = None) -> list[Section]:
        return [one for one in self.stream.sections if type_ is None or one.type is type_]

    def section(self, name: str, instance: int = 0, type_: Type | None = None) -> Section:
        return next(
            one
            for one in self.stream.sections
            if one.name == name and one.instance_id == instance and (type_ is None or one.type is type_)
        )

    def one(self, type_: Type) -> Section:
        return next(one for one in self.stream.sections if one.type is type_)

    def one_start(self) -> Section:
        """The START of RAM."""
        return self.one(Type.START)

    def raw(self, section: Section) -> bytes:
        return self.data[section.offset : section.end]

    def field(self, path: str) -> Field:
        return self.stream.field(path)

    def devices(self) -> list[Section]:
        return self.sections(Type.FULL)

    # -- changes that several cases make -----------------------------------------------------------------------------

    def set(self, path: str, value: int) -> None:
        field = self.field(path)
        self.put(field.offset, (value & (1 << 8 * field.length) - 1).to_bytes(field.length, "big"))

    def machine(self, name: str, config: bytes = b"") -> None:
        config_section = self.one(Type.CONFIGURATION)
        self.replace(config_section.body_offset, config_section.end, be32(len(name)) + name.encode() + config)

    def configure(self, config: bytes) -> None:
        self.insert(self.one(Type.CONFIGURATION).end, config)

    def drop(self, *sections: Section) -> None:
        for one in sections:
            self.cut(one.offset, one.end)

    def before(self, name: str, data: bytes) -> None:
        self.insert(self.section(name).offset, data)

    def version(self, section: Section, version: int) -> None:
        self.put(section.body_offset - 4, be32(version))

    def rename(self, section: Section, name: str) -> None:
        assert section.name is not None
        start = section.offset + 5
        self.replace(start, start + 1 + len(section.name), str8(name))

    def append(self, section: Section, data: bytes) -> None:
        """Put bytes at the end of a body."""
        self.insert(section.body_offset + section.body_length, data)

    def block(self, name: str) -> tuple[int, int]:
        """Where a block's entry of the RAM list begins and ends."""
        found = next(one for one in self.stream.ram_blocks if one.idstr == name)
        return found.offset, found.offset + 1 + len(name) + 8

    def length(self, name: str, length: int) -> None:
        """Change a block's length in the list, and the total with it."""
        _, end = self.block(name)
        old = int.from_bytes(self.data[end - 8 : end], "big")
        self.put(end - 8, be64(length))
        self.total(length - old)

    def total(self, more: int) -> None:
        at = self.section("ram", type_=Type.START).body_offset
        self.put(at, be64(int.from_bytes(self.data[at : at + 8], "big") + more))

    def first_record(self) -> int:
        return self.section("ram", type_=Type.PART).body_offset

    def last_record(self) -> int:
        """The offset of the EOS of the first PART."""
        part = self.section("ram", type_=Type.PART)
        return part.body_offset + part.body_length - 8

    def record(self, data: bytes) -> None:
        """Put a record at the end of the first PART, before its EOS."""
        self.insert(self.last_record(), data)
