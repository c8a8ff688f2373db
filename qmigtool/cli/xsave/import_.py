"""``xsave import``: an area put back into a stream."""

from __future__ import annotations

from functools import partial

import click

from qmigtool.cli.shared.areas import force_option, quirk_option, read_area, the_area_layout_option
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.edited import dry_run_option, lossy_option, need_output, output_option, write_edited
from qmigtool.cli.shared.output import accelerator_option, file_argument, json_option, opened, schema_option
from qmigtool.cli.shared.parameters import mask_option, number_of
from qmigtool.errors import LiveStateError, UsageError, XsaveError
from qmigtool.rewrite import Rewriter
from qmigtool.xsave import Layout, impossible_xcr0
from qmigtool.xsave.found import agreed, auto_note, contradictions, meaning, own_layout, placed


@command(
    "qmigtool xsave export samples/pc-7.2.mig --vcpu 0 --format standard --layout amd-zen4 -o vcpu0.xsave",
    "qmigtool xsave import samples/pc-7.2.mig vcpu0.xsave --vcpu 0 --layout amd-zen4 -o new.mig",
    name="import",
)
@file_argument
@click.argument("area", metavar="AREA")
@click.option(
    "--vcpu", type=number_of("--vcpu"), required=True, metavar="N", help="The vCPU (instance of the cpu section)."
)
@the_area_layout_option
@mask_option("--xcr0", help="Also set the XCR0 of the vCPU.")
@quirk_option
@lossy_option
@force_option
@output_option
@dry_run_option
@accelerator_option
@schema_option
@json_option
def import_area(
    file: str,
    area: str,
    vcpu: int,
    layout: Layout | str,
    xcr0: int | None,
    quirk: bool | None,
    lossy: bool,
    force: bool,
    output: str | None,
    dry_run: bool,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Put an XSAVE area into a stream.

    AREA is an area in standard or compacted format, alone or in a file that `xsave check` accepts; padding after it is
    ignored. Only fields whose meaning changes are written, so that an area that was exported and not changed gives an
    identical stream.

    Exit status 1 for live state that no field of a stream can hold (PT, PASID, HDC, UINTR, HWP, LWP) or that XCR0
    (--xcr0, else the vCPU's) does not enable, unless --lossy is given, and for an area that cannot be of the layout,
    unless --force is given. Exit status 63 where --layout auto finds no layout that fits, or several that read AREA
    differently, and where the accelerator that saved FILE would decide and is not known. --hyperv-quirk is on if MSHV
    or WHPX saved FILE.
    """
    need_output(output, dry_run=dry_run)
    holder = read_area(area)
    data, layout = holder.data, own_layout(holder, layout)
    with opened(file, accelerator, schema=schema, spool=True) as stream:
        try:
            wrong = contradictions(holder, layout) if isinstance(layout, Layout) else ()
            if wrong and not force:
                raise LiveStateError(f"the area is of another layout: {'; '.join(wrong)} (--force imports it)")
            found = agreed(data, layout, partial(placed, data), meaning)
            one = found.layouts[0]
            rewriter = Rewriter(stream, lossy=lossy)
            for note in (*filter(None, [holder.note]), *wrong, *auto_note(layout, found.layouts)):
                rewriter.draft.note(note)
            if xcr0 is not None:
                impossible = impossible_xcr0(xcr0, one)
                if impossible and not force:
                    raise UsageError(impossible[0], expected="an XCR0 of that CPU, or --force")
                rewriter.set_xcr0(vcpu, xcr0)
            rewriter.import_area(vcpu, found.result, force=force, hyperv_quirk=quirk)
        except XsaveError as error:
            if not isinstance(error, LiveStateError):
                error.file = area  # it is at fault, not the stream
            raise
        return write_edited(rewriter, output or "", as_json=as_json, dry_run=dry_run)
