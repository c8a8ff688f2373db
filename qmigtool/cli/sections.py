"""``sections``: the items of a stream, in its order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

import click

from qmigtool import tables
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json
from qmigtool.cli.shared.output import (
    csv_option,
    file_argument,
    finish,
    json_option,
    opened,
    print_cells,
    print_csv,
)
from qmigtool.documents.sections import sections_document
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.parsers.section import Section


@command("qmigtool sections samples/pc-7.2.mig")
@file_argument
@click.option("--all", "every", is_flag=True, help="List every PART; by default a run of them is one line.")
@csv_option
@json_option
def sections(file: str, every: bool, as_csv: bool, as_json: bool) -> int:
    """List the sections of a stream.

    They are listed in stream order, with headers, commands and the vmdesc: together they cover every byte of FILE.
    """
    table = tables.sections
    with opened(file) as stream:
        if as_json:
            print_json(sections_document(stream))
        elif as_csv:
            print_csv(table.columns, table.rows(stream))
        else:
            rows = stream.sections if every else _squashed(stream.sections)
            print_cells(
                ["offset", "length", "type", "id", "name", "instance", "version"],
                [_section_cells(row) for row in rows],
                [True, True, False, True, False, True, True],
            )
        return finish(stream)


def _section_cells(row: Section | tuple[Section, int, int]) -> list[str]:
    section, length, count = row if isinstance(row, tuple) else (row, row.length, 1)
    numbers = (section.instance_id, section.version_id)
    return [
        f"{section.offset:#x}",
        str(length),
        section.type.value + (f" x {count}" if count > 1 else "") + ("" if section.complete else " (cut)"),
        "" if section.section_id is None else str(section.section_id),
        printable(section.name or ""),
        *("" if number is None else str(number) for number in numbers),
    ]


def _squashed(found: Iterable[Section]) -> Iterator[tuple[Section, int, int]]:
    """Give (first, bytes, count) of each run of items that differ only by their place."""
    for _, run in groupby(found, key=lambda s: (s.type, s.section_id, s.name, s.complete)):
        first, length, count = None, 0, 0
        for section in run:
            first = first or section
            length += section.length
            count += 1
        if first is not None:
            yield first, length, count
