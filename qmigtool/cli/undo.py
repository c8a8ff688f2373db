"""``undo``: edits taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import file_argument, finish, json_option, opened, output_file, problems_json
from qmigtool.cli.shared.parameters import read_small
from qmigtool.errors import StreamError
from qmigtool.rewrite import write_stream
from qmigtool.rewrite.undo import MAX_PATCH, read_patch
from qmigtool.util.text import printable

if TYPE_CHECKING:
    pass


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
        with output_file(output) as target:
            written = write_stream(stream, target, splices)
            target.flush()
            if output != "-":
                with opened(f"/dev/fd/{target.fileno()}") as result:
                    if not result.complete:
                        raise StreamError(f"the patch makes an unreadable stream of this one: {result.error}")
        if as_json and output != "-":
            print_json({"spans": len(splices), "bytes": written, **problems_json(stream)})
        else:
            say_error(f"{output}: {written} bytes, {len(splices)} spans of {printable(file)} replaced")
        return finish(stream)
