"""Writing what was edited, for every command that edits a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qmigtool.cli.shared.editreport import report
from qmigtool.cli.shared.output import finish, inputs_read, output_file
from qmigtool.errors import UsageError
from qmigtool.rewrite import Rewriter

if TYPE_CHECKING:
    from qmigtool.rewrite.splice import Splice

output_option = click.option("-o", "--output", metavar="OUT", help="The file to write; not FILE itself.")
lossy_option = click.option(
    "--lossy", is_flag=True, help="Drop live state that a stream cannot hold or XCR0 does not enable, and list it."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would change, and write nothing.")


def need_output(output: str | None, *, dry_run: bool) -> None:
    """Require an output or --dry-run; raises :class:`~qmigtool.errors.UsageError`."""
    if output is None and not dry_run:
        raise UsageError("no output file", expected="-o OUT, or --dry-run")


def write_edited(rewriter: Rewriter, output: str, *, as_json: bool, dry_run: bool = False) -> int:
    """Write a stream with its edits, print the changes, and return the exit status."""
    rewriter.gather()
    splices = rewriter.splices()
    written = None if dry_run else write_to(rewriter, splices, output)
    report(rewriter, splices, written, output, dry_run=dry_run, as_json=as_json)
    return finish(rewriter.draft.stream)


def write_to(rewriter: Rewriter, splices: list[Splice], output: str) -> int:
    """Write the output; ``-`` is standard output, which cannot be read again."""
    if output == "-":
        with output_file(output) as target:
            return rewriter.write(target, splices)
    return rewriter.save(output, *inputs_read(), splices=splices)
