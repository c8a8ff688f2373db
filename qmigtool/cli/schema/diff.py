"""``schema diff``: whether state of one description loads where the other applies."""

from __future__ import annotations

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json
from qmigtool.cli.shared.output import (
    chosen_snapshot,
    csv_option,
    finish,
    json_option,
    opened,
    print_cells,
    print_csv,
    remember_inputs,
    say,
    snapshot_option,
    standard_input,
)
from qmigtool.errors import UsageError
from qmigtool.schemadiff import (
    Direction,
    SchemaComparison,
    compare_schemas,
    present_in,
    read_shapes,
    schema_differences,
)
from qmigtool.util.text import printable


@command("qmigtool schema diff samples/pc-7.2.mig samples/pc-11.1.mig", name="diff")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--devices", metavar="FILE", help="Compare only the devices of this stream.")
@snapshot_option
@click.option("--snapshot-a", metavar="NAME", help="The snapshot of A, if not that of --snapshot.")
@click.option("--snapshot-b", metavar="NAME", help="The snapshot of B.")
@click.option(
    "--direction",
    type=click.Choice([one.value for one in Direction]),
    default=Direction.BOTH.value,
    help="The migrations that count: forward (B loads the streams of A), backward, or both.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 for any difference, even a harmless one.")
@csv_option
@json_option
def diff(
    a: str,
    b: str,
    devices: str | None,
    snapshot_a: str | None,
    snapshot_b: str | None,
    direction: str,
    strict: bool,
    as_csv: bool,
    as_json: bool,
) -> int:
    """Compare the device state of two QEMU versions.

    Would device state that A describes load in B, and the other way round? A and B each are a stream, the text of a
    vmdesc (`analyze -d desc`), the output of QEMU's -dump-vmstate, or a schema (`schema learn`); one of A, B and
    --devices may be "-".

    The verdict on a difference, in each direction: "breaks", the load fails or state is misread; "may break", it does
    if the part is sent; "harmless"; "unknown", A and B do not suffice to decide (a stream describes only the parts that
    were sent).

    Exit status 1 if a difference breaks, or may break, a direction that counts.
    """
    if [a, b, devices].count("-") > 1:
        raise UsageError("standard input is given twice", expected="- for one of A, B and --devices")
    remember_inputs(a, b)
    present, doubtful = None, 0
    if devices is not None:
        with opened(devices) as stream:
            present = present_in(stream)
            doubtful = finish(stream)
    counts = Direction(direction)
    one, other = (
        read_shapes(standard_input() if given == "-" else given, given, snapshot=chosen_snapshot(snapshot))
        for given, snapshot in ((a, snapshot_a), (b, snapshot_b))
    )
    comparison = compare_schemas(one, other, present)
    if as_csv:
        print_csv(schema_differences.columns, schema_differences.rows(comparison))
    elif as_json:
        print_json(comparison.as_dict(one, other))
    else:
        _print_differences(comparison, counts)
    return doubtful or comparison.status(counts, strict=strict)


def _print_differences(comparison: SchemaComparison, direction: Direction) -> None:
    cells = [
        [one.forward, one.backward, _devices(names), printable(one.path), one.rule, printable(one.words)]
        for one, names in comparison.grouped(direction)
    ]
    if cells:
        print_cells(["A to B", "B to A", "device", "path", "rule", "difference"], cells, [False] * 6)
        for word, way in (("A to B", Direction.FORWARD), ("B to A", Direction.BACKWARD)):
            counted = comparison.counts(way)
            print(f"{word}: " + ", ".join(f"{count} {effect}" for effect, count in counted.items() if count))
    else:
        print("no differences")
    for note in comparison.notes:
        say(f"note: {printable(note)}")


def _devices(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return printable(names[0]) + more
