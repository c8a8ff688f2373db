"""``preflight``: whether a target loads a stream, its error message otherwise, and what is lost silently."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import click

from qmigtool.cli.shared.colours import COLOURS
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import complain, print_json
from qmigtool.cli.shared.output import (
    accelerator_option,
    file_argument,
    finish,
    json_option,
    opened,
    print_cells,
    remember_inputs,
    say,
    schema_option,
)
from qmigtool.errors import StreamError
from qmigtool.findings import Severity
from qmigtool.preflight import preflight as judge
from qmigtool.preflight import read_targets
from qmigtool.preflight.document import preflight_document, verifying
from qmigtool.preflight.loader.words import printed
from qmigtool.preflight.losses.accelerator import WHO_SAVED
from qmigtool.preflight.losses.find import grouped
from qmigtool.preflight.outcome import preflight_broken
from qmigtool.preflight.remark import condensed
from qmigtool.preflight.target.readers import template
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qmigtool.findings import Finding
    from qmigtool.preflight import Preflight, Target
    from qmigtool.preflight.remedies.search import Remedy
    from qmigtool.stream.model import Stream

DECIDES = "the accelerator that saved the file is unknown: --accelerator NAME decides what it loses"
PROGRAM = "qemu-system-x86_64"
HEAD = ("severity", "loss", "offset", "where", "what")
WORDS = {True: "loads", False: "does not load", None: "cannot be decided"}


def _print_target(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        sys.stdout.write(template())
        context.exit()


@command(
    "qmigtool preflight samples/twin-tcg-10.0.mig --target samples/target.toml",
    "qmigtool preflight samples/pc-11.1.mig --target samples/pc-7.2.mig --target 7.2",
)
@file_argument
@click.option(
    "--target",
    "targets",
    metavar="T",
    multiple=True,
    required=True,
    help="A description of the target (repeatable; later ones override).",
)
@click.option(
    "--print-target",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_target,
    help="Print a TOML file with every key, and exit.",
)
@click.option(
    "--channel",
    "channels",
    multiple=True,
    metavar="FILE",
    help="An extra channel of the migration: multifd, postcopy preempt (repeatable).",
)
@accelerator_option
@schema_option
@json_option
def preflight(
    file: str,
    targets: tuple[str, ...],
    channels: tuple[str, ...],
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Predict whether a target loads a stream.

    If the target refuses FILE, its error message is printed; if it loads FILE, what it would lose silently is listed.
    Where a `rewrite` fixes that, the command is printed; it has been tried in memory.

    T is a TOML file (--print-target prints one with every key); a stream saved by the target itself (started with -S,
    then migrated to a file; IMAGE#SNAPSHOT is one in a qcow2 image); -dump-vmstate JSON; replies to the QMP commands
    query-cpu-model-expansion, query-version and query-migrate-capabilities; CPUID as text (FILE#N is its CPU N); the
    properties of an MSHV partition; a built-in layout; a version of QEMU (7.2); a machine type (pc-q35-7.2, q35); or an
    accelerator (kvm). qmigtool does not judge what it does not know; it lists it under "not known".

    Exit status 0 if FILE loads and loses nothing (notes do not count); 1 if it does not load, or loses something; 63 if
    whether it loads cannot be decided (--json: "loads" is null), or if something that is not known may change that or
    lose a register or device.
    """
    target = read_targets(list(targets), remember_inputs)
    try:
        with opened(file, accelerator, schema=schema, channels=channels) as stream:
            result = judge(stream, target)
            _report(result, target, stream, targets, as_json=as_json)
            return finish(stream) or result.status
    except StreamError as error:
        if file == "-":
            raise
        result = preflight_broken(file, target, error)
        _report(result, target, None, targets, as_json=as_json)
        complain(error)
        return result.status


def _report(result: Preflight, target: Target, stream: Stream | None, targets: Sequence[str], *, as_json: bool) -> None:
    again = verifying(result, targets)
    if as_json:
        print_json(preflight_document(result, target, stream, again))
    else:
        _print(result, again)


