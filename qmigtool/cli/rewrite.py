"""``rewrite``: a stream with edits made to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qmigtool.cli.shared.editoptions import ORDER, EditCommand, edit_options, ordered_edits
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
    problems_json,
    remember_inputs,
    schema_option,
    write_output,
)
from qmigtool.cli.shared.parameters import layout_value, mask_option
from qmigtool.errors import UsageError
from qmigtool.rewrite import Rewriter, write_stream
from qmigtool.rewrite.draft import taken_off
from qmigtool.rewrite.edits import Edit, apply
from qmigtool.rewrite.undo import make_patch

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream
from qmigtool.cli.shared.edited import need_output, write_to


@click.command(cls=EditCommand)
@file_argument
@click.option("-o", "--output", metavar="OUT", help="Where to write; never FILE itself.")
@edit_options
@click.option(
    "--layout",
    type=layout_value,
    metavar="LAYOUT",
    help="Refuse an output that a CPU of this layout cannot hold.",
)
@renamed_option("--for", "--layout")
@mask_option("--xcr0", help="The components of the target's XCR0 (--to-accelerator).")
@click.option("--lossy", is_flag=True, help="Drop what the target cannot express, and say so (--to-accelerator).")
@click.option("--absent", type=click.Choice(["error", "zero"]), default="error", help="Pages in no channel (--ram).")
@click.option("--channel", "channels", multiple=True, metavar="FILE", help="An extra channel of the migration (--ram).")
@click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")
@click.option("--undo", metavar="PATCH", help="Also write a patch that `undo` takes OUT back with (edits in place).")
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
    """Write FILE again with edits made to it, in the order given. Without edits, byte for byte.

    Every change is listed with its offset in FILE, the old and the new value. What no edit touches is copied. OUT is
    written beside its place, read again, and renamed.
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
            raise UsageError(f"{option} goes with --{op}")
    with opened(file, accelerator, schema=schema, channels=channels) as stream:
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
    """Give edits what other options say of their target."""
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
    """Write a stream without edits: also one that is not whole."""
    unwrapped = taken_off(stream)
    written = None
    if not dry_run and output is not None:
        with output_file(output) as target:
            written = write_stream(stream, target)
    if as_json and output != "-":
        print_json({"edits": [], "notes": unwrapped, "bytes": written, **problems_json(stream)})
    else:
        for note in unwrapped:
            say_error(f"note: {note}")
        say_error(f"{output}: {written} bytes, no edits" if written is not None else "no edits")
    return finish(stream)
