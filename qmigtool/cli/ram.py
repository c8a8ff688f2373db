"""``ram``: guest memory as the stream holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import (
    csv_option,
    file_argument,
    finish,
    json_option,
    opened,
    print_cells,
    print_csv,
    print_table,
)
from qmigtool.documents.ram import ram_document
from qmigtool.stream.words import not_reached
from qmigtool.tables import ram_usage
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream

PASSES = 12  # shown to people


@command("qmigtool ram samples/pc-7.2.mig")
@file_argument
@click.option(
    "--channel",
    "channels",
    multiple=True,
    metavar="FILE",
    help="An extra channel of the same migration: multifd, postcopy preempt or return path (repeatable).",
)
@csv_option
@json_option
def ram(file: str, channels: tuple[str, ...], as_csv: bool, as_json: bool) -> int:
    """Show how guest memory was sent.

    For each RAM block: pages by encoding, pages that were sent again, pages that are in no channel. For the whole
    stream: passes, and the bytes sent after switchover.
    """
    from qmigtool.ram import usage

    with opened(file, channels=channels, keep_runs=True) as stream:
        document = ram_document(stream)
        rows = map(usage.row, document["blocks"])
        if as_csv:
            print_csv(ram_usage.columns, rows)
        elif as_json:
            print_json(document)
        else:
            print_table(ram_usage.columns, rows)
            _print(document)
        _say_absent(document, stream)
        return finish(stream)


def _say_absent(document: dict[str, Any], stream: Stream) -> None:
    """Report on stderr that memory is incomplete: the numbers alone do not show it."""
    if document["absent_pages"]:
        pages = sum(block["pages"] for block in document["blocks"] if not block["elsewhere"])
        count = f"qmigtool: {document['absent_pages']} of {pages} pages"
        if stream.stopped is not None:
            say_error(f"{count} are {not_reached(stream.stopped)}")
        else:
            why = "are in none of the given channels (multifd or postcopy: see --channel)"
            say_error(f"{count} {why}")


def _print(document: dict[str, Any]) -> None:
    print()
    head = ["pass", "pages", "zero", "bytes"]
    cells = [[str(one[name]) for name in head] for one in document["passes"][:PASSES]]
    print_cells(head, cells, [True] * 4)
    if document["pass_count"] > PASSES:
        print(f"... and {document['pass_count'] - PASSES} more passes")
    print()
    print(f"pages sent more than once: {document['rewritten_pages']}")
    ratio = document["zero_ratio"]
    print("zero pages: " + ("no pages were sent" if ratio is None else f"{ratio:.1%} of the pages sent"))
    if document["bytes_after_switchover"] is not None:
        print(f"bytes after switchover: {document['bytes_after_switchover']}")
    if document["channels"] > 1:
        print(f"channels with pages: {document['channels']}")
    if document["page_requests"]:
        print(f"pages that the destination asked for: {document['page_requests']}")
    for block in document["blocks"]:
        if block["elsewhere"]:
            print(f"not in the stream (shared memory): {printable(block['name'])}")
