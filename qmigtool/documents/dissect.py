"""The document that ``dissect --json`` prints: records, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from qmigtool.errors import QmigError, StreamError, UnsupportedError, UsageError
from qmigtool.layers import known
from qmigtool.layers.cuts import cuts
from qmigtool.layers.packets import layer, stacked
from qmigtool.layers.reading import packet_of
from qmigtool.layers.spans import FieldSpan, spans
from qmigtool.parsers.records import SectionType, Subsection
from qmigtool.parsers.vmstate import leaves
from qmigtool.parsers.window import Window
from qmigtool.util.budget import current
from qmigtool.util.text import text_value

if TYPE_CHECKING:
    from qmigtool.devices.device import Device
    from qmigtool.layers.packets import MigrationRecord
    from qmigtool.parsers.section import Section
    from qmigtool.stream.model import Stream

__all__ = ["MOST", "chosen", "fields_of_record", "listed", "record_document", "record_name"]

MOST = 100_000  # records of a list: some seconds of work


def listed(stream: Stream, problems: list[QmigError]) -> Iterator[tuple[int, MigrationRecord]]:
    """Yield the first :data:`MOST` records with their numbers, from 0; that there are more is one of ``problems``."""
    for number, (cut, data) in enumerate(cuts(stream, problems.append)):
        if number == MOST:
            problems.append(
                UnsupportedError(
                    f"a list of more than {MOST} records",
                    f"only the first {MOST} records are listed",
                    offset=cut.offset,
                    section=cut.section,
                    expected="--section or --offset, which show any of them",
                )
            )
            return
        yield number, packet_of(cut, data)


def chosen(
    stream: Stream, problems: list[QmigError], *, section: str | None, offset: int | None, record: int | None
) -> Iterator[MigrationRecord]:
    """Yield the records that are asked for; raises :class:`~qmigtool.errors.UsageError` if there is none.

    ``section`` is a name, or ``name@instance``; ``offset`` is that of any byte of a record in the main channel;
    ``record`` is a number of :func:`listed`.
    """
    found = False
    if record is not None:
        for number, (cut, data) in enumerate(cuts(stream, problems.append)):
            if number == record:
                yield packet_of(cut, data)
                return
        raise UsageError(f"no record {record}", expected="a number that `qmigtool dissect FILE` lists")
    if offset is not None:
        for cut, data in cuts(stream, problems.append, (offset, offset)):
            if cut.offset <= offset < cut.end:
                yield packet_of(cut, data)
                return
        raise UsageError(f"no byte {offset:#x} in the stream", expected=f"an offset below {stream.size or 0:#x}")
    for one in stream.sections:
        if _is_named(one, section or ""):
            found = True
            for cut, data in cuts(stream, problems.append, (one.offset, one.end - 1)):
                yield packet_of(cut, data)
    if not found:
        names = {one.name for one in stream.sections if one.name is not None}
        near = get_close_matches((section or "").partition("@")[0], names, n=4)
        hint = f"one like {', '.join(near)}" if near else "a name, or NAME@INSTANCE"
        raise UsageError(f"no section {section!r}", expected=f"{hint}; `qmigtool sections FILE` lists them")


def _is_named(section: Section, name: str) -> bool:
    return section.name is not None and name in (section.name, f"{section.name}@{section.instance_id}")


def record_name(packet: MigrationRecord) -> str:
    """Return the names of a packet's layers."""
    return "/".join(type(one).__name__ for one in stacked(packet))


def fields_of_record(stream: Stream, packet: MigrationRecord) -> Iterator[FieldSpan]:
    """Yield the fields of a record; device state by its description in the stream, where there is one.

    Raises :class:`~qmigtool.errors.StreamError` where device state contradicts its description.
    """
    if isinstance(packet, known.DeviceState):
        for device in stream.devices:
            section = device.section
            if section.body_offset == packet.offset and section.body_length == len(packet.load):
                if device.description is None:
                    break
                yield from _device_fields(device, packet)
                return
    yield from spans(packet)


def _device_fields(device: Device, packet: MigrationRecord) -> Iterator[FieldSpan]:
    """Yield the fields of a device, and what is between them: the headers of subsections."""
    start, data = packet.offset or 0, packet.original
    at = start
    for path, field in leaves(device.fields):
        current().charge("objects", 1, field.offset, device.name)
        yield from _between(device, at, data[at - start : field.offset - start])
        raw = data[field.offset - start : field.offset - start + field.length]
        yield FieldSpan(device.label, path, field.offset, raw, text_value(field.type, field.value))
        at = field.offset + field.length
    yield from _between(device, at, data[at - start :])


def _between(device: Device, at: int, raw: bytes) -> Iterator[FieldSpan]:
    while raw[:1] == bytes([SectionType.QEMU_VM_SUBSECTION]):
        try:
            _, end = Subsection.parse(Window(raw, final=True), 0)
        except StreamError:
            break
        head = layer(Subsection)(raw[:end])
        head.offset = at
        yield from spans(head)
        at, raw = at + end, raw[end:]
    if raw:
        yield FieldSpan(device.label, "(not described)", at, raw, f"{len(raw)} bytes")


def record_document(stream: Stream, packet: MigrationRecord) -> dict[str, Any]:
    """Return a record with its fields: ``hex`` are their bytes, ``value`` is text."""
    return {
        "name": record_name(packet),
        "source": packet.source,
        "section": packet.section,
        "offset": packet.offset,
        "length": len(packet.original),
        "fields": [
            {
                "layer": one.layer,
                "name": one.name,
                "offset": one.offset,
                "length": len(one.raw),
                "hex": one.raw.hex(),
                "value": one.text,
            }
            for one in fields_of_record(stream, packet)
        ],
    }