def _print(result: Preflight, again: str | None) -> None:
    verdict = result.verdict
    place = f": {verdict.rule}" if verdict.rule else ""
    lost = _lost(result.losses)
    if lost and verdict.loads is not False:
        place = f", {'but' if verdict.loads else 'and'} {lost}"
    if verdict.loads is not False and WHO_SAVED in result.doubts:
        place += f"{', and' if place else ', but' if verdict.loads else ':'} {DECIDES}"
    if verdict.offset is not None:
        place += f" at offset {verdict.offset:#x}" + (f" in {verdict.section}" if verdict.section else "")
    say(printable(WORDS[verdict.loads] + place))
    for line in verdict.errors or verdict.warnings:
        print(printable(printed(line, PROGRAM)))
    for who, lines in verdict.otherwise:
        print(f"and {printable(who)}:")
        for line in lines:
            print(printable(printed(line, PROGRAM)))
    if result.losses:
        _print_losses(result)
    if result.remedy is not None:
        _print_remedy(result.remedy, again)
    others = tuple(one for one in result.unknown if one not in result.doubts)
    decisive = "needed for a decision" if result.loads is None else "may change this"
    doubts = () if result.loads is False else result.doubts
    others = result.unknown if result.loads is False else others
    for head, remarks in ((decisive, doubts), ("not known", others), ("notes", verdict.notes)):
        if remarks:
            print(f"\n{head}")
            for line in condensed(remarks):
                say(printable(f"- {line}"))


def _lost(losses: Sequence[Finding]) -> str:
    """Return how much is lost, if anything: ``loses state: 2 errors, 1 warning``."""
    numbers = Counter(one.severity for one in losses)
    found = [
        f"{numbers[severity]} {severity.value}{'s' if numbers[severity] > 1 else ''}"
        for severity in (Severity.ERROR, Severity.WARNING)
        if numbers[severity]
    ]
    verb = "loses" if numbers[Severity.ERROR] else "may lose"
    return f"{verb} state: {', '.join(found)}" if found else ""


def _print_losses(result: Preflight) -> None:
    findings = grouped(result.losses)
    rows = [
        [
            one.severity.value,
            one.rule,
            "-" if one.offset is None else f"{one.offset:#x}",
            printable(one.where or "-"),
            printable(one.message),
        ]
        for one in findings
    ]
    print()
    severities = [COLOURS[one.severity] for one in findings]
    print_cells(
        HEAD, rows, [name == "offset" for name in HEAD], lambda i, column: severities[i] if column == 0 else None
    )
    print()
    for rule, reason in dict.fromkeys((one.rule, one.reason) for one in findings):
        say(printable(f"{rule}: {reason}"))


def _print_remedy(remedy: Remedy, again: str | None) -> None:
    then = remedy.verdict.loads if remedy.verdict is not None else None
    print()
    if remedy.command is not None:
        print("fix" if then else "partly fixed by" if then is None else "not fixed by")
        print(f"  {printable(remedy.command)}")
    for line in remedy.needed:
        say(printable(f"  needed: {line}"))
    if then and (remedy.command is not None or remedy.needed):
        lost = _lost(remedy.losses.findings) if remedy.losses is not None else ""
        say(printable(f"  {_with(remedy)} it loads{f', but {lost}' if lost else ''}"))
    if again is not None:
        print(printable(f"  to verify: {again}"))  # a command to copy is not folded
    lines = [f"loses: {line}" for line in remedy.loses]
    lines += [f"guess: {line}" for line in remedy.guesses]
    instead = "or instead" if remedy.command is not None or remedy.needed else "instead"
    lines += [f"{instead}: {line}" for line in remedy.options]
    for line in lines:
        say(printable(f"  {line}"))
    if remedy.why:
        say(printable(f"  {remedy.why}" if lines or remedy.command is not None else remedy.why))


def _with(remedy: Remedy) -> str:
    """Return the start of a sentence about what is needed before it loads."""
    steps = len(remedy.needed) + (remedy.command is not None)
    return {1: "after this", 2: "with both"}.get(steps, "with all of them")
