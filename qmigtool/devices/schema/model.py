"""The contents of a schema, learning one, and its JSON."""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from qmigtool.devices.schema.cpusection import derived_shapes
from qmigtool.errors import LimitError, StreamError
from qmigtool.parsers.vmdesc import Description, FieldDescription, Vmdesc, parse_vmdesc
from qmigtool.parsers.vmdescspans import MAX_ARRAY, MAX_DEPTH, MAX_NUMBER, MAX_WORD
from qmigtool.util.documents import load_json
from qmigtool.util.files import open_input

__all__ = ["Node", "NodeField", "Schema", "Variant", "built_in", "learn", "load", "load_file"]

FORMAT = 1
MAX_TEXT = 16 << 20  # bytes of a schema's JSON; the built-in one has 0.15 MB
MAX_MEMORY = 64 << 20  # for decompressing: xz -9 needs 65 MB to compress, and 9 to decompress small files


@dataclass(slots=True, eq=False)
class NodeField:
    """A field of a shape; ``structs`` are the known shapes of its struct, empty for other types."""

    name: str
    type: str
    size: int
    array_len: int | None
    structs: list[Node]
    inline: tuple[Description, ...]


@dataclass(slots=True, eq=False)
class Node:
    """One shape of a description: its fields, and every subsection that has been seen after them."""

    name: str
    version: int
    fields: list[NodeField]
    subsections: list[Node]


@dataclass(slots=True, eq=False)
class Variant:
    """A shape of a device's body, and the machine types of the streams that had it."""

    node: Node
    machines: list[str]


@dataclass(slots=True)
class Schema:
    """Shapes of device bodies: (vmsd name, section version) -> variants; ``name`` is their source."""

    name: str = "learned"
    devices: dict[tuple[str, int], list[Variant]] = field(default_factory=dict)

    def add(self, vmdesc: Vmdesc, machine: str | None) -> None:
        """Learn from the description of one stream."""
        for device in vmdesc.devices:
            description = device.description
            vmsd = _old_style_name(device.idstr) if device.old_style else description.name
            self.add_description(vmsd, description, machine or "")

    def add_description(self, vmsd: str, description: Description, machine: str) -> None:
        """Learn one body."""
        variants = self.devices.setdefault((vmsd, description.version), [])
        nodes = [variant.node for variant in variants]
        node = _absorb(nodes, description)
        if len(nodes) > len(variants):
            variants.append(Variant(node, []))
        machines = next(variant for variant in variants if variant.node is node).machines
        if machine and machine not in machines:
            machines.append(machine)

    def variants(self, idstr: str, version: int) -> list[Variant]:
        """Return the shapes for a section, by the last part of its idstr (a device path may precede it)."""
        return self.devices.get((idstr, version)) or self.devices.get((idstr.rsplit("/", 1)[-1], version)) or []

    def to_json(self) -> str:
        """Write the schema: every shape once, referred to by number."""
        writer = _Writer()
        devices = [
            [name, version, [[writer.node(v.node), v.machines] for v in variants]]
            for (name, version), variants in sorted(self.devices.items())
        ]
        document = {"schema": FORMAT, "name": self.name, "shapes": writer.rows, "devices": devices}
        return json.dumps(document, separators=(",", ":"))

    def to_file(self, name: str) -> bytes:
        """Return what a schema file of this name contains, compressed for ``.xz``; :func:`load_file` reads it."""
        text = self.to_json().encode()
        return lzma.compress(text) if name.endswith(".xz") else text

    def summary(self) -> dict[str, int]:
        """Return the numbers of devices, and of shapes of their bodies."""
        return {"devices": len(self.devices), "shapes": sum(map(len, self.devices.values()))}


def learn(streams: Iterable[tuple[Vmdesc, str | None]], name: str = "learned") -> Schema:
    """Learn a schema from (vmdesc, machine type) pairs."""
    schema = Schema(name)
    for vmdesc, machine in streams:
        schema.add(vmdesc, machine)
    return schema


@cache
def built_in() -> Schema:
    """Return the schema that ships with the package."""
    folder = resources.files("qmigtool.devices.schema")
    schema = load(lzma.decompress(folder.joinpath("x86.json.xz").read_bytes()).decode())
    # The learned streams do not have every subsection of an x86 CPU; target/i386/machine.c does.
    vmdesc = parse_vmdesc(folder.joinpath("cpu_x86.json").read_bytes())
    schema.add(vmdesc, None)
    # Its table of XSAVE state implies some more; where the description has other fields of that name, too, it is right.
    cpu = vmdesc.devices[0].description
    known = {one.name for one in cpu.subsections}
    more = tuple(shape for shape in derived_shapes() if shape.name not in known)
    schema.add_description("cpu", Description.of(cpu.name, cpu.version, cpu.fields, more), "")
    return schema


def load_file(path: str) -> Schema:
    """Read a schema from a file written by ``schema learn``; compressed if its name ends in ``.xz``.

    Raises :class:`~qmigtool.errors.StreamError` if it is not one, LimitError if it is too long.
    """
    with os.fdopen(open_input(path), "rb") as file:
        raw = file.read(MAX_TEXT + 1)
    try:
        return load(_decoded(raw, packed=path.endswith(".xz")))
    except (lzma.LZMAError, UnicodeDecodeError) as error:
        raise StreamError(f"not a schema: {error}", section="schema") from None


def _decoded(raw: bytes, *, packed: bool) -> str:
    if packed:
        unpacker = lzma.LZMADecompressor(memlimit=MAX_MEMORY)
        raw = unpacker.decompress(raw, MAX_TEXT + 1)
        if len(raw) <= MAX_TEXT and not unpacker.eof:
            raise lzma.LZMAError("the file is truncated")
    if len(raw) > MAX_TEXT:
        raise LimitError("the schema is too long", section="schema", expected=f"at most {MAX_TEXT} bytes")
    return raw.decode()


