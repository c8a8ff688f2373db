"""``compat`` and ``schema``: streams printed as QEMU's script does, and learned from."""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path

import click

from qmigtool import compat as analyze
from qmigtool.cli.output import (
    file_argument,
    finish,
    json_option,
    opened,
    print_json,
    write_output,
)
from qmigtool.errors import UnsupportedError
from qmigtool.schema import Schema


@click.command()
@file_argument
@click.option("-d", "--dump", type=click.Choice(["state", "desc"]), default="state", help="What to print.")
def compat(file: str, dump: str) -> int:
    """Print what QEMU's analyze-migration.py prints."""
    with opened(file) as stream:
        document = analyze.desc(stream) if dump == "desc" else analyze.state(stream)
        json.dump(document, sys.stdout, indent=4, separators=(",", ": "))
        sys.stdout.write("\n")
        return finish(stream)


@click.group(no_args_is_help=False)
def schema() -> None:
    """Descriptions of device state, for streams that have none."""


@schema.command("learn")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--output", required=True, metavar="OUT", help="Where to write the schema (.xz: compressed).")
@click.option("--name", help="What to call it, by default OUT's name.")
@json_option
def learn(files: tuple[str, ...], output: str, name: str | None, as_json: bool) -> int:
    """Learn from streams that have a vmdesc how to read such without: --schema OUT."""
    learned = Schema(name or Path(output).name)
    skipped = []
    for file in files:
        with opened(file) as stream:
            if stream.vmdesc is None:
                skipped.append(file)
            else:
                learned.add(stream.vmdesc, stream.machine)
    if not learned.devices:
        raise UnsupportedError("learning from a stream without a vmdesc")
    text = learned.to_json().encode()
    write_output(output, lzma.compress(text) if output.endswith(".xz") else text)
    shapes = sum(map(len, learned.devices.values()))
    if as_json:
        print_json({"devices": len(learned.devices), "shapes": shapes, "skipped": skipped})
    else:
        print(f"{output}: {len(learned.devices)} devices, {shapes} shapes", file=sys.stderr)
        for file in skipped:
            print(f"no vmdesc: {file}", file=sys.stderr)
    return 0
