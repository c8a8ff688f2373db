"""``diff``: what differs between two streams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.output import (
    csv_option,
    finish,
    json_option,
    opened,
    print_cells,
    print_csv,
    remember_inputs,
    say,
    schema_option,
    snapshot_option,
    write_output,
)
from qmigtool.cli.shared.several import Several
from qmigtool.diff import Noise, ThreeWay, compare, compare_three, default_noise, differences, load_noise
from qmigtool.diff.html import page
from qmigtool.diff.outcome import Outcome, folders_document, limits_reached, snapshot_of, three_way_document
from qmigtool.diff.text import HEAD, HEAD_THREE, cells, cells_three, saver
from qmigtool.errors import UndecidedError, UsageError
from qmigtool.tables import FILE
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.check.folder import Below
    from qmigtool.diff.model import Difference
    from qmigtool.diff.ram import RamComparison
    from qmigtool.stream.model import Stream


SHOWN_RANGES = 20  # stretches of pages that differ
SHOWN_ON_PAGE = 1000


def _list_noise(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        rules = [[rule.id, rule.topic, "yes" if rule.excuse else "no", rule.why] for rule in default_noise().rules]
        print_cells(["rule", "topic", "excuses", "why"], rules, [False] * 4)
        context.exit(0)


@command(
    "qmigtool diff samples/twin-kvm-10.0.mig samples/twin-tcg-10.0.mig",
    "qmigtool diff samples/pc-7.2.mig samples/pc-7.2.mig --ram --json",
    "qmigtool diff -r samples/containers samples/packed",
    headings={
        "What is compared": ("--recursive", "--base", "--ram", "--moved"),
        "Noise": ("--noise", "--strict", "--count", "--ignore", "--list-noise", "--all"),
        "Inputs": (
            "--accelerator-a",
            "--accelerator-b",
            "--snapshot",
            "--snapshot-a",
            "--snapshot-b",
            "--snapshot-base",
            "--migration",
            "--migration-a",
            "--migration-b",
            "--channel-a",
            "--channel-b",
            "--schema",
        ),
        "Output": ("--html", "--csv", "--json"),
    },
)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("-r", "--recursive", is_flag=True, help="Compare the streams of two folders, matched by name.")
@click.option("--base", metavar="FILE", help="The common ancestor of A and B: show which of them changed what.")
@click.option("--ram", is_flag=True, help="Also compare guest memory, page by page.")
@click.option("--moved", is_flag=True, help="With --ram: find pages whose contents moved.")
@click.option(
    "--noise",
    "noise_file",
    metavar="TOML",
    help="Additional noise rules; one with the id of a default rule replaces it.",
)
@click.option("--strict", is_flag=True, help="Excuse nothing: every difference counts.")
@click.option(
    "--count",
    "counted",
    metavar="RULE",
    multiple=True,
    help="Count the differences that this noise rule or topic excuses (repeatable).",
)
@click.option(
    "--ignore", metavar="PATTERN", multiple=True, help='Excuse matching paths, such as "cpu@*/env.tsc" (repeatable).'
)
@click.option("--list-noise", is_flag=True, callback=_list_noise, expose_value=False, is_eager=True,
              help="List the default noise rules and exit.")  # fmt: skip
@click.option("--all", "every", is_flag=True, help="Also list what noise rules excuse.")
@click.option("--accelerator-a", metavar="NAME", help="The accelerator that saved A; by default inferred.")
@click.option("--accelerator-b", metavar="NAME", help="The accelerator that saved B.")
@snapshot_option
@click.option("--snapshot-a", metavar="NAME", help="The snapshot of A, if not that of --snapshot.")
@click.option("--snapshot-b", metavar="NAME", help="The snapshot of B.")
@click.option("--snapshot-base", metavar="NAME", help="The snapshot of the base.")
@click.option("--migration-a", metavar="N", type=click.IntRange(min=1), help="The migration in A, a capture.")
@click.option("--migration-b", metavar="N", type=click.IntRange(min=1), help="The migration in B.")
@click.option("--channel-a", metavar="FILE", multiple=True, help="An extra channel of A, for --ram (repeatable).")
@click.option("--channel-b", metavar="FILE", multiple=True, help="An extra channel of B (repeatable).")
@schema_option
@click.option("--html", metavar="OUT", help="Also write an HTML page.")
@csv_option
@json_option
def diff(
    a: str,
    b: str,
    recursive: bool,
    base: str | None,
    ram: bool,
    moved: bool,
    noise_file: str | None,
    strict: bool,
    counted: tuple[str, ...],
    ignore: tuple[str, ...],
    every: bool,
    accelerator_a: str | None,
    accelerator_b: str | None,
    snapshot_a: str | None,
    snapshot_b: str | None,
    snapshot_base: str | None,
    migration_a: int | None,
    migration_b: int | None,
    channel_a: tuple[str, ...],
    channel_b: tuple[str, ...],
    schema: str | None,
    html: str | None,
    as_csv: bool,
    as_json: bool,
) -> int:
    """Show what differs between two streams.

    State is compared by meaning: fields by name, not by offset; a subsection that was not sent equals one with all
    defaults; XSAVE state register by register. Clocks, the TSC and timers advance while a VM is stopped: noise rules
    excuse them (--list-noise).

    With -r, A and B are folders, and a stream that only one of them has is a difference.

    Exit status 1 if something differs, 63 if that cannot be decided.
    """
    if base is not None and (as_csv or ram or html):
        raise UsageError("--base cannot be used with --csv, --html or --ram")
    if ram and as_csv:
        raise UsageError("--csv cannot contain memory", expected="--ram --json")
    if html == "-":
        raise UsageError("--html does not write to standard output", expected="a file name")
    if moved and not ram:
        raise UsageError("--moved requires --ram")
    if [a, b, base].count("-") > 1:
        raise UsageError("standard input is given twice", expected="- once")
    noise = _noise(noise_file, strict, counted, ignore)
    more = (
        Opening(accelerator_a, channel_a, snapshot_a, migration_a),
        Opening(accelerator_b, channel_b, snapshot_b, migration_b),
    )
    if recursive:
        if base is not None or html or channel_a or channel_b:
            raise UsageError("-r cannot be used with --base, --html, --channel-a or --channel-b")
        with_ram = None if not ram else moved
        return _folders((a, b), more, schema, noise, with_ram, every=every, as_csv=as_csv, as_json=as_json)
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(_opened(file, how, schema, keep_runs=ram))
            for file, how in zip((a, b), more, strict=True)
        )
        if base is not None:
            common = stack.enter_context(opened(base, schema=schema, snapshot=snapshot_base))
            return _three(compare_three(common, one, other, noise=noise), (common, one, other), as_json=as_json)
        memory = _memory(one, other) if ram else None
        found = Outcome(compare(one, other, noise=noise), memory, (one, other), moved=moved)
        if as_json:
            print_json(found.lazy_dict())
        elif as_csv:
            print_csv(differences.columns, differences.rows(found.state))
        else:
            _print(found, every)
        if html is not None:
            write_output(html, _page(found).encode())
        return _status((one, other), same=found.same, undecided=found.undecided)


class Opening(NamedTuple):
    """The options of one of the two streams."""

    accelerator: str | None
    channels: tuple[str, ...]
    snapshot: str | None
    migration: int | None = None


def _opened(file: str, how: Opening, schema: str | None, *, keep_runs: bool) -> AbstractContextManager[Stream]:
    return opened(
        file,
        how.accelerator,
        schema=schema,
        channels=how.channels,
        keep_runs=keep_runs,
        snapshot=how.snapshot,
        migration=how.migration,
    )


def _folders(
    folders: tuple[str, str],
    more: tuple[Opening, Opening],
    schema: str | None,
    noise: Noise,
    with_ram: bool | None,
    *,
    every: bool,
    as_csv: bool,
    as_json: bool,
) -> int:
    """Compare the streams of two folders; a stream that only one of them has is a difference.

    What a folder below them contains is unknown if it cannot be listed: that is an error, like a file that cannot be
    opened. ``with_ram``: None does not compare memory, True also finds moved pages.
    """
    below = [_below(folder) for folder in folders]
    unlisted = tuple({**below[0].unlisted, **below[1].unlisted})
    if not below[0].streams and not below[1].streams and not unlisted:
        raise UsageError("there is no migration stream in either folder", expected="folders with streams")
    here, there = ([one for one in found.streams if not one.startswith(unlisted)] for found in below)
    several = Several(sorted([*(one for one in here if one in there), *unlisted]), alone=False)
    documents: dict[str, dict[str, Any]] = {}
    rows: list[tuple[Any, ...]] = []
    for name in several.files:
        paths = [f"{folder.rstrip('/')}/{name}" for folder in folders]
        with several.each(name, *paths), ExitStack() as stack:
            for found_ in below:
                if name in found_.unlisted:
                    raise found_.unlisted[name]
            one, other = (
                stack.enter_context(_opened(path, how, schema, keep_runs=with_ram is not None))
                for path, how in zip(paths, more, strict=True)
            )
            memory = None if with_ram is None else _memory(one, other)
            found = Outcome(compare(one, other, noise=noise), memory, (one, other), moved=bool(with_ram))
            if as_json:
                documents[name] = found.lazy_dict()
            elif as_csv:
                rows += [(name, *row) for row in differences.rows(found.state)]
            elif found.state.differences or found.undecided or not found.same or every:
                _print(found, every)
                print()
            else:
                say(printable(f"{name}: {found.verdict}"))
            several.ended(_status((one, other), same=found.same, undecided=found.undecided))
    lonely = [[one for one in here if one not in there], [one for one in there if one not in here]]
    if any(lonely):
        several.ended(1)
    if as_json:
        print_json(folders_document(several.documents(documents), *lonely))
    elif as_csv:
        print_csv((FILE, *differences.columns), rows)
    for folder, names in zip(folders, lonely, strict=True):
        for name in names:
            (say_error if as_json or as_csv else say)(printable(f"only in {folder}: {name}"))
    return several.status


def _below(folder: str) -> Below:
    """Find the streams below a folder; say what is skipped."""
    from qmigtool.check.folder import streams_below  # the comparison of two streams needs no rules

    if not Path(folder).is_dir():
        raise UsageError(f"{folder!r} is not a folder", expected="-r DIR DIR")
    found = streams_below(folder)
    if found.rest:
        say_error(f"{printable(folder)}: skipped, not streams: {printable(', '.join(found.rest))}")
    return found


def _noise(file: str | None, strict: bool, counted: tuple[str, ...], ignore: tuple[str, ...]) -> Noise:
    noise = default_noise()
    if file is not None:
        remember_inputs(file)
        noise = noise.extended(load_noise(file))
    if strict:
        noise = noise.strict()
    return noise.without(*counted).ignoring(*ignore)


def _memory(a: Stream, b: Stream) -> RamComparison:
    # Imported here because it needs numpy: most comparisons do not.
    from qmigtool.diff.ram import compare_ram

    return compare_ram(a, b)


def _name(stream: Stream) -> str:
    """Return the file's name, with the snapshot that is compared."""
    snapshot = snapshot_of(stream)
    return stream.source.name + ("" if snapshot is None else f" (snapshot {snapshot!r})")


