"""Inputs, recognised by their content, also compressed: a stream, a vmdesc's text, -dump-vmstate, a learned schema."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from qmigtool.devices.schema import Schema, load
from qmigtool.devices.schema.model import Node, NodeField
from qmigtool.errors import LimitError, QmigError, StreamError, UnsupportedError, UsageError
from qmigtool.parsers.container import ContainerKind, recognise
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.parsers.vmdesc import Description, FieldDescription, Vmdesc, parse_vmdesc
from qmigtool.parsers.vmstatedump import DumpDescription, DumpField, VmstateDump, parse_vmstate_dump
from qmigtool.schemadiff.model import Origin, Shape, ShapeBody, ShapeField, Shapes
from qmigtool.stream.model import Stream
from qmigtool.stream.opening import open_stream
from qmigtool.stream.textinput import HEAD, is_text, text_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["of_dump", "of_schema", "of_stream", "of_vmdesc", "read_shapes"]

MAX_TEXT = 64 << 20  # of JSON; QEMU 11.1 dumps 0.9 MB
MAX_ALTERNATIVES = 16  # shapes of one struct; the built-in schema has up to 4
NUMBERED = re.compile(r"\[[0-9]+\]$")
LISTS = ("qtailq", "qlist", "gtree")  # the number of elements varies
VERSION = re.compile(r"[0-9]+(\.[0-9]+)+")  # of QEMU
READABLE = (
    "a file: a stream with a vmdesc, the text of a vmdesc (`analyze -d desc`), the output of -dump-vmstate, "
    "or a schema (`schema learn`)"
)


def read_shapes(
    target: str | BinaryIO | BufferSource, source: str | None = None, *, snapshot: str | None = None
) -> Shapes:
    """Read the descriptions in a file or a pipe; ``source`` is its name in messages, by default the file's name.

    ``snapshot`` selects one of a qcow2 image that has several.

    Raises :class:`~qmigtool.errors.StreamError` if it does not describe device state,
    :class:`~qmigtool.errors.UnsupportedError` for a stream without a vmdesc, and
    :class:`~qmigtool.errors.UsageError` if the file does not exist.
    """
    name = source or (target if isinstance(target, str) else "<pipe>")
    try:
        if not isinstance(target, str | BufferSource):
            return _of_pipe(target, name)
        file = _opened(target) if isinstance(target, str) else target
        with file:
            text = text_of(file, MAX_TEXT)
            if text is not None:
                return _of_text(text, name)
            with open_stream(file, snapshot=snapshot) as stream:
                return of_stream(stream, name)
    except QmigError as error:
        if not isinstance(error, UsageError):
            error.file = error.file or name
        raise


def _opened(path: str) -> FileSource:
    try:
        return FileSource(Path(path))
    except FileNotFoundError:
        versions = ", and no schema of a single version of QEMU is built in" if VERSION.fullmatch(path) else ""
        raise UsageError(f"no file {path!r}{versions}", expected=READABLE) from None


def _of_pipe(pipe: BinaryIO, source: str) -> Shapes:
    """Read a pipe: text, or compressed data that can be either, to its end, up to a limit."""
    head = pipe.read(HEAD)
    magic = recognise(head)
    if is_text(head) or (magic is not None and magic.kind is ContainerKind.PACKED):
        data = head + pipe.read(max(MAX_TEXT + 1 - len(head), 0))
        if len(data) > MAX_TEXT:
            raise LimitError("the data from the pipe is too long", expected=f"at most {MAX_TEXT} bytes, or a file")
        text = text_of(BufferSource(data), MAX_TEXT)
        if text is not None:
            return _of_text(text, source)
        opened = open_stream(data)
    else:
        opened = open_stream(io.BufferedReader(_Rejoined(head, pipe)))
    with opened as stream:
        return of_stream(stream, source)


class _Rejoined(io.RawIOBase):
    """A pipe that returns its first bytes again after they were read."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        super().__init__()
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        """A pipe is read only."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Fill ``buffer``, first with the bytes read before."""
        view = memoryview(buffer).cast("B")
        part = self._head[: len(view)]
        self._head = self._head[len(part) :]
        part = part or self._rest.read(len(view))
        view[: len(part)] = part
        return len(part)


def _of_text(text: bytes, source: str) -> Shapes:
    """Recognise the kind of JSON by top-level keys that only one kind has."""
    if text.lstrip()[:1] != b"{":
        raise StreamError("neither JSON nor a migration stream", expected=READABLE)
    if b'"vmschkmachine"' in text:
        return of_dump(parse_vmstate_dump(text), source)
    if b'"shapes"' in text and b'"vmsd_name"' not in text:
        try:
            return of_schema(load(text.decode()), source)
        except UnicodeDecodeError as error:
            raise StreamError(f"not a schema: {error}", section="schema") from None
    if b'"page_size"' in text:
        return of_vmdesc(parse_vmdesc(text), source)
    if b'"minimum_version_id"' in text:
        return of_dump(parse_vmstate_dump(text), source)
    raise StreamError(
        "JSON that describes no device state",
        expected="a vmdesc (`analyze -d desc`), the output of -dump-vmstate, or a schema (`schema learn`)",
    )


