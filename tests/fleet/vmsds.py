"""Read the VMStateDescriptions from a QEMU binary: name, versions, subsections and fields of each.

    python -m tests.fleet vmsds TABLE.json 5.2=qemu-system-x86_64 ...

The table is rewritten; a name from another source (``-dump-vmstate``, which also has the descriptions in modules) stays
if the binary does not have it.

``-dump-vmstate`` prints only those of devices; the binary's data also has ``cpu`` and others that belong to no device
class. A VMStateDescription is recognised by its form: a pointer to a name, small numbers, pointers to functions, a
pointer to an array of fields, each with a name and a VMStateInfo or a VMStateDescription. The offsets of the members
differ between versions (include/migration/vmstate.h); the pointers are the relocations of a PIE.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

MAX_FIELDS = 400
R_X86_64_RELATIVE = 8
VMS_ARRAY, VMS_PLAIN = 0x4, 0x27  # single, pointer, array, buffer
PLAIN = frozenset(
    {
        *("bool", "buffer", "unused_buffer", "timer"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    }
)
VMS_MUST_EXIST = 0x1000  # a check, without contents


class _Layout(NamedTuple):
    """The offsets of the members of VMStateDescription and VMStateField, in words; ``size`` is that of a field."""

    priority: tuple[int, int]
    """(word, shift)"""
    needed: int
    fields: int
    subsections: int
    info: int
    size: int


_OLD = _Layout((2, 32), 7, 9, 10, 8, 13)
VERSIONS = ("5.2", "7.2", "10.0", "11.1")
LAYOUTS = {
    "5.2": _Layout((3, 0), 9, 11, 12, 8, 13),
    "7.2": _OLD,
    "10.0": _OLD,
    "11.1": _Layout((2, 32), 10, 12, 13, 7, 12),
}


class Field(NamedTuple):
    """A VMStateField; ``exists`` means that it has a condition, ``inner`` is the address of its description."""

    name: str
    type: str | None
    size: int
    num: int
    flags: int
    version: int
    exists: bool
    inner: int | None


class Description(NamedTuple):
    """A VMStateDescription; ``subsections`` are addresses."""

    name: str
    version: int
    minimum: int
    unmigratable: bool
    fields: tuple[Field, ...]
    subsections: tuple[int, ...]


class Binary:
    """An x86-64 PIE: its data, and its pointers."""

    def __init__(self, path: Path) -> None:
        self._data = data = path.read_bytes()
        headers = struct.unpack_from("<Q", data, 0x20)[0]
        count = struct.unpack_from("<H", data, 0x38)[0]
        program = [struct.unpack_from("<IIQQQQQQ", data, headers + 56 * i) for i in range(count)]
        self._segments = [(one[3], one[2], one[5]) for one in program if one[0] == 1]
        self.pointers = dict(self._relocations())

    def _relocations(self) -> Iterator[tuple[int, int]]:
        data = self._data
        headers, count, names = (
            struct.unpack_from("<Q", data, 0x28)[0],
            *struct.unpack_from("<H", data, 0x3C),
            *struct.unpack_from("<H", data, 0x3E),
        )
        sections = [struct.unpack_from("<IIQQQQIIQQ", data, headers + 64 * i) for i in range(count)]
        strings = sections[names][4]
        for section in sections:
            name = data[strings + section[0] : data.index(b"\0", strings + section[0])]
            if name == b".rela.dyn":
                table = data[section[4] : section[4] + section[5]]
                for offset, info, addend in struct.iter_unpack("<QQq", table):
                    if info & 0xFFFFFFFF == R_X86_64_RELATIVE:
                        yield offset, addend

    def _offset(self, address: int) -> int | None:
        found = (address - start + offset for start, offset, size in self._segments if start <= address < start + size)
        return next(found, None)

    def words(self, address: int, count: int) -> tuple[int, ...]:
        """Return 64-bit words, or an empty tuple."""
        at = self._offset(address)
        return (
            () if at is None or at + 8 * count > len(self._data) else struct.unpack_from(f"<{count}Q", self._data, at)
        )

    def text(self, address: int | None) -> str | None:
        """Return the text at an address, if there is one."""
        at = None if address is None else self._offset(address)
        if at is None:
            return None
        text = self._data[at : self._data.find(b"\0", at, at + 80)]
        return text.decode() if text and all(32 <= byte < 127 for byte in text) else None


def descriptions(path: Path, version: str) -> dict[int, Description]:
    """Find all descriptions in a binary, by address."""
    layout, binary = LAYOUTS[version], Binary(path)
    found = {}
    for address in binary.pointers:
        one = _description(binary, address, layout)
        if one is not None:
            found[address] = one
    return {
        address: one
        for address, one in found.items()
        if all(part.type is not None or part.inner in found or part.flags & VMS_MUST_EXIST for part in one.fields)
    }


def _description(binary: Binary, address: int, layout: _Layout) -> Description | None:
    pointers = binary.pointers
    name = binary.text(pointers[address])
    words = binary.words(address, layout.subsections + 1)
    if name is None or not words or address + 8 in pointers or address + 16 in pointers:
        return None
    flags, version, minimum = words[1] & 0xFFFFFFFF, words[1] >> 32, words[2] & 0xFFFFFFFF
    word, shift = layout.priority
    priority = words[word] >> shift & 0xFFFFFFFF
    first = word + 1
    callbacks = all(words[i] == 0 or address + 8 * i in pointers for i in range(first, layout.subsections + 1))
    if flags not in (0, 1, 0x100) or version > 100_000 or minimum > version or priority > 16 or not callbacks:
        return None
    fields = tuple(_fields(binary, pointers.get(address + 8 * layout.fields), layout))
    if not fields and (flags != 1 if address + 8 * layout.fields not in pointers else "/" not in name):
        return None
    return Description(
        name,
        version,
        minimum,
        flags == 1,
        fields,
        tuple(_array(binary, pointers.get(address + 8 * layout.subsections))),
    )


def _fields(binary: Binary, address: int | None, layout: _Layout) -> Iterator[Field]:
    for _ in range(MAX_FIELDS):
        if address is None or address not in binary.pointers:
            return
        name = binary.text(binary.pointers[address])
        words = binary.words(address, layout.size)
        if name is None or not words:
            return
        at, info = layout.info, binary.pointers.get(address + 8 * layout.info)
        yield Field(
            name=name,
            type=binary.text(binary.pointers.get(info)) if info is not None else None,
            size=words[at - 5],
            num=words[at - 3] & 0xFFFFFFFF,
            flags=words[at + 1] & 0xFFFFFFFF,
            version=words[at + 3] & 0xFFFFFFFF,
            exists=address + 8 * (layout.size - 1) in binary.pointers,
            inner=binary.pointers.get(address + 8 * (at + 2)),
        )
        address += 8 * layout.size


def _array(binary: Binary, address: int | None) -> Iterator[int]:
    while address is not None and address in binary.pointers:
        yield binary.pointers[address]
        address += 8


def rows(path: Path, version: str) -> dict[str, list[Any]]:
    """Return [version, minimum version, subsections...] by name; None where descriptions of one name differ."""
    found = descriptions(path, version)
    named: dict[str, list[Description]] = {}
    # Data without fields that cannot be migrated may match by chance.
    for one in sorted(found.values(), key=lambda one: not one.fields):
        if one.fields or "/" in one.name or (one.name not in named and (one.version, one.minimum) == (0, 0)):
            named.setdefault(one.name, []).append(one)
    return {
        name: [
            *(
                values.pop() if len(values) == 1 else None
                for values in ({o.version for o in ones}, {o.minimum for o in ones})
            ),
            *sorted({found[at].name for one in ones for at in one.subsections if at in found}),
        ]
        for name, ones in sorted(named.items())
    }


def fields(path: Path, version: str) -> dict[str, dict[str, int]]:
    """Return field -> its first version, by name, of descriptions that can be loaded in an older version.

    Fields of one name are numbered as in a parsed vmdesc: ``cmdbuf[0]``. Descriptions of one name that differ are
    omitted, and so are descriptions without a field that has a version: all their fields are in every body.
    """
    found: dict[str, list[dict[str, int]]] = {}
    for one in descriptions(path, version).values():
        if one.version > one.minimum and one.fields:
            found.setdefault(one.name, []).append(dict(_versions(one)))
    return {name: ones[0] for name, ones in sorted(found.items()) if all(one == ones[0] for one in ones)}


def _versions(one: Description) -> Iterator[tuple[str, int]]:
    counts = Counter(part.name for part in one.fields)
    seen: Counter[str] = Counter()
    for part in one.fields:
        if part.version:
            yield (part.name if counts[part.name] == 1 else f"{part.name}[{seen[part.name]}]"), part.version
        seen[part.name] += 1


def shapes(path: Path, version: str) -> dict[str, list[list[Any]]]:
    """Return [field, type, bytes of an element, elements or null] by name, of subsections of constant length."""
    found: dict[str, list[list[Any]]] = {}
    for one in descriptions(path, version).values():
        plain = [[f.name, f.type, f.size, f.num if f.flags & VMS_ARRAY else None] for f in one.fields]
        if "/" in one.name and one.fields and not one.subsections and all(map(_plain, one.fields)):
            found[one.name] = plain if found.get(one.name, plain) == plain else []
    return found


def _plain(part: Field) -> bool:
    """Return whether a field is in every body, with a constant length."""
    count = part.num if part.flags & VMS_ARRAY else 1
    return part.type in PLAIN and not (part.exists or part.version or part.flags & ~VMS_PLAIN) and part.size * count > 0


def main(target: str, *binaries: str) -> None:
    """Rewrite the table."""
    path = Path(target)
    document = json.loads(path.read_text())
    builds = [".".join(build.split(".")[:2]) for build in document["builds"]]
    given = dict(one.split("=", 1) for one in binaries)
    tables = {version: rows(Path(given[version]), version) for version in VERSIONS if version in given}
    known = set(document["vmsds"])
    names = known | {name for table in tables.values() for name, row in table.items() if row != [0, 0]}
    lines = []
    for name in sorted(names):
        before = document["vmsds"].get(name, [None])
        old = dict(zip(builds, before * len(builds) if len(before) == 1 else before, strict=True))
        columns = [tables.get(version, {}).get(name, old.get(version)) for version in VERSIONS]
        columns = columns[:1] if all(one == columns[0] for one in columns) else columns
        lines.append(f"{json.dumps(name)}: {json.dumps(columns)}")
    text = ",\n".join(lines)
    since = ",\n".join(_since({version: fields(Path(given[version]), version) for version in VERSIONS}))
    forms = ",\n".join(_shapes([shapes(Path(given[version]), version) for version in VERSIONS]))
    path.write_text(
        f'{{\n"builds": {json.dumps(list(VERSIONS))},\n"vmsds": {{\n{text}\n}},\n"fields": {{\n{since}\n}},\n'
        f'"shapes": {{\n{forms}\n}}\n}}\n'
    )


def _shapes(tables: list[dict[str, list[list[Any]]]]) -> Iterator[str]:
    """Yield the lines of the shapes of subsections that are equal in all versions that have them."""
    for name in sorted({name for table in tables for name in table}):
        ones = [table[name] for table in tables if name in table]
        if ones[0] and all(one == ones[0] for one in ones):
            yield f"{json.dumps(name)}: {json.dumps(ones[0])}"


def _since(tables: dict[str, dict[str, dict[str, int]]]) -> Iterator[str]:
    """Yield the lines of the versions of fields, like those of descriptions: one column, or one for each version."""
    for name in sorted({name for table in tables.values() for name in table}):
        columns = [tables[version].get(name) for version in VERSIONS]
        columns = columns[:1] if all(one == columns[0] for one in columns) else columns
        yield f"{json.dumps(name)}: {json.dumps(columns)}"
