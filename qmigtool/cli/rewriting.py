"""``rewrite`` and ``undo``: a stream with edits made to it, and taken back."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qmigtool.cli.output import (
    accelerator_option,
    file_argument,
    finish,
    json_option,
    opened,
    output_file,
    print_cells,
    print_json,
    printable,
    problems_json,
    say,
    schema_option,
    write_output,
)
from qmigtool.cli.parameters import layout_value, read_small
from qmigtool.errors import StreamError, UsageError
from qmigtool.rewrite import Rewriter, write_stream
from qmigtool.rewrite.changes import as_text
from qmigtool.rewrite.edits import Edit, apply, load_edits
from qmigtool.rewrite.undo import MAX_PATCH, make_patch, read_patch
from qmigtool.rewrite.values import brief, parse

if TYPE_CHECKING:
    from qmigtool.rewrite.splice import Splice
    from qmigtool.stream import Stream

MAX_EDITS = 1 << 20  # bytes of a file of edits
SHOWN_BYTES = 8
_SIZE = re.compile(r"(0x[0-9a-fA-F]{1,16}|[0-9]{1,20})([KMG]?)(?:iB)?")
MAX_SHOWN = 4096  # bytes of a splice in JSON


# -- options that are edits ------------------------------------------------------------------------------------------


def _pair(text: str, first: str, second: str) -> dict[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"{text!r} has no '='", expected=f"{first.upper()}={second.upper()}")
    return {first: name, second: value}


def _set(text: str) -> dict[str, Any]:
    pair = _pair(text, "path", "value")
    return {"path": pair["path"], "to": parse(pair["value"])}


def _named(text: str) -> dict[str, Any]:
    name, _, data = text.partition("=")
    return {"name": name, "data": data or None}


def _section(text: str) -> dict[str, Any]:
    name, at, instance = text.rpartition("@")
    if not at or not instance.isdecimal():
        return {"name": text, "instance_id": 0}
    if len(instance) > 10:
        raise UsageError(f"the instance {instance[:20]}... does not fit", expected="0 to 0xffffffff")
    return {"name": name, "instance_id": int(instance)}


def _add_section(name: str, version: str) -> dict[str, Any]:
    version, _, data = version.partition("=")
    return {**_section(name), "version": version, "data": data or None}


def _resize(name: str, size: str) -> dict[str, Any]:
    match = _SIZE.fullmatch(size)
    if match is None:
        raise UsageError(
            f"--resize-block: {brief(size)} is no size", expected="bytes, or with a unit: 0x80000, 512K, 1M"
        )
    return {"name": name, "to": int(match[1], 0) << 10 * " KMG".index(match[2] or " ")}


def _rename_section(path: str, to: str) -> dict[str, Any]:
    section = _section(to)
    instance = section["instance_id"] if "@" in to else None
    return {"path": path, "to": section["name"], "instance_id": instance}


@dataclass(frozen=True, slots=True)
class EditOption:
    """An option that is an edit: what it takes on the command line, and the parameters that this means."""

    op: str
    metavar: tuple[str, ...]
    help: str
    parameters: Callable[..., dict[str, Any]]

    @property
    def flag(self) -> str:
        """The option."""
        return f"--{self.op}"

    @property
    def dest(self) -> str:
        """What click calls its value."""
        return "edit_" + self.op.replace("-", "_")

    def decorate(self, command: Any) -> Any:
        """Add the option to a command."""
        more: dict[str, Any] = {"multiple": True, "help": self.help}
        if not self.metavar:
            more = {"is_flag": True, "help": self.help}
        else:
            more |= {"nargs": len(self.metavar), "metavar": " ".join(self.metavar)}
        return click.option(self.flag, self.dest, **more)(command)


def _one(name: str) -> Callable[[str], dict[str, Any]]:
    return lambda text: {name: text}


def _two(first: str, second: str) -> Callable[[str, str], dict[str, Any]]:
    return lambda one, other: {first: one, second: other}


EDIT_OPTIONS = (
    EditOption("set", ("PATH=VALUE",), "Give a field another value: cpu@0/env.mxcsr=0x1f80, .../env.dr=[0,...].", _set),
    EditOption(
        "add-subsection",
        ("PARENT", "NAME[=HEX]"),
        "Put a subsection in, its fields zero (or these bytes).",
        lambda path, name: {"path": path, **_named(name)},
    ),
    EditOption("drop-subsection", ("PATH",), "Leave a subsection out: cpu@0/cpu/pkru.", _one("path")),
    EditOption("rename-subsection", ("PATH", "NAME"), "Give a subsection another name.", _two("path", "to")),
    EditOption("add-section", ("NAME[@N]", "VERSION[=HEX]"), "Put a section in, behind the last.", _add_section),
    EditOption("drop-section", ("NAME[@N]",), "Leave a section out: kvmclock.", _one("path")),
    EditOption("rename-section", ("NAME[@N]", "NAME[@N]"), "Give a section another name or instance.", _rename_section),
    EditOption("set-version", ("PATH", "N"), "Give a section or subsection another version_id.", _two("path", "to")),
    EditOption("machine-type", ("NAME",), "Give the stream another machine type; the state stays.", _one("name")),
    EditOption(
        "upgrade-machine", ("NAME",), "Give the stream another version of its machine type, and fit it.", _one("name")
    ),
    EditOption("add-capability", ("NAME",), "List a migration capability.", _one("name")),
    EditOption("drop-capability", ("NAME",), "List a migration capability no more.", _one("name")),
    EditOption("drop-command", ("NAME",), "Leave commands out: SWITCHOVER_START.", _one("name")),
    EditOption("rename-block", ("NAME", "NAME"), "Give a RAM block another name.", _two("name", "to")),
    EditOption("resize-block", ("NAME", "BYTES"), "Give a RAM block another size: 0x80000, 512K, 1M.", _resize),
    EditOption("drop-block", ("NAME",), "Leave a RAM block out.", _one("name")),
    EditOption("ram", ("plain|mapped-ram",), "Write memory as plain records, or as mapped-ram.", _one("format")),
    EditOption("squeeze-zero-pages", (), "Make pages of zeros zero pages.", dict),
    EditOption("scrub-ram", (), "Make every page a zero page.", dict),
    EditOption("scrub-block", ("NAME",), "Make every page of a RAM block a zero page.", _one("names")),
    EditOption("drop-component", ("MASK",), "Take components away: amx,pkru.", _one("mask")),
    EditOption("set-xcr0", ("VCPU", "MASK"), "Give a vCPU another XCR0.", _two("vcpu", "mask")),
    EditOption("repair", ("xstate-bv",), "Declare in XSTATE_BV what is live.", _one("what")),
    EditOption("to-accelerator", ("kvm|tcg|mshv|whpx",), "Turn the state into what it takes.", _one("name")),
    EditOption("edits", ("TOML",), "Make the edits of a file, in its place among the others.", _one("file")),
)


class EditCommand(click.Command):
    """A command that remembers in which order its options came: edits apply in that order."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and note the order."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[__name__] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


