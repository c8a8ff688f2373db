"""What commands that open streams share: options, tables for people and programs, files."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from qmigtool.cli.shared.folding import folded, wrapped
from qmigtool.cli.shared.messages import complain, say_error
from qmigtool.cli.shared.terminal import columns, styled
from qmigtool.devices.schema.model import load_file
from qmigtool.errors import OutputError, QmigError, StreamError, UnsupportedError, UsageError
from qmigtool.parsers.section import Type
from qmigtool.parsers.source import BufferSource, FileSource
from qmigtool.stream.model import Stream
from qmigtool.stream.opening import open_stream
from qmigtool.tables import Column
from qmigtool.util.files import refuse_input, replacing
from qmigtool.util.text import csv_text, printable
from qmigtool.x86.traits import NAMES

if TYPE_CHECKING:
    from qmigtool.tables import Row

LOOKED_AT = 1 << 16  # bytes after a stream; zeros are padding
SHOWN_WALK = 256 << 20  # bytes of RAM's records that a command which only shows walks over
SHOWN_RUNS = 1_500_000  # runs of them, a second; 256 MiB of pages that each are a run are 65,000
F = TypeVar("F", bound=Callable[..., Any])
_SNAPSHOT, _MIGRATION = "qmigtool.snapshot", "qmigtool.migration"
_READ = "qmigtool.inputs"  # in click's ``Context.meta``: files that the command has read


def _remember_snapshot(context: click.Context, _parameter: click.Parameter, name: str | None) -> None:
    context.meta[_SNAPSHOT] = name


def _remember_migration(context: click.Context, _parameter: click.Parameter, number: int | None) -> None:
    context.meta[_MIGRATION] = number


migration_option = click.option(
    "--migration",
    metavar="N",
    type=click.IntRange(min=1),
    expose_value=False,
    callback=_remember_migration,
    help="The migration in a capture that has several, by number.",
)


def snapshot_option(command: F) -> F:
    """Give a command the options that select one of several states in a container (:func:`opened` reads them)."""
    snapshot = click.option(
        "--snapshot",
        metavar="NAME",
        expose_value=False,
        callback=_remember_snapshot,
        help="The snapshot of a qcow2 image, by name or id.",
    )
    return snapshot(migration_option(command))


def file_argument(command: F) -> F:
    """Give a command FILE, and the options that select a stream of a container (:func:`opened` reads them)."""
    return click.argument("file", metavar="FILE")(snapshot_option(command))


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
csv_option = click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, with a header.")
accelerator_option = click.option(
    "--accelerator",
    metavar="NAME",
    help=f"The accelerator that saved the stream ({', '.join(NAMES)}), on which the meaning of some fields depends; by "
    "default inferred from the device state.",
)


prove_option = click.option(
    "--prove",
    is_flag=True,
    help="Prove the device state by all page headers of RAM, not only 256 MiB of them.",
)
schema_option = click.option(
    "--schema",
    metavar="FILE",
    help="A schema (from `schema learn`) for a stream without a vmdesc.",
)


@contextmanager
def opened(
    file: str,
    accelerator: str | None = None,
    *,
    schema: str | None = None,
    channels: Sequence[str] = (),
    keep_runs: bool = False,
    forward: bool = False,
    snapshot: str | None = None,
    migration: int | None = None,
    walk: int | None = None,
    spool: bool = False,
) -> Iterator[Stream]:
    """Open FILE and prove its device state; ``-`` is standard input. An error that is raised names its file.

    ``snapshot`` is what ``--snapshot`` says, unless it is given; ``spool`` keeps all of what comes through a pipe.
    ``walk`` is for commands that only show: over so many bytes of RAM's records, and :data:`SHOWN_RUNS` runs of them,
    the proof goes at most, and if that is not enough, stderr says so. Where the stream is broken, its own error is
    raised, rather than one about what it therefore lacks or about what is not supported.
    """
    snapshot = chosen_snapshot(snapshot)
    remember_inputs(file, *channels, *([] if schema is None else [schema]))
    stream = None
    try:
        with open_stream(
            standard_input() if file == "-" else file,
            accelerator=accelerator,
            forward=forward,
            channels=channels,
            schema=None if schema is None else load_file(schema),
            keep_runs=keep_runs,
            snapshot=snapshot,
            migration=chosen_migration(migration),
            spool=spool,
        ) as stream:
            if not stream.prove(walk, None if walk is None else SHOWN_RUNS):
                say_unproved(stream, file)
            elif walk is not None:
                _say_behind(stream, file)
            yield stream
    except QmigError as error:
        broken = [] if stream is None else [one for one in stream.problems if isinstance(one, StreamError)]
        if broken and error.exit_code != StreamError.exit_code and not isinstance(error, OutputError):
            complain(error)
            broken[0].file = broken[0].file or file
            raise broken[0] from None
        if not isinstance(error, UsageError):
            error.file = error.file or file
        raise


def _say_behind(stream: Stream, file: str) -> None:
    """Report on stderr that something follows the stream, where no other message does."""
    if stream.strategy == "tail-first" or stream.problems or not isinstance(stream.source, BufferSource):
        return
    last = stream.sections[-1]
    if last.type is Type.TAIL and any(stream.source.view(last.offset, min(last.length, LOOKED_AT))):
        say_error(f"qmigtool: {file}: note: {last.length} bytes follow the stream, from {last.offset:#x} on")


def chosen_snapshot(snapshot: str | None = None) -> str | None:
    """Return ``snapshot``, or what ``--snapshot`` says."""
    context = click.get_current_context(silent=True)
    return context.meta.get(_SNAPSHOT) if snapshot is None and context is not None else snapshot


def chosen_migration(migration: int | None = None) -> int | None:
    """Return ``migration``, or what ``--migration`` says."""
    context = click.get_current_context(silent=True)
    return context.meta.get(_MIGRATION) if migration is None and context is not None else migration


def say_unproved(stream: Stream, file: str) -> None:
    """Report on stderr that device state was found from the end of the file, and may be another stream's."""
    why = "" if stream.problems else ": RAM's records were not walked to it (--prove walks them)"
    say_error(f"qmigtool: {file}: not proved to be this stream's device state{why}")


