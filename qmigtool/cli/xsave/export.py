"""``xsave export``: an area from a stream."""

from __future__ import annotations

import click

from qmigtool import xsave as core
from qmigtool.cli.shared.areas import report
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.output import (
    accelerator_option,
    file_argument,
    finish,
    json_option,
    opened,
    schema_option,
    write_output,
)
from qmigtool.cli.shared.parameters import (
    format_choice,
    mask_option,
    number_of,
    target_mask_option,
    the_layout_option,
)
from qmigtool.cli.shared.vcpus import some_vcpus
from qmigtool.documents.presence import ranges
from qmigtool.errors import UsageError
from qmigtool.xsave import Format, Layout, XsaveArea
from qmigtool.xsave.check import MSHV_MASK
from qmigtool.xsave.components import XCOMP_BV_COMPACTED


@command("qmigtool xsave export samples/pc-7.2.mig --vcpu 0 --format compacted --layout amd-zen4 -o vcpu0.xsave")
@file_argument
@click.option(
    "--vcpu", type=number_of("--vcpu"), required=True, metavar="N", help="The vCPU (instance of the cpu section)."
)
@click.option("--format", "form", type=format_choice, required=True, help="The format of the area.")
@the_layout_option
@click.option("-o", "--output", required=True, metavar="OUT", help='The file to write; "-" is standard output.')
@target_mask_option
@mask_option("--drop", default=0, help="Components that may be lost.")
@click.option(
    "--xstate-bv",
    "declared",
    type=click.Choice(["auto", "declared", "recomputed"]),
    default="auto",
    help="The XSTATE_BV of the area: declared by the stream, or recomputed from the contents (auto: for TCG).",
)
@accelerator_option
@schema_option
@json_option
def export(
    file: str,
    vcpu: int,
    form: str,
    layout: Layout,
    output: str,
    mask: int | None,
    drop: int,
    declared: str,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Write the XSAVE area of a vCPU to a file.

    Exit status 1 where live state would be lost (--drop allows it).
    """
    with opened(file, accelerator, schema=schema) as stream:
        found = {v.index: v for v in some_vcpus(stream)}
        if vcpu not in found:
            raise UsageError(f"no vCPU {vcpu}", expected=f"one of {ranges(sorted(found))}")
        one = found[vcpu]
        area = one.xsave_area(xstate_bv=declared)
        result = core.convert(
            area.data, area.layout, Format(form), target=layout, mask=mask, supervisor=area.supervisor, drop=drop
        )
        notes = list(result.notes)
        if area.xstate_bv != one.xstate_bv:
            notes.insert(0, f"XSTATE_BV recomputed from the contents: {area.xstate_bv:#x}, declared {one.xstate_bv:#x}")
        elif one.undeclared:
            names = " ".join(core.mask_names(one.undeclared))
            notes.insert(0, f"not declared, so taken as initial although not zero: {names} (see --xstate-bv)")
        if one.device.schema_name is not None:
            notes.append(f"decoded by a schema learned from other streams: {one.device.schema_name}")
        notes += [note for note in core.area_notes(result.data, layout) if note not in notes]
        if form == Format.COMPACTED:
            notes += _mshv_notes(result.data, layout, one.xcr0)
        write_output(output, result.data)
        report(result, layout, notes, output, as_json=as_json)
        return finish(stream)


def _mshv_notes(data: bytes, layout: Layout, xcr0: int) -> list[str]:
    """Report whether MSHV would refuse the mask, and which one it accepts."""
    mask = XsaveArea(data, layout).xcomp_bv & ~XCOMP_BV_COMPACTED
    if not mask & ~MSHV_MASK:
        return []
    names = " ".join(core.mask_names(mask & ~MSHV_MASK))
    return [
        f"MSHV's XFEM register has no bit for {names}: for MSHV give --mask {mask & MSHV_MASK:#x} "
        f"(the guest's XCR0 is {xcr0:#x})"
    ]