def edit_options(command: Any) -> Any:
    """Add every option that is an edit."""
    for option in reversed(EDIT_OPTIONS):
        command = option.decorate(command)
    return command


def ordered_edits(order: list[str | None], given: dict[str, Any]) -> list[Edit]:
    """Return the edits of a command line, in its order."""
    by_dest = {option.dest: option for option in EDIT_OPTIONS}
    left = {dest: list(given[dest]) if by_dest[dest].metavar else [()] for dest in by_dest}
    found = []
    for name in order:
        option = by_dest.get(name or "")
        if option is None or not left[option.dest]:
            continue
        value = left[option.dest].pop(0)
        parameters = option.parameters(*(value if isinstance(value, tuple) else (value,)))
        if option.op == "edits":
            text = read_small(parameters["file"], MAX_EDITS)
            found += load_edits(text.decode("utf-8", "replace"), parameters["file"])
        else:
            found.append(Edit("scrub-ram" if option.op == "scrub-block" else option.op, parameters))
    return found


# -- rewrite ---------------------------------------------------------------------------------------------------------


@click.command(cls=EditCommand)
@file_argument
@click.option("-o", "--output", metavar="OUT", help="Where to write; never FILE itself.")
@edit_options
@click.option(
    "--for",
    "layout",
    type=layout_value,
    metavar="LAYOUT",
    help="Refuse an output that a CPU of this layout cannot hold.",
)
@click.option("--xcr0", metavar="MASK", help="The components of the target's XCR0 (--to-accelerator).")
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
    xcr0: str | None,
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
    edits = [_with_target(edit, layout, xcr0, absent) for edit in ordered_edits(ctx.meta[__name__], given)]
    ops = {edit.op for edit in edits}
    for option, used, op in (
        ("--xcr0", xcr0 is not None, "to-accelerator"),
        ("--lossy", lossy, "to-accelerator"),
        ("--absent", absent != "error", "ram"),
    ):
        if used and op not in ops:
            raise UsageError(f"{option} goes with --{op}")
    with opened(file, accelerator, schema=schema, channels=channels) as stream:
        if not edits and layout is None:
            return _copy(stream, file, output, dry_run=dry_run, as_json=as_json)
        rewriter = Rewriter(stream, lossy=lossy)
        for edit in edits:
            apply(rewriter, edit)
        if layout is not None:
            rewriter.require_layout(layout)
        splices = rewriter.splices()
        patch = None if undo is None else make_patch(stream, splices)
        written = None
        if not dry_run and output is not None:
            plans = [edits_file for edits_file in given["edit_edits"] if edits_file != "-"]
            inputs = [file, *channels, *plans, *([schema] if schema else [])]
            written = _write(rewriter, splices, output, *inputs)
            if undo is not None and patch is not None:
                write_output(undo, patch, *inputs, output)
        _report(rewriter, splices, written, output, dry_run=dry_run, as_json=as_json)
        return finish(stream)