def load(text: str) -> Schema:
    """Read a schema's JSON; raises :class:`~qmigtool.errors.StreamError` if it is not one."""
    try:
        document = load_json(text, section="schema")
        if document["schema"] != FORMAT:
            raise StreamError(f"schema format {document['schema']!r}", section="schema", expected=str(FORMAT))
        return _Loader(document["shapes"]).schema(document)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StreamError(f"not a schema: {error!r}", section="schema") from None


def _old_style_name(idstr: str) -> str:
    return idstr.rsplit("/", 1)[-1]


def _absorb(nodes: list[Node], description: Description) -> Node:
    """Add a description to its shape, or as a new shape."""
    for node in nodes:
        if _same_shape(node, description):
            break
    else:
        node = Node(description.name, description.version, [], [])
        node.fields = [NodeField(f.name, f.type, f.size, f.array_len, [], f.inline) for f in description.fields]
        nodes.append(node)
    for known, seen in zip(node.fields, description.fields, strict=True):
        if seen.struct is not None:
            _absorb(known.structs, seen.struct)
    for subsection in description.subsections:
        _absorb(node.subsections, subsection)
    return node


def _same_shape(node: Node, description: Description) -> bool:
    if (node.name, node.version) != (description.name, description.version):
        return False
    if len(node.fields) != len(description.fields):
        return False
    return all(
        (known.name, known.type, known.array_len) == (seen.name, seen.type, seen.array_len)
        # A struct's size depends on its subsections; its shapes give it.
        and (seen.struct is not None or (known.size, known.inline) == (seen.size, seen.inline))
        for known, seen in zip(node.fields, description.fields, strict=True)
    )


class _Writer:
    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._known: dict[str, int] = {}

    def node(self, node: Node) -> int:
        fields = [
            [
                f.name,
                f.type,
                f.size,
                f.array_len,
                [self.node(s) for s in f.structs],
                [self._inline(d) for d in f.inline],
            ]
            for f in node.fields
        ]
        # Most fields are plain: empty values at the end are left out.
        for row in fields:
            while row[-1] in ([], None):
                row.pop()
        return self._row([node.name, node.version, fields, [self.node(s) for s in node.subsections]])

    def _inline(self, description: Description) -> int:
        schema: list[Node] = []
        return self.node(_absorb(schema, description))

    def _row(self, row: list[Any]) -> int:
        key = json.dumps(row)
        if key not in self._known:
            self._known[key] = len(self.rows)
            self.rows.append(row)
        return self._known[key]


class _Loader:
    """Makes shapes from the rows of a schema file; the types in them are all checked."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = _typed(rows, list)
        self._nodes: dict[int, tuple[Node, int]] = {}  # and how many levels it has
        self._descriptions: dict[int, Description] = {}

    def schema(self, document: dict[str, Any]) -> Schema:
        schema = Schema(_typed(document["name"], str))
        for name, version, variants in document["devices"]:
            schema.devices[_typed(name, str), _number(version, MAX_WORD)] = [
                Variant(self.node(number, 1), [_typed(machine, str) for machine in machines])
                for number, machines in variants
            ]
        return schema

    def node(self, number: int, depth: int) -> Node:
        """Return the shape ``number`` at nesting level ``depth``."""
        node, height = self._node(_number(number, len(self._rows)), depth)
        if depth + height - 1 > MAX_DEPTH:
            raise ValueError("shapes are nested too deeply")
        return node

    def _node(self, number: int, depth: int) -> tuple[Node, int]:
        if number not in self._nodes:
            if depth > MAX_DEPTH:  # also where a shape is part of itself
                raise ValueError("shapes are nested too deeply")
            name, version, fields, subsections = self._rows[number]
            node = Node(_typed(name, str), _number(version, MAX_WORD), [], [])
            node.subsections = [self.node(part, depth + 1) for part in _typed(subsections, list)]
            node.fields = [self._field(row, depth) for row in _typed(fields, list)]
            parts = [*subsections, *(part for row in fields for column in row[4:] for part in column or ())]
            self._nodes[number] = node, 1 + max((self._nodes[part][1] for part in parts), default=0)
        return self._nodes[number]

    def _field(self, row: list[Any], depth: int) -> NodeField:
        name, type_, size, array_len, structs, inline = row + [None] * (6 - len(row))
        return NodeField(
            _typed(name, str),
            _typed(type_, str),
            _number(size, MAX_NUMBER),
            None if array_len is None else _number(array_len, MAX_ARRAY + 1),
            [self.node(number, depth + 1) for number in structs or ()],
            tuple(self._described(self.node(number, depth + 1)) for number in inline or ()),
        )

    def _described(self, node: Node) -> Description:
        """Turn a shape without alternatives back into a description; one that occurs in many places is made once."""
        made = self._descriptions.get(id(node))
        if made is None:
            fields = tuple(
                FieldDescription(
                    f.name, f.type, f.size, f.array_len, self._described(f.structs[0]) if f.structs else None, f.inline
                )
                for f in node.fields
            )
            subsections = tuple(self._described(subsection) for subsection in node.subsections)
            made = self._descriptions[id(node)] = Description.of(node.name, node.version, fields, subsections)
        return made


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:  # a bool is not a number
        raise TypeError(f"{value!r:.60} instead of a {kind.__name__}")
    return value


def _number(value: Any, end: int) -> int:
    number: int = _typed(value, int)
    if not 0 <= number < end:
        raise ValueError(f"{number:#x} instead of a number below {end:#x}")
    return number
