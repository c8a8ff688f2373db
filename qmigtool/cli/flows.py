"""``flows``: the connections of a capture, and its migrations in time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from qmigtool import tables
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import complain, print_json
from qmigtool.cli.shared.output import (
    chosen_migration,
    csv_option,
    json_option,
    migration_option,
    print_cells,
    print_csv,
    remember_inputs,
    standard_input,
    write_output,
)
from qmigtool.documents.flows import flows_document, rates, when
from qmigtool.errors import QmigError, UsageError
from qmigtool.stream.migrations import named
from qmigtool.stream.traffic import Timeline, Traffic, read_traffic
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.stream.migrations import Migration

WIDTH = 48  # of a line of rates
SHOWN = 20  # other connections, and passes
BLOCKS, PLAIN = " ▁▂▃▄▅▆▇█", " .:-=+*#@"


@command(
    "qmigtool flows samples/containers/multifd-10.0.pcap.xz",
    "qmigtool flows samples/containers/postcopy-10.0.pcap.xz --json",
)
@click.argument("file", metavar="FILE")
@migration_option
@click.option(
    "--plot", metavar="SVG", help="Write a picture: rates of channels, and what the guest wrote in each pass."
)
@csv_option
@json_option
def flows(file: str, plot: str | None, as_csv: bool, as_json: bool) -> int:
    """List the connections of a capture, and what was sent when.

    Of each migration: its channels, with the bytes that were not captured; the passes over guest memory, with the pages
    that the guest wrote in each; when the guest had stopped, and the minimum downtime. Times are those of the packets.

    Exit status 3 if a migration in it is broken or has holes.
    """
    remember_inputs(file)
    traffic = None
    try:
        with read_traffic(standard_input() if file == "-" else file) as traffic:
            chosen = _chosen(traffic)
            timelines = [traffic.timeline(one) for one in chosen] if plot or not as_csv else []
            if plot is not None:
                from qmigtool.documents.flowsplot import flows_svg

                text = flows_svg(traffic, timelines)
                write_output(plot, text.encode())
            if as_csv:
                print_csv(tables.flows.columns, tables.flows.rows(traffic))
            elif as_json:
                print_json(flows_document(traffic, timelines))
            else:
                _print(traffic, timelines)
            return _finish(traffic, timelines)
    except QmigError as error:
        if traffic is None or not isinstance(error, UsageError):
            error.file = error.file or file
        raise


def _chosen(traffic: Traffic) -> Sequence[Migration]:
    number = chosen_migration()
    found = [one for one in traffic.migrations if number in (None, one.number)]
    if number is not None and not found:
        raise UsageError(f"no migration {number}", expected=f"one of {named(traffic.migrations)}")
    return found


def _finish(traffic: Traffic, timelines: Sequence[Timeline]) -> int:
    """Say what is wrong on stderr; return the exit status."""
    problems: list[QmigError] = [] if traffic.capture.error is None else [traffic.capture.error]
    for timeline in timelines:
        problems += [one for one in timeline.problems if not any(one.same(other) for other in problems)]
    for problem in problems:
        complain(problem)
    return problems[0].exit_code if problems else 0


def _print(traffic: Traffic, timelines: Sequence[Timeline]) -> None:
    capture = traffic.capture
    mine = [(number, one) for number, one in traffic.every if number is not None]
    others = [one for number, one in traffic.every if number is None]
    head = ["migration", "role", "name", "bytes", "missing", "start s", "seconds", "MB/s"]
    right = [True, False, False, True, True, True, True, True]
    rows = {id(one): row for row, (_, one) in zip(tables.flows.rows(traffic), traffic.every, strict=True)}
    listed = [one for _, one in mine] + sorted(others, key=lambda one: -one.direction.size)[:SHOWN]
    print_cells(head, [_cells(rows[id(one)]) for one in listed], right)
    left = len(others) - SHOWN
    if left > 0 or capture.dropped:
        print(f"and {max(left, 0) + capture.dropped} more connections that carry nothing of a migration")
    step, lines = rates(traffic, WIDTH)
    if lines:
        print(f"\nrate of each channel, {step * WIDTH:.3f} s")
        for name, values in lines:
            most = max(values, default=0)
            print(f"{name:16} |{_line(values, most)}| at most {most / 1e6:.1f} MB/s")
    for timeline in timelines:
        print()
        for line in _told(traffic, timeline):
            print(line)


def _told(traffic: Traffic, timeline: Timeline) -> Iterator[str]:
    """Yield lines about a migration in time."""
    yield f"migration {timeline.migration.number}: {printable(timeline.migration.main.name)}"
    for word, moment in (
        ("guest stopped at or before", timeline.stopped),
        ("able to run at or after", timeline.resumed),
    ):
        if moment is None or traffic.start is None:
            yield f"{word}: not in the capture"
        else:
            yield f"{word}: {(moment.time - traffic.start) / 1e9:.6f} s, {when(moment.time)} ({moment.evidence})"
    if timeline.downtime is not None:
        yield f"downtime: at least {timeline.downtime * 1e3:.3f} ms"
    found = timeline.passes[:SHOWN]
    most = max((one.dirtied or 0 for one in found), default=0)
    for one in found:
        start = "" if one.start is None or traffic.start is None else f" from {(one.start - traffic.start) / 1e9:.6f} s"
        line = f"pass {one.number}: {one.pages} pages, {one.zero} of them zero, {one.size} bytes{start}"
        if one.dirtied is not None:
            rate = one.dirtied * timeline.page_size / 1e6
            bar = _blocks()[-1] * round(one.dirtied / most * WIDTH / 2) if most else ""
            line += f"; meanwhile the guest wrote {rate:.2f} MB/s {bar}"
        yield line.rstrip()
    if len(timeline.passes) > SHOWN:
        yield f"... and {len(timeline.passes) - SHOWN} more passes"


def _cells(row: tables.Row) -> list[str]:
    number, role, name, size, missing, start, seconds, rate, *_ = row
    return [
        "" if number is None else str(number),
        role,
        printable(name),
        str(size),
        str(missing),
        "" if start is None else f"{start:.3f}",
        "" if seconds is None else f"{seconds:.3f}",
        "" if rate is None else f"{rate / 1e6:.1f}",
    ]


def _line(values: Sequence[float], most: float) -> str:
    marks = _blocks()
    return "".join(marks[min(8, -(-int(value / most * 800) // 100))] if value else marks[0] for value in values)


def _blocks() -> str:
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return PLAIN
    return BLOCKS