def need_output(output: str | None, *, dry_run: bool) -> None:
    """Make sure that it is said where to write; raises :class:`~qmigtool.errors.UsageError`."""
    if output is None and not dry_run:
        raise UsageError("where shall it go?", expected="-o OUT, or --dry-run")


def write_edited(rewriter: Rewriter, output: str, *inputs: str, as_json: bool, dry_run: bool = False) -> int:
    """Write a stream with its edits, and say what was changed; return the exit status."""
    splices = rewriter.splices()
    written = None if dry_run else _write(rewriter, splices, output, *inputs)
    _report(rewriter, splices, written, output, dry_run=dry_run, as_json=as_json)
    return finish(rewriter.draft.stream)


def _with_target(edit: Edit, layout: Any, xcr0: str | None, absent: str) -> Edit:
    """Give edits what other options say of their target."""
    if edit.op == "to-accelerator":
        return Edit(edit.op, {"layout": layout, "xcr0": xcr0, **edit.parameters}, edit.why)
    if edit.op == "ram":
        return Edit(edit.op, {"absent": absent, **edit.parameters}, edit.why)
    return edit


def _write(rewriter: Rewriter, splices: list[Splice], output: str, *inputs: str) -> int:
    """Write the output; ``-`` is standard output, which cannot be read again."""
    if output == "-":
        with output_file(output, *inputs) as target:
            return rewriter.write(target, splices)
    return rewriter.save(output, *(one for one in inputs if one != "-"), splices=splices)


def _copy(stream: Stream, file: str, output: str | None, *, dry_run: bool, as_json: bool) -> int:
    """Write a stream without edits: also one that is not whole."""
    written = None
    if not dry_run and output is not None:
        with output_file(output, file) as target:
            written = write_stream(stream, target)
    if as_json and output != "-":
        print_json({"edits": [], "bytes": written, **problems_json(stream)})
    else:
        print(f"{output}: {written} bytes, no edits" if written is not None else "no edits", file=sys.stderr)
    return finish(stream)


