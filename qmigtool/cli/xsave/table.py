"""``xsave table``: which components each vCPU has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

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
    problems_json,
    prove_option,
    say,
    schema_option,
    snapshot_option,
)
from qmigtool.cli.shared.parameters import layout_option
from qmigtool.cli.shared.several import Several, files_argument
from qmigtool.util.text import hexadecimal, printable
from qmigtool.xsave import Layout

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream
    from qmigtool.x86.vcpu import VCpu
from qmigtool.cli.shared.vcpus import ranges, some_vcpus


@command("qmigtool xsave table samples/pc-7.2.mig", "qmigtool xsave table samples/pc-7.2.mig samples/q35-7.2.mig")
@files_argument
@snapshot_option
@layout_option("--layout", help="The layout of the sizes and offsets (JSON and CSV).")
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
    contents differ from the initial configuration. The four can disagree: a TCG stream declares nothing.
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
            documents[file] = {**_table_json(stream, vcpus, mine), **problems_json(stream)}
            found.append(_presence(file, stream, vcpus))
            several.ended(finish(stream))
    if as_json:
        print_json(documents[files[0]] if several.alone else {"files": several.documents(documents)})
    elif as_csv:
        print_csv(of.columns if several.alone else (tables.FILE, *of.columns), rows)
    elif found:
        _print_components(found, several=not several.alone)
    return several.status


def _table_json(stream: Stream, vcpus: Sequence[VCpu], rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    names = [column.name for column in tables.xsave_components.columns][1:]
    components: dict[int, list[dict[str, Any]]] = {}
    for index, *values in rows:
        components.setdefault(index, []).append(dict(zip(names, values, strict=True)))
    return {
        "accelerator": {"name": stream.accelerator.name, "evidence": list(stream.accelerator.evidence)},
        "borrowed_schema": stream.borrowed,
        "proved": stream.proved,
        "vcpus": [
            {
                "vcpu": vcpu.index,
                "xcr0": hexadecimal(vcpu.xcr0),
                "xss": hexadecimal(vcpu.xss),
                "xstate_bv": hexadecimal(vcpu.xstate_bv),
                "xstate_bv_recomputed": hexadecimal(vcpu.effective_xstate_bv("recomputed")),
                "mxcsr": hexadecimal(vcpu.mxcsr),
                "components": components.get(vcpu.index, []),
            }
            for vcpu in vcpus
        ],
    }


class Pattern(NamedTuple):
    """What some vCPUs have in common."""

    xcr0: int
    xss: int
    declared: int
    carried: int
    live: int

    @property
    def masks(self) -> tuple[int, int, int, int]:
        """The components that are enabled, declared, carried and live."""
        return self.xcr0 | self.xss, self.declared, self.carried, self.live


class Presence(NamedTuple):
    """What a table has of one stream."""

    file: str
    vcpus: list[tuple[Pattern, list[int]]]
    undeclared: list[tuple[int, list[int]]]
    accelerator: str
    borrowed: str | None


def _presence(file: str, stream: Stream, vcpus: Sequence[VCpu]) -> Presence:
    patterns = groupby(vcpus, key=lambda v: Pattern(v.xcr0, v.xss, v.xstate_bv, v.carried, v.live))
    undeclared = groupby(vcpus, key=lambda v: v.undeclared)
    return Presence(
        file,
        [(pattern, [vcpu.index for vcpu in run]) for pattern, run in patterns],
        [(mask, [vcpu.index for vcpu in run]) for mask, run in undeclared if mask],
        stream.accelerator.words,
        stream.borrowed,
    )


def _print_components(found: Sequence[Presence], *, several: bool) -> None:
    shown = 0
    for one in found:
        for pattern, _ in one.vcpus:
            enabled, declared, carried, live = pattern.masks
            shown |= enabled | declared | carried | live
    shown_bits = list(core.bits(shown))
    lines = []
    for one in found:
        for pattern, indexes in one.vcpus:
            numbers = [f"{mask:#x}" for mask in (pattern.xcr0, pattern.xss, pattern.declared, pattern.live)]
            cells = [_letters(pattern.masks, bit) for bit in shown_bits]
            lines.append([*([printable(one.file)] if several else []), ranges(indexes), *numbers, *cells])
    head = [*(["file"] if several else []), "vCPU", "XCR0", "XSS", "XSTATE_BV", "live", *core.mask_names(shown)]
    print_cells(
        head, lines, [*([False] if several else []), False, True, True, True, True, *(False for _ in shown_bits)]
    )
    print()
    say("e enabled (XCR0, IA32_XSS)  d declared (XSTATE_BV)  c carried  l live (not initial)")
    for one in found:
        who = f"{one.file}: " if several else ""
        say(printable(f"{who}{one.accelerator}"))
        if one.borrowed is not None:
            say(printable(f"{who}no vmdesc: decoded by a schema learned from other streams ({one.borrowed})"))
        for undeclared, indexes in one.undeclared:
            names = " ".join(core.mask_names(undeclared))
            say(printable(f"{who}vCPU {ranges(indexes)}: live but not declared: {names}"))


def _letters(masks: tuple[int, int, int, int], bit: int) -> str:
    return "".join(letter if mask >> bit & 1 else "-" for letter, mask in zip("edcl", masks, strict=True))
