"""``xsave table``: which components each vCPU has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from qmigtool import tables
from qmigtool import xsave as core
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json
from qmigtool.cli.shared.output import (
    SHOWN_WALK,
    accelerator_option,
    csv_option,
    file_argument,
    finish,
    json_option,
    opened,
    print_cells,
    print_csv,
    problems_json,
    prove_option,
    say,
    schema_option,
)
from qmigtool.cli.shared.parameters import layout_option
from qmigtool.util.text import hexadecimal, printable
from qmigtool.xsave import Layout

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream
    from qmigtool.x86.vcpu import VCpu
from qmigtool.cli.shared.vcpus import ranges, some_vcpus


@command("qmigtool xsave table samples/pc-7.2.mig")
@file_argument
@layout_option("--layout", help="The layout of the sizes and offsets (JSON and CSV).")
@accelerator_option
@schema_option
@prove_option
@csv_option
@json_option
def table(
    file: str,
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
    """
    with opened(file, accelerator, schema=schema, walk=None if prove else SHOWN_WALK) as stream:
        vcpus = some_vcpus(stream)
        rows = tables.xsave_components.rows(stream, layout)
        if as_json:
            print_json({**_table_json(stream, vcpus, list(rows)), **problems_json(stream)})
        elif as_csv:
            print_csv(tables.xsave_components.columns, rows)
        else:
            _print_components(stream, vcpus)
        return finish(stream)


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


def _print_components(stream: Stream, vcpus: Sequence[VCpu]) -> None:
    shown = 0
    for vcpu in vcpus:
        shown |= vcpu.enabled | vcpu.xstate_bv | vcpu.carried | vcpu.live
    shown_bits = list(core.bits(shown))
    lines = []
    for (xcr0, xss, *masks), run in groupby(vcpus, key=lambda v: (v.xcr0, v.xss, v.xstate_bv, v.carried, v.live)):
        declared, carried, live = masks
        cells = [_letters((xcr0 | xss, declared, carried, live), bit) for bit in shown_bits]
        numbers = [f"{mask:#x}" for mask in (xcr0, xss, declared, live)]
        lines.append([ranges(vcpu.index for vcpu in run), *numbers, *cells])
    head = ["vCPU", "XCR0", "XSS", "XSTATE_BV", "live", *core.mask_names(shown)]
    print_cells(head, lines, [False, True, True, True, True, *(False for _ in shown_bits)])
    print()
    say("e enabled (XCR0, IA32_XSS)  d declared (XSTATE_BV)  c carried  l live (not initial)")
    say(printable(stream.accelerator.words))
    if stream.borrowed is not None:
        say(f"no vmdesc: decoded by a schema learned from other streams ({printable(stream.borrowed)})")
    for undeclared, run in groupby(vcpus, key=lambda v: v.undeclared):
        if undeclared:
            which = ranges([vcpu.index for vcpu in run])
            names = " ".join(core.mask_names(undeclared))
            say(f"vCPU {which}: live but not declared: {names}")


def _letters(masks: tuple[int, int, int, int], bit: int) -> str:
    return "".join(letter if mask >> bit & 1 else "-" for letter, mask in zip("edcl", masks, strict=True))
