"""``schema learn``: descriptions out of streams that have them."""

from __future__ import annotations

from pathlib import Path

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import finish, json_option, opened, snapshot_option, write_output
from qmigtool.devices.schema import Schema
from qmigtool.errors import UnsupportedError
from qmigtool.util.budget import portion


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
    learned = Schema(name or Path(output).name)
    skipped = []
    doubtful = 0  # the exit status of what is broken
    for file in files:
        with portion(), opened(file) as stream:
            doubtful = finish(stream) or doubtful
            if stream.vmdesc is None:
                skipped.append(file)
            else:
                learned.add(stream.vmdesc, stream.machine)
    if not learned.devices and doubtful:
        return doubtful
    if not learned.devices:
        raise UnsupportedError("learning from a stream without a vmdesc")
    write_output(output, learned.to_file(output))
    found = learned.summary()
    if as_json:
        print_json({**found, "skipped": skipped})
    else:
        say_error(f"{output}: {found['devices']} devices, {found['shapes']} shapes")
        for file in skipped:
            say_error(f"no vmdesc: {file}")
    return doubtful
