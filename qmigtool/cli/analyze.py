"""``analyze``: a stream printed as QEMU's analyze-migration.py does."""

from __future__ import annotations

import sys

import click

from qmigtool import analyze as documents
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.output import file_argument, finish, opened
from qmigtool.util.jsontext import write_json


@command("qmigtool analyze samples/pc-7.2.mig -d desc")
@file_argument
@click.option(
    "-d", "--dump", type=click.Choice(["state", "desc"]), default="state", help="What to print.", show_default=True
)
def analyze(file: str, dump: str) -> int:
    """Print what QEMU's analyze-migration.py prints.

    With -d state, the device state; with -d desc, the vmdesc. The output is the same, character by character.
    """
    with opened(file) as stream:
        document = documents.desc(stream) if dump == "desc" else documents.lazy_state(stream)
        write_json(sys.stdout, document, indent=4)
        sys.stdout.write("\n")
        return finish(stream)
