"""``xsave table``: which components each vCPU has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qmigtool import tables
from qmigtool import xsave as core
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json
from qmigtool.cli.shared.output import (
    SHOWN_WALK,
    accelerator_option,
    csv_option,
    finish,
    json_option,
    opened,
    print_cells,
    print_csv,
    prove_option,
    say,
    schema_option,
    snapshot_option,
)
from qmigtool.cli.shared.parameters import layout_option
from qmigtool.cli.shared.several import Several, files_argument
from qmigtool.cli.shared.vcpus import some_vcpus
from qmigtool.documents.presence import (
    MARK,
    NUMBERS,
    Presence,
    cells,
    offsets,
    presence,
    presence_document,
    ranges,
    shown,
)
from qmigtool.util.text import printable
from qmigtool.xsave import Layout


@command(
    "qmigtool xsave table samples/pc-7.2.mig",
    "qmigtool xsave table samples/pc-7.2.mig --layout amd-zen4",
    "qmigtool xsave table samples/pc-7.2.mig samples/q35-7.2.mig",
)
@files_argument
@snapshot_option
@layout_option("--layout", help="Also show sizes and offsets in this layout; JSON and CSV always have them.")
@accelerator_option
@schema_option
@prove_option
@csv_option
@json_option
def table(
    files: tuple[str, ...],
    layout: Layout | None,
    accelerator: str | None,
    schema: str | None,
    prove: bool,
    as_csv: bool,
    as_json: bool,
) -> int:
    """Show which XSAVE components each vCPU has.

    e: enabled in XCR0 (or IA32_XSS); d: declared in XSTATE_BV; c: carried, the stream holds its fields; l: live, the
    contents differ from the initial configuration. The four can disagree: a TCG stream declares nothing. vCPUs with the
    same pattern share a line, and a star marks what differs from the most frequent one.
    Of several files, the table has a column with the file; --json has a list, "files".
    """
    of = tables.xsave_components
    rows: list[tuple[Any, ...]] = []
    documents: dict[str, dict[str, Any]] = {}
    found: list[Presence] = []
    several = Several(files)
    for file in files:
        with (
            several.each(file),
            opened(file, accelerator, schema=schema, walk=None if prove else SHOWN_WALK) as stream,
        ):
            vcpus = some_vcpus(stream)
            mine = list(of.rows(stream, layout=layout))
            rows += mine if several.alone else [(file, *row) for row in mine]
            documents[file] = presence_document(stream, vcpus, mine)
            found.append(presence(file, stream, vcpus))
            several.ended(finish(stream))
    if as_json:
        print_json(documents[files[0]] if several.alone else {"files": several.documents(documents)})
    elif as_csv:
        print_csv(of.columns if several.alone else (tables.FILE, *of.columns), rows)
    elif found:
        _print_components(found, layout, several=not several.alone)
    return several.status


def _print_components(found: Sequence[Presence], layout: Layout | None, *, several: bool) -> None:
    bits = list(core.bits(shown(found)))
    lines = []
    for one in found:
        for indexes, line in zip(one.vcpus.values(), cells(one, bits), strict=True):
            lines.append([*([printable(one.file)] if several else []), ranges(indexes), *line])
    head = [*(["file"] if several else []), "vCPU", *NUMBERS, *(core.mask_names(1 << bit)[0] for bit in bits)]
    marked = [any(line[i].endswith(MARK) for line in lines) for i in range(len(head))]
    right = [name in NUMBERS for name in head]
    for line in lines:  # digits are aligned
        for i, cell in enumerate(line):
            if right[i] and marked[i] and not cell.endswith(MARK):
                line[i] += " "

    def colour(line: int, column: int) -> str | None:
        return "yellow" if lines[line][column].endswith(MARK) else None

    print_cells(head, lines, right, colour, keys=2 if several else 1)
    print()
    say("e enabled (XCR0, IA32_XSS)  d declared (XSTATE_BV)  c carried  l live (not initial)")
    if any(marked):
        say(f"{MARK} differs from the most frequent pattern{' of the file' if several else ''}")
    if layout is not None:
        print()
        names, numbers = offsets(layout, found, bits)
        print_cells(names, numbers, [False, *[True] * (len(names) - 1)], keys=1)
        print()
        say(printable(f"offsets in {layout.name}; compacted: in an area with the components that the mask enables"))
    for one in found:
        who = f"{one.file}: " if several else ""
        say(printable(f"{who}{one.accelerator}"))
        if one.schema_name is not None:
            say(printable(f"{who}no vmdesc: decoded by a schema learned from other streams ({one.schema_name})"))
        for undeclared, indexes in one.undeclared.items():
            live = " ".join(core.mask_names(undeclared))
            say(printable(f"{who}vCPU {ranges(indexes)}: live but not declared: {live}"))
