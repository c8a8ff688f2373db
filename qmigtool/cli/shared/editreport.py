"""What was changed, or would be: for people as tables, for programs as JSON."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import print_cells, say
from qmigtool.parsers.section import Type
from qmigtool.rewrite.changes import as_text
from qmigtool.rewrite.document import rewrite_document
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.parsers.section import Section
    from qmigtool.rewrite import Rewriter
    from qmigtool.rewrite.splice import Splice
    from qmigtool.stream.model import Stream

SHOWN_BYTES = 8


def report(
    rewriter: Rewriter, splices: list[Splice], written: int | None, output: str | None, *, dry_run: bool, as_json: bool
) -> None:
    """Print what was changed, or would be: on stdout, unless the stream itself is written there."""
    stream = rewriter.draft.stream
    if as_json and (output != "-" or dry_run):
        print_json(rewrite_document(rewriter, splices, written))
    else:
        _print(rewriter, stream, splices, written, output, dry_run=dry_run)


def _print(
    rewriter: Rewriter,
    stream: Stream,
    splices: list[Splice],
    written: int | None,
    output: str | None,
    *,
    dry_run: bool,
) -> None:
    if output != "-" or dry_run:
        head = ["edit", "offset", "where", "old", "new"]
        lines = [
            [
                change.edit,
                "-" if change.offset is None else f"{change.offset:#x}",
                printable(change.where),
                printable(as_text(change.old, shown=SHOWN_BYTES)),
                printable(as_text(change.new, shown=SHOWN_BYTES)),
            ]
            for change in rewriter.changes
        ]
        if lines:
            print_cells(
                head, lines, [False, True, False, False, False], lambda _, column: {3: "red", 4: "green"}.get(column)
            )
        reasons = dict.fromkeys((change.edit, change.reason) for change in rewriter.changes if change.reason)
        if reasons:
            print()
        for edit, why in reasons:
            say(printable(f"{edit}: {why}"))
        if dry_run and splices:
            print()
            _print_splices(stream, splices)
    for loss in rewriter.losses:
        say_error(f"lost: {printable(loss)}")
    for note in rewriter.notes:
        say_error(f"note: {printable(note)}")
    count = len(rewriter.changes)
    words = f"{count} change{'s' if count > 1 else ''}" if splices else "nothing changes"
    if written is None:
        say_error(f"{words}, nothing written")
    else:
        say_error(f"{output}: {written} bytes, {words}")


def _print_splices(stream: Stream, splices: list[Splice]) -> None:
    """Print the bytes that would change, with the section of FILE that has them.

    The vmdesc describes the sections: it changes with their fields and lengths.
    """
    say("bytes of FILE that would be replaced; all others are copied")
    lines = []
    sections = stream.sections
    starts = [section.offset for section in sections]
    for splice in splices:
        section = sections[max(bisect_right(starts, splice.offset) - 1, 0)]
        old = bytes(stream.source.view(splice.offset, min(splice.length, SHOWN_BYTES + 1)))
        new = splice.data if isinstance(splice.data, bytes) else None
        lines.append(
            [
                f"{splice.offset:#x}",
                printable(_named(section)),
                str(splice.length),
                str(splice.size),
                _hex(old, splice.length),
                _hex(new, splice.size) if new is not None else "(memory)",
            ]
        )
    print_cells(
        ["offset", "in", "old length", "new length", "old", "new"], lines, [True, False, True, True, False, False]
    )
    if any(line[1] == Type.VMDESC.value for line in lines):
        say("vmdesc: QEMU's description of the sections, which has their names, fields and lengths")


def _named(section: Section) -> str:
    """Return the name of a section, or what it is: header, configuration, vmdesc."""
    if section.name is None:
        return section.type.value
    return section.name if section.instance_id is None else f"{section.name}@{section.instance_id}"


def _hex(raw: bytes, length: int) -> str:
    return raw[:SHOWN_BYTES].hex() + ("..." if length > SHOWN_BYTES else "") or "-"
