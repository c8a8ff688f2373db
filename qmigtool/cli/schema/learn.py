"""``schema learn``: descriptions out of streams that have them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import exit_status, finish, json_option, opened, snapshot_option, write_output
from qmigtool.stream.learning import learn_from
from qmigtool.stream.model import Stream


@command("qmigtool schema learn samples/pc-7.2.mig samples/q35-7.2.mig -o pc.json.xz", name="learn")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--output", required=True, metavar="OUT", help="The file to write (.xz: compressed).")
@snapshot_option
@click.option("--name", help="The name of the schema; by default that of OUT.")
@json_option
def learn(files: tuple[str, ...], output: str, name: str | None, as_json: bool) -> int:
    """Learn descriptions from streams with a vmdesc.

    The option --schema OUT then decodes streams without a vmdesc.
    """
    learned = learn_from(files, name or Path(output).name, opening=_reported)
    doubtful = exit_status(learned.problems)
    if not learned.schema.devices:
        return doubtful
    write_output(output, learned.schema.to_file(output))
    found = learned.schema.summary()
    if as_json:
        print_json({**found, "skipped": learned.skipped})
    else:
        say_error(f"{output}: {found['devices']} devices, {found['shapes']} shapes")
        for file in learned.skipped:
            say_error(f"no vmdesc: {file}")
    return doubtful


@contextmanager
def _reported(file: str) -> Iterator[Stream]:
    """Open a stream; report its errors when it has been read."""
    with opened(file) as stream:
        yield stream
        finish(stream)