def of_stream(stream: Stream, source: str | None = None) -> Shapes:
    """Return the bodies in a stream; raises :class:`~qmigtool.errors.UnsupportedError` without a vmdesc."""
    stream.prove()
    if stream.vmdesc is None:
        error = stream.error
        if error is not None:
            raise error
        raise UnsupportedError(
            "comparing a stream without a vmdesc",
            "the stream has no vmdesc, so it does not describe its device state",
            expected="one saved without suppress-vmdesc",
        )
    return replace(of_vmdesc(stream.vmdesc, source or stream.source.name), machine=stream.machine)


def of_vmdesc(vmdesc: Vmdesc, source: str = "vmdesc") -> Shapes:
    """Return the bodies that a vmdesc describes, equal ones of a name once."""
    convert = _Converter()
    shapes: dict[tuple[str, int], Shape] = {}
    for device in vmdesc.devices:
        name = device.idstr.rsplit("/", 1)[-1]
        key = name, id(device.description)
        if key not in shapes:
            body = convert.body(device.description)
            if device.old_style:  # opaque: its contents are not known
                body = ShapeBody(name, body.version, None, (ShapeField("data", "old-style", None),), ())
            shapes[key] = Shape(name, body.version, None, body)
    return Shapes(source, Origin.VMDESC, None, tuple(shapes.values()))


def of_schema(schema: Schema, source: str | None = None) -> Shapes:
    """Return the bodies that a schema has seen."""
    convert = _Converter()
    shapes = tuple(
        Shape(name, version, None, convert.body(variant.node))
        for (name, version), variants in schema.devices.items()
        for variant in variants
    )
    return Shapes(source or schema.name, Origin.SCHEMA, None, shapes)


def of_dump(dump: VmstateDump, source: str = "-dump-vmstate") -> Shapes:
    """Return the bodies that a QEMU can save and load by its own dump."""
    shapes = tuple(
        Shape(device.type, device.version_id, device.minimum_version_id, _dump_body(device.description))
        for device in dump.devices
    )
    return Shapes(source, Origin.DUMP, dump.machine, shapes, dump.counts_arrays)


def _dump_body(description: DumpDescription) -> ShapeBody:
    return ShapeBody(
        description.name,
        description.version_id,
        description.minimum_version_id,
        tuple(_dump_field(field) for field in description.fields),
        tuple(_dump_body(sub) for sub in description.subsections),
    )


def _dump_field(field: DumpField) -> ShapeField:
    return ShapeField(
        NUMBERED.sub("", field.name),
        None,
        # The size of a struct is that of the C struct, and 0 is a size known only at run time.
        field.size if field.size and field.description is None else None,
        field.num,
        field.version_id,
        field.field_exists,
        None if field.description is None else _dump_body(field.description),
    )


class _Converter:
    """Converts descriptions and the nodes of a schema to bodies; one that is part of several is converted once."""

    def __init__(self) -> None:
        self._made: dict[int, ShapeBody] = {}

    def body(self, described: Description | Node) -> ShapeBody:
        made = self._made.get(id(described))
        if made is None:
            fields = tuple(joined(self.field(field) for field in described.fields))
            subsections = tuple(self.body(sub) for sub in described.subsections)
            made = ShapeBody(described.name, described.version, None, fields, subsections)
            self._made[id(described)] = made
        return made

    def field(self, field: FieldDescription | NodeField) -> ShapeField:
        bodies = tuple(map(self.body, field.structs[:MAX_ALTERNATIVES] or field.inline[:1]))
        return replace(_typed(field, bodies[0] if bodies else None), others=bodies[1:])


def _typed(field: FieldDescription | NodeField, body: ShapeBody | None) -> ShapeField:
    count = 1 if field.array_len is None else field.array_len
    if field.type in LISTS:
        return ShapeField(field.name, field.type, None, None, body=body)
    return ShapeField(field.name, field.type, field.size, count, body=body)


def joined(fields: Iterable[ShapeField]) -> Iterator[ShapeField]:
    """Join the parts of an array that is described in parts because its elements differ or some are NULL pointers.

    A vmdesc distinguishes fields of one name by a number (``unused[1]``), which is removed: the C tables have none.
    """
    for name, group in itertools.groupby(fields, key=lambda field: field.name):
        pieces = [replace(piece, name=NUMBERED.sub("", name)) for piece in group]
        whole = next((piece for piece in pieces if piece.type != "nullptr"), pieces[0])
        alike = {(piece.type, piece.size) for piece in pieces if piece.body is None and piece.type != "nullptr"}
        if len(pieces) > 1 and len(alike) < 2:
            yield replace(whole, count=sum(piece.count or 0 for piece in pieces))
        else:
            yield from pieces