def _status(streams: Iterable[Stream], *, same: bool, undecided: bool = False) -> int:
    """Return the exit status: a broken stream outweighs a difference, a difference what could not be compared."""
    codes = [code for code in map(finish, streams) if code]
    return min(codes) if codes else 0 if same else UndecidedError.exit_code if undecided else 1


def _print(found: Outcome, every: bool) -> None:
    for name, stream in zip("AB", found.streams, strict=True):
        print(printable(f"{name}  {_name(stream)}  {stream.machine or 'no machine type'}, {saver(stream)}"))
    print()
    state = found.state
    shown = [*state.differences, *(state.excused if every else ())]
    if shown:
        print_cells(HEAD, [cells(d) for d in shown], [False] * 4, lambda i, column: _colour(shown[i], column))
        print()
    if found.memory is not None:
        _print_memory(found.memory, None if every else SHOWN_RANGES, moved=found.moved)
    for note in state.notes:
        say(printable(f"note: {note}"))
    for why in state.undecided:
        say(printable(f"undecided: {why}"))
    say(found.verdict)


def _colour(d: Difference, column: int) -> str | None:
    """Return the colour of a cell: red for a value of A, green for a value of B."""
    return None if d.excused else {1: "red", 2: "green"}.get(column)


def _print_memory(memory: RamComparison, limit: int | None, *, moved: bool) -> None:
    from qmigtool.diff.ram.text import BLOCK_HEAD, MOVED_HEAD, RANGE_HEAD, block_cells, moved_cells, range_cells

    print_cells(BLOCK_HEAD, [block_cells(block) for block in memory.blocks], [False, *[True] * (len(BLOCK_HEAD) - 1)])
    print()
    ranges = range_cells(memory, None if limit is None else limit + 1)
    lists = [(RANGE_HEAD, ranges, [False, True, True, False])]
    if moved:
        lists.append((MOVED_HEAD, moved_cells(memory), [False, True, False, True]))
    for head, rows, right in lists:
        if rows:
            print_cells(head, rows[:limit], right)
            if limit is not None and len(rows) > limit:
                print("...  (--all lists them all)")
            print()
    for block in memory.blocks:
        for problem in block.problems:
            say(printable(f"{block.name}: {problem}"))


