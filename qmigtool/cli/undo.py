"""``undo``: edits taken back."""

from __future__ import annotations

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import (
    file_argument,
    finish,
    json_option,
    opened,
    output_file,
)
from qmigtool.cli.shared.parameters import read_small
from qmigtool.rewrite.undo import MAX_PATCH
from qmigtool.rewrite.undo import undo as take_back
from qmigtool.util.text import printable


@command(
    "qmigtool rewrite samples/pc-7.2.mig --set cpu@0/env.mxcsr=0x1fa0 -o new.mig --undo new.patch",
    "qmigtool undo new.mig new.patch -o old.mig",
)
@file_argument
@click.argument("patch", metavar="PATCH")
@click.option("-o", "--output", required=True, metavar="OUT", help="The file to write; not FILE itself.")
@json_option
def undo(file: str, patch: str, output: str, as_json: bool) -> int:
    """Take back edits, with the patch of `rewrite --undo`.

    FILE is the output of that command, PATCH the patch that it wrote; OUT becomes the file that was its input. If FILE
    is that input, the edits are made again. Any other file is refused.
    """
    raw = read_small(patch, MAX_PATCH)
    with opened(file, spool=True) as stream:
        with output_file(output) as target:
            done = take_back(stream, raw, target, check=output != "-")
        if as_json and output != "-":
            print_json(done.as_dict(stream))
        else:
            spans = f"{done.spans} span{'s' if done.spans != 1 else ''}"
            say_error(f"{output}: {done.size} bytes, {spans} of {printable(file)} replaced")
        return finish(stream)