def standard_input() -> BinaryIO | BufferSource:
    """Return stdin: as a file if it is one (``< FILE``), which can be read from its end, else as a pipe."""
    if sys.stdin is None:
        raise UsageError("there is no standard input")
    with contextlib.suppress(io.UnsupportedOperation):  # a stand-in without a file, as in a test
        number = sys.stdin.fileno()
        if stat.S_ISREG(os.fstat(number).st_mode):
            return FileSource.of_open_file(number)
    return sys.stdin.buffer


def finish(stream: Stream, *more: QmigError) -> int:
    """Report the stream's errors on stderr; return the exit status."""
    problems = [*stream.problems, *more]
    for problem in problems:
        problem.file = problem.file or stream.source.name
        complain(problem)
    return exit_status(problems)


def exit_status(problems: Iterable[QmigError]) -> int:
    """Return the exit status for what was found in the input; 0 for nothing."""
    # Broken outweighs unsupported: a damaged stream should not look like a new format.
    codes = {problem.exit_code for problem in problems}
    return min(codes - {UnsupportedError.exit_code} or codes, default=0)


def print_csv(of: Sequence[Column], rows: Iterable[Row]) -> None:
    """Print rows as CSV: masks in hexadecimal, missing values empty, flags as true and false."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([column.name for column in of])
    for row in rows:
        writer.writerow([_csv_cell(column, value) for column, value in zip(of, row, strict=True)])


def print_table(of: Sequence[Column], rows: Iterable[Row]) -> None:
    """Print rows for people, as :func:`print_cells` does."""
    cells = [[_cell(column, value, ("yes", "no")) for column, value in zip(of, row, strict=True)] for row in rows]
    right = [column.dtype.startswith(("UInt", "Int")) for column in of]
    print_cells([column.name for column in of], cells, right)


def print_cells(
    head: Sequence[str],
    cells: Sequence[Sequence[str]],
    right: Sequence[bool],
    colour: Callable[[int, int], str | None] | None = None,
    *,
    keys: int | None = None,
) -> None:
    """Print cells that are text already, folded to the terminal; nothing is ever cut.

    ``right`` gives the columns that are aligned to the right, ``colour`` the colour of the cell in a line and a column.
    A table that is too wide is stacked; with ``keys`` it is split, and so many columns begin each part.
    """
    for number, rows in enumerate(folded(head, cells, right, columns(), keys)):
        if number:
            print()
        for i, row in enumerate(rows, -1):  # -1: the head
            for line in row:
                shown = [*line.cells]
                while shown and not shown[-1].strip():
                    shown.pop()
                colours = [None if i < 0 or colour is None else colour(i, column) for column in line.columns]
                painted = [_painted(cell, one, bold=i < 0) for cell, one in zip(shown, colours, strict=False)]
                print((" " * line.indent + "  ".join(painted)).rstrip())


def _painted(cell: str, colour: str | None, *, bold: bool) -> str:
    """Return a padded cell with its text in a colour."""
    text = cell.strip()
    return cell.replace(text, styled(text, colour, bold=bold), 1) if text and (colour or bold) else cell


def say(text: str) -> None:
    """Print a sentence, folded at words on a terminal."""
    width = columns()
    print(text if width is None else "\n".join(wrapped(text, width, hanging=2 + len(text) - len(text.lstrip(" ")))))


def _cell(column: Column, value: Any, flags: tuple[str, str]) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return flags[0] if value else flags[1]
    if isinstance(value, bytes):
        return value.hex()
    if column.mask:
        return f"{value:#x}"
    return printable(str(value))


def _csv_cell(column: Column, value: Any) -> str:
    """Return a cell of CSV; text never is a formula."""
    return csv_text(value) if isinstance(value, str) else _cell(column, value, ("true", "false"))


def remember_inputs(*paths: str) -> None:
    """Record that the command reads these files (``-``: standard input), so that no output replaces them."""
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta.setdefault(_READ, []).extend(paths)


def inputs_read() -> tuple[str, ...]:
    """Return the existing files of :func:`remember_inputs` during this command."""
    context = click.get_current_context(silent=True)
    named = () if context is None else context.meta.get(_READ, ())
    return tuple(one for one in named if one == "-" or os.path.exists(one))  # noqa: PTH110 - pathlib's may raise


@contextmanager
def output_file(path: str) -> Iterator[BinaryIO]:
    """Give the file to write to, never an input; ``-`` is standard output. See :mod:`qmigtool.util.files`."""
    inputs = inputs_read()
    if path == "-":
        if sys.__stdout__ is None:
            raise OutputError("standard output is closed")
        with contextlib.suppress(io.UnsupportedOperation):  # a stand-in without a file, as in a test
            refuse_input(os.fstat(sys.stdout.fileno()), path, *(one for one in inputs if _is_file(one)))
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            # Not a normal end: the output is not complete.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise OutputError("the reader of standard output closed it before the end") from None
        return
    with replacing(path, *inputs) as file:
        yield file


def _is_file(name: str) -> bool:
    """Return whether an input is a regular file: a terminal may be both input and output."""
    mode = os.fstat(0).st_mode if name == "-" else os.stat(name).st_mode  # noqa: PTH116 - as for the other
    return stat.S_ISREG(mode)


def write_output(path: str, data: bytes) -> None:
    """Write a small file, or to standard output."""
    with output_file(path) as file:
        file.write(data)