def _report(
    rewriter: Rewriter, splices: list[Splice], written: int | None, output: str | None, *, dry_run: bool, as_json: bool
) -> None:
    """Say what was changed, or would be: on stdout, unless the stream itself goes there."""
    stream = rewriter.draft.stream
    if as_json and (output != "-" or dry_run):
        print_json(_document(rewriter, stream, splices, written))
    else:
        _print(rewriter, stream, splices, written, output, dry_run=dry_run)


def _document(rewriter: Rewriter, stream: Stream, splices: list[Splice], written: int | None) -> dict[str, Any]:
    return {
        "edits": [change.as_dict() for change in rewriter.changes],
        "losses": rewriter.losses,
        "notes": rewriter.notes,
        "splices": [_splice(splice, stream) for splice in splices],
        "bytes": written,
        **problems_json(stream),
    }


def _splice(splice: Splice, stream: Stream) -> dict[str, Any]:
    """Return what ``--json`` says of a splice; bytes that nobody would look through are left out (null)."""
    short = splice.length <= MAX_SHOWN and isinstance(splice.data, bytes) and len(splice.data) <= MAX_SHOWN
    return {
        "offset": f"{splice.offset:#x}",
        "old_length": splice.length,
        "new_length": splice.size,
        "old": bytes(stream.source.view(splice.offset, splice.length)).hex() if short else None,
        "new": splice.data.hex() if short and isinstance(splice.data, bytes) else None,
    }


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
            print_cells(head, lines, [False, True, False, False, False])
        reasons = dict.fromkeys((change.edit, change.why) for change in rewriter.changes if change.why)
        if reasons:
            print()
        for edit, why in reasons:
            say(printable(f"{edit}: {why}"))
        if dry_run and splices:
            print()
            _print_splices(stream, splices)
    for loss in rewriter.losses:
        print(f"lost: {printable(loss)}", file=sys.stderr)
    for note in rewriter.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    count = len(rewriter.changes)
    words = f"{count} change{'s' if count > 1 else ''}" if splices else "nothing changes"
    if written is None:
        print(f"{words}, nothing written", file=sys.stderr)
    else:
        print(f"{output}: {written} bytes, {words}", file=sys.stderr)


def _print_splices(stream: Stream, splices: list[Splice]) -> None:
    """Print the bytes that would change, as they lie in FILE."""
    say("bytes of FILE that would be replaced; all others are copied")
    lines = []
    for splice in splices:
        old = bytes(stream.source.view(splice.offset, min(splice.length, SHOWN_BYTES + 1)))
        new = splice.data if isinstance(splice.data, bytes) else None
        lines.append(
            [
                f"{splice.offset:#x}",
                str(splice.length),
                str(splice.size),
                _hex(old, splice.length),
                _hex(new, splice.size) if new is not None else "(memory)",
            ]
        )
    print_cells(["offset", "old length", "new length", "old", "new"], lines, [True, True, True, False, False])


def _hex(raw: bytes, length: int) -> str:
    return raw[:SHOWN_BYTES].hex() + ("..." if length > SHOWN_BYTES else "") or "-"


# -- undo ------------------------------------------------------------------------------------------------------------


@click.command()
@file_argument
@click.argument("patch", metavar="PATCH")
@click.option("-o", "--output", required=True, metavar="OUT", help="Where to write; never FILE itself.")
@json_option
def undo(file: str, patch: str, output: str, as_json: bool) -> int:
    """Take edits back: write FILE as it was before `rewrite --undo PATCH`.

    Given the file as it was before, makes the edits again. Any other file is refused.
    """
    raw = read_small(patch, MAX_PATCH)
    with opened(file) as stream:
        splices = read_patch(stream, raw)
        with output_file(output, file, patch) as target:
            written = write_stream(stream, target, splices)
            target.flush()
            if output != "-":
                with opened(f"/dev/fd/{target.fileno()}") as result:
                    if not result.complete:
                        raise StreamError(f"the patch makes an unreadable stream of this one: {result.error}")
        if as_json and output != "-":
            print_json({"spans": len(splices), "bytes": written, **problems_json(stream)})
        else:
            print(f"{output}: {written} bytes, {len(splices)} spans of {printable(file)} replaced", file=sys.stderr)
        return finish(stream)
