"""``xsave``: the extended state of the vCPUs as a table, and the layouts; ``areas`` has the commands on bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from qmigtool import tables
from qmigtool import xsave as core
from qmigtool.cli.layoutdraw import draw
from qmigtool.cli.lazy import LazyGroup
from qmigtool.cli.output import (
    SHOWN_WALK,
    accelerator_option,
    csv_option,
    file_argument,
    finish,
    json_option,
    on_terminal,
    opened,
    print_cells,
    print_csv,
    print_json,
    problems_json,
    prove_option,
    say,
    schema_option,
    terminal_width,
)
from qmigtool.cli.parameters import layout_option, layout_value, mask_option
from qmigtool.errors import UnsupportedError
from qmigtool.util.text import hexadecimal, printable
from qmigtool.xsave import Format, Layout

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream
    from qmigtool.x86.vcpu import VCpu


@click.group(
    cls=LazyGroup,
    lazy={
        "export": "areas:export",
        "import": "putback:import_area",
        "convert": "areas:convert",
        "check": "areacheck:check",
    },
    no_args_is_help=False,
)
def xsave() -> None:
    """The extended state of the vCPUs: shown, extracted, converted, judged."""


# -- table -----------------------------------------------------------------------------------------------------------


@xsave.command("table")
@file_argument
@layout_option("--layout", help="Give sizes and offsets in this layout (JSON and CSV).")
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
    """Show which components each vCPU of FILE has.

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


def some_vcpus(stream: Stream) -> Sequence[VCpu]:
    """Return the x86 vCPUs; raises if there is none and nothing else is wrong."""
    vcpus = stream.vcpus
    if not vcpus and not stream.problems:
        raise UnsupportedError("XSAVE state of a machine that is not x86", "no x86 vCPU in this stream")
    return vcpus


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


def ranges(indexes: Iterable[int]) -> str:
    """Write numbers as in ``0-3,7``."""
    parts = []
    for _, run in groupby(enumerate(indexes), key=lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        parts.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(parts)


# -- layouts ---------------------------------------------------------------------------------------------------------


@xsave.command()
@click.argument("name", required=False, type=layout_value, metavar="[NAME]")
@mask_option(
    "--mask",
    help="Components of the areas to draw, by default all user ones of the layout.",
)
@csv_option
@json_option
def layouts(name: Layout | None, mask: int | None, as_csv: bool, as_json: bool) -> int:
    """List the layouts, or draw one: standard beside compacted format.

    NAME is a built-in layout or a file with CPUID in it: the output of cpuid, kcpuid -r or xen-cpuid, InstLatx64, a
    VirtualBox log, dmesg, libvirt's <cpudata>, JSON of Firecracker or Cloud Hypervisor. FILE#N is CPU N of it, where
    there are several kinds (FILE#guest and FILE#host in a VirtualBox log).
    """
    which = [core.layout(one) for one in core.layout_names()] if name is None else [name]
    if as_csv:
        print_csv(tables.layouts.columns, tables.layouts.rows(*which))
    elif as_json:
        print_json({"layouts": [_layout_json(one, mask) for one in which]})
    elif name is None:
        head = ["name", "XCR0", "IA32_XSS", "standard", "compacted", "CPU or guest"]
        lines = [
            [
                one.name,
                f"{one.user_mask:#x}",
                f"{one.supervisor_mask:#x}",
                str(one.standard_size()),
                str(one.compacted_size(core.default_mask(one, Format.COMPACTED))),
                one.title,
            ]
            for one in which
        ]
        print_cells(head, lines, [False, True, True, True, True, False])
        print()
        say("standard, compacted: bytes of an area with all user components")
        say("QEMU's CPU models are layouts, too, on a host of their vendor: SapphireRapids, EPYC-Genoa-v2 ...")
    else:
        shown = core.default_mask(name, Format.COMPACTED) if mask is None else mask
        print(draw(name, shown, terminal_width() if on_terminal() else None))
    return 0


def _layout_json(one: Layout, mask: int | None) -> dict[str, Any]:
    if mask is None:
        mask = core.default_mask(one, Format.COMPACTED)
    compacted = one.compacted_offsets(mask)
    return {
        "name": one.name,
        "title": one.title,
        "source": one.source,
        "xcr0_mask": hexadecimal(one.xcr0_mask),
        "xss_mask": hexadecimal(one.xss_mask),
        "mask": hexadecimal(mask),
        "standard_size": one.standard_size(mask & one.user_mask),
        "compacted_size": one.compacted_size(mask),
        "components": [
            {
                "bit": bit,
                "name": core.mask_names(1 << bit)[0],
                "supervisor": row.supervisor,
                "size": row.size,
                "standard_offset": None if row.supervisor else row.offset,
                "compacted_offset": compacted.get(bit),
                "align64": row.align64,
            }
            for bit, row in sorted(one.rows.items())
        ],
        "absent": {core.mask_names(1 << bit)[0]: reason for bit, reason in one.absent.items()},
    }
