"""``dissect``: the bytes of a record, field by field."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import file_argument, finish, json_option, opened
from qmigtool.cli.shared.parameters import number_of
from qmigtool.errors import QmigError, UsageError
from qmigtool.stream.info import problems_document
from qmigtool.stream.missing import is_complete
from qmigtool.util.budget import current
from qmigtool.util.jsontext import SCHEMA
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.layers.packets import MigrationRecord
    from qmigtool.layers.spans import FieldSpan
    from qmigtool.stream.model import Stream

SHOWN = 100  # records of a section
LISTED = 600  # bytes of memory for a record in JSON
BYTES = 16  # of a field on one line


@command(
    "qmigtool dissect samples/pc-7.2.mig --offset 8",
    "qmigtool dissect samples/pc-7.2.mig --section hpet",
    "qmigtool dissect samples/containers/postcopy-10.0.pcap.xz | grep MessageHeader",
)
@file_argument
@click.option("--section", metavar="NAME", help=f"The records of a section: NAME or NAME@INSTANCE (at most {SHOWN}).")
@click.option("--offset", type=number_of("--offset"), metavar="N", help="The record with byte N of the stream.")
@click.option("--record", type=number_of("--record"), metavar="K", help="Record number K of the list.")
@click.option(
    "--channel",
    "channels",
    multiple=True,
    metavar="FILE",
    help="An extra channel of the same migration: multifd, postcopy preempt or return path (repeatable).",
)
@json_option
def dissect(
    file: str,
    section: str | None,
    offset: int | None,
    record: int | None,
    channels: tuple[str, ...],
    as_json: bool,
) -> int:
    """Show the bytes of a record, field by field.

    Without an option, list every record of the stream, its containers and its channels, one a line, with its number.
    With one, show that record: each field with its offset, its bytes and its value, and device state by its description
    in the stream. The values have QEMU's names. In Python, `qmigtool.layers` has these records as scapy layers.
    """
    # Imported here: help and completion need no scapy.
    from qmigtool.documents.dissect import chosen, fields_of_record, record_document

    if sum(one is not None for one in (section, offset, record)) > 1:
        raise UsageError("--section, --offset and --record choose the same thing", expected="one of them")
    problems: list[QmigError] = []
    with opened(file, channels=channels) as stream:
        if section is None and offset is None and record is None:
            _list(stream, problems, as_json=as_json)
            return finish(stream, *problems)
        found = chosen(stream, problems, section=section, offset=offset, record=record)
        packets = list(islice(found, SHOWN))
        if as_json:
            print_json(_document(stream, [record_document(stream, one) for one in packets]))
        else:
            for place, packet in enumerate(packets):
                if place:
                    print()
                _show(packet, fields_of_record(stream, packet))
        more = sum(1 for _ in found)
        if more:
            say_error(f"qmigtool: {more} more records of {printable(str(section))} are not shown; --record shows one")
        return finish(stream, *problems)


def _document(stream: Stream, records: list[dict[str, object]]) -> dict[str, object]:
    return {"schema": SCHEMA, "records": records, "complete": is_complete(stream), **problems_document(stream)}


def _list(stream: Stream, problems: list[QmigError], *, as_json: bool) -> None:
    """Print a line for each record; they are not kept."""
    from qmigtool.documents.dissect import listed, record_name

    if as_json:
        records: list[dict[str, object]] = []
        for place, packet in listed(stream, problems):
            current().charge("memory", LISTED, packet.offset, packet.section)
            records.append(
                {
                    "record": place,
                    "name": record_name(packet),
                    "source": packet.source,
                    "section": packet.section,
                    "offset": packet.offset,
                    "length": len(packet.original),
                }
            )
        print_json(_document(stream, records))
        return
    print(f"{'record':>8}  {'offset':>10}  {'length':>8}  name")
    source = "main"
    for place, packet in listed(stream, problems):
        if packet.source != source:
            source = packet.source or ""
            print(f"{source}:")
        words = record_name(packet) + (f"  {printable(packet.section)}" if packet.section else "")
        print(f"{place:>8}  {packet.offset:>#10x}  {len(packet.original):>8}  {words}")


def _show(packet: MigrationRecord, fields: Iterable[FieldSpan]) -> None:
    where = f" in {printable(packet.section)}" if packet.section else ""
    source = "" if packet.source in (None, "main") else f" of {packet.source}"
    from qmigtool.documents.dissect import record_name

    print(f"{record_name(packet)} at {packet.offset:#x}{source}{where}, {len(packet.original)} bytes")
    layer = None
    for one in fields:
        if one.layer != layer:
            layer = one.layer
            print(f"  {printable(one.layer)}")
        raw = one.raw[:BYTES].hex(" ") + (" ..." if len(one.raw) > BYTES else "")
        print(f"    {one.offset:#08x}  {raw:<{3 * BYTES + 3}}  {printable(one.name)} = {printable(one.text)}")
