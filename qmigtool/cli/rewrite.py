"""``rewrite``: a stream with edits made to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.editoptions import EDIT_HEADINGS, ORDER, EditCommand, edit_options, ordered_edits
from qmigtool.cli.shared.editreport import report
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.othernames import renamed_option
from qmigtool.cli.shared.output import (
    accelerator_option,
    file_argument,
    finish,
    json_option,
    opened,
    output_file,
    remember_inputs,
    schema_option,
    write_output,
)
from qmigtool.cli.shared.parameters import layout_value, mask_option
from qmigtool.errors import UsageError
from qmigtool.rewrite import Rewriter, write_stream
from qmigtool.rewrite.document import copy_document
from qmigtool.rewrite.draft import taken_off
from qmigtool.rewrite.edits import Edit, apply
from qmigtool.rewrite.undo import make_patch

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream
from qmigtool.cli.shared.edited import need_output, write_to


@command(
    "qmigtool rewrite samples/pc-7.2.mig --set cpu@0/env.mxcsr=0x1fa0 --dry-run",
    "qmigtool rewrite samples/twin-tcg-10.0.mig --to-accelerator kvm --layout amd-zen4 -o kvm.mig",
    headings={
        **EDIT_HEADINGS,
        "Target": ("--layout", "--xcr0", "--lossy"),
        "Inputs": ("--channel", "--absent", "--snapshot", "--migration", "--accelerator", "--schema"),
        "Output": ("--output", "--dry-run", "--undo", "--json"),
    },
    cls=EditCommand,
)
@file_argument
@click.option("-o", "--output", metavar="OUT", help="The file to write; not FILE itself.")
@edit_options
@click.option(
    "--layout",
    type=layout_value,
    metavar="LAYOUT",
    help="The layout of the target's CPU; an output that does not fit it is refused.",
)
@renamed_option("--for", "--layout")
@mask_option("--xcr0", help="The target's XCR0 (for --to-accelerator).")
@click.option(
    "--lossy", is_flag=True, help="Drop state that the target cannot hold, and list it (for --to-accelerator)."
)
@click.option(
    "--absent",
    type=click.Choice(["error", "zero"]),
    default="error",
    help="Pages that are in no channel (for --ram).",
    show_default=True,
)
@click.option(
    "--channel",
    "channels",
    multiple=True,
    metavar="FILE",
    help="An extra channel of the migration, for --ram (repeatable).",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and write nothing.")
@click.option(
    "--undo", metavar="PATCH", help="Also write a patch for `qmigtool undo`, if the edits change bytes in place."
)
@accelerator_option
@schema_option
@json_option
@click.pass_context
def rewrite(
    ctx: click.Context,
    /,
    file: str,
    output: str | None,
    layout: Any,
    xcr0: int | None,
    lossy: bool,
    absent: str,
    channels: tuple[str, ...],
    dry_run: bool,
    undo: str | None,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Write a stream again, with edits.

    Edits apply in the order in which they are given. Every change is listed with its offset in FILE, the old and the
    new value. What no edit changes is copied, so without edits OUT is identical to FILE. OUT is written to a temporary
    file, read again, and renamed.

    Exit status 1 where live state would be lost (--lossy drops it).
    """
    need_output(output, dry_run=dry_run)
    if undo is not None and (undo == "-" or (output is not None and Path(undo).resolve() == Path(output).resolve())):
        raise UsageError("the patch needs a file of its own", expected="--undo PATCH")
    edits = [_with_target(edit, layout, xcr0, absent) for edit in ordered_edits(ctx.meta[ORDER], given)]
    ops = {edit.op for edit in edits}
    for option, used, op in (
        ("--xcr0", xcr0 is not None, "to-accelerator"),
        ("--lossy", lossy, "to-accelerator"),
        ("--absent", absent != "error", "ram"),
    ):
        if used and op not in ops:
            raise UsageError(f"{option} is for --{op}")
    with opened(file, accelerator, schema=schema, channels=channels, spool=True) as stream:
        if not edits and layout is None and (stream.problems or not _in_channels(stream)):
            return _copy(stream, output, dry_run=dry_run, as_json=as_json)
        rewriter = Rewriter(stream, lossy=lossy)
        for edit in edits:
            apply(rewriter, edit)
        if layout is not None:
            rewriter.require_layout(layout)
        rewriter.gather()
        splices = rewriter.splices()
        patch = None if undo is None else make_patch(stream, splices)
        written = None
        if not dry_run and output is not None:
            written = write_to(rewriter, splices, output)
            if undo is not None and patch is not None:
                if output != "-":
                    remember_inputs(output)  # the patch may not take its place, either
                write_output(undo, patch)
        report(rewriter, splices, written, output, dry_run=dry_run, as_json=as_json)
        return finish(stream)


def _with_target(edit: Edit, layout: Any, xcr0: int | None, absent: str) -> Edit:
    """Give edits the facts that other options have about their target."""
    if edit.op == "to-accelerator":
        return Edit(edit.op, {"layout": layout, "xcr0": xcr0, **edit.parameters}, edit.why)
    if edit.op == "ram":
        return Edit(edit.op, {"absent": absent, **edit.parameters}, edit.why)
    return edit


def _in_channels(stream: Stream) -> bool:
    """Whether memory travelled in several channels, so that a copy of this one would lack it."""
    held, total = stream.pages_held
    return not stream.problems and (held != total or stream.channels > 0)


def _copy(stream: Stream, output: str | None, *, dry_run: bool, as_json: bool) -> int:
    """Write a stream without edits, even an incomplete one."""
    unwrapped = taken_off(stream)
    written = None
    if not dry_run and output is not None:
        with output_file(output) as target:
            written = write_stream(stream, target)
    if as_json and output != "-":
        print_json(copy_document(stream, unwrapped, written))
    else:
        for note in unwrapped:
            say_error(f"note: {note}")
        say_error(f"{output}: {written} bytes, no edits" if written is not None else "no edits")
    return finish(stream)