def _page(found: Outcome) -> str:
    about = [[n, _name(s), f"{s.machine}, {saver(s)}"] for n, s in zip("AB", found.streams, strict=True)]
    parts: list[tuple[str, list[str], list[list[str]]]] = [
        ("Streams", ["", "file", "what it is"], about),
        ("Differences", HEAD, [cells(d) for d in found.state.differences]),
        ("Excused as noise", HEAD, [cells(d) for d in found.state.excused]),
    ]
    if found.memory is not None:
        from qmigtool.diff.ram.text import BLOCK_HEAD, RANGE_HEAD, block_cells, range_cells

        parts.append(("Guest memory", BLOCK_HEAD, [block_cells(block) for block in found.memory.blocks]))
        parts.append(("Pages that differ", RANGE_HEAD, range_cells(found.memory, SHOWN_ON_PAGE)))
    if found.state.undecided:
        parts.append(("Undecided", ["what"], [[why] for why in found.state.undecided]))
    parts.append(("Notes", ["note"], [[note] for note in found.state.notes]))
    return page("Two migration streams compared", found.verdict, same=found.equal, parts=parts)


def _three(found: ThreeWay, streams: tuple[Stream, Stream, Stream], *, as_json: bool) -> int:
    if as_json:
        print_json(three_way_document(found, streams))
        return _status(streams, same=found.same, undecided=not found.changes)
    if found.changes:
        print_cells(HEAD_THREE, [cells_three(change) for change in found.changes], [False] * 5)
        print()
    counts = Counter(change.who for change in found.changes)
    for why in found.undecided:
        say(printable(f"undecided: {why}"))
    words = ", ".join(f"{count} by {who}" for who, count in counts.items())
    limits = limits_reached(streams)
    if limits:
        words = f"at least {words}" if words else "no change in what was compared"
        words += f"; not all was compared: {limits[0]}"
    say(words or "no change")
    return _status(streams, same=found.same, undecided=not found.changes)
