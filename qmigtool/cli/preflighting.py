"""``preflight``: would a target load this stream, in which words would it refuse, and what would be lost?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qmigtool.cli.output import (
    accelerator_option,
    complain,
    file_argument,
    finish,
    json_option,
    opened,
    print_cells,
    print_json,
    problems_json,
    remember_inputs,
    say,
    schema_option,
)
from qmigtool.errors import StreamError
from qmigtool.parsers.source import FileSource
from qmigtool.plaintext import hexadecimal, printable
from qmigtool.preflight import preflight as judge
from qmigtool.preflight import read_targets
from qmigtool.preflight.losses.find import grouped
from qmigtool.preflight.outcome import condensed, preflight_other

if TYPE_CHECKING:
    from qmigtool.preflight import Preflight, Target
    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.preflight.remedies.mend import Remedy

LOST = 1
PROGRAM = "qemu-system-x86_64"
WORDS = {True: "loads", False: "does not load", None: "cannot be decided"}


@click.command()
@file_argument
@click.option(
    "--target",
    "targets",
    metavar="T",
    multiple=True,
    required=True,
    help="What is known of the target; several are joined, a later one overrides.",
)
@accelerator_option
@schema_option
@json_option
def preflight(file: str, targets: tuple[str, ...], accelerator: str | None, schema: str | None, as_json: bool) -> int:
    """Say whether a target loads FILE, in which words its QEMU refuses it, and what it would lose in silence.

    T is a TOML file (samples/target.toml has every key), a stream that the target has saved itself (started with -S,
    then migrated to a file), -dump-vmstate JSON, replies to QMP's query-cpu-model-expansion, query-version and
    query-migrate-capabilities, a CPUID dump (cpuid -r), the properties of an MSHV partition, the name of a built-in
    layout, or a version of QEMU. What is not known is not judged, and said.

    Where a `rewrite` mends it, that command is printed; it has been tried in memory. Exit status 1 if it does not load
    or something is lost; notes do not count.
    """
    target = read_targets(list(targets), remember_inputs)
    try:
        with opened(file, accelerator, schema=schema) as stream:
            result = judge(stream, target)
            _report(result, target, problems_json(stream), as_json=as_json)
            return finish(stream) or (0 if result.clean else LOST)
    except StreamError as error:
        if file == "-" or not Path(file).is_file():
            raise
        with FileSource(Path(file)) as source:
            _report(preflight_other(source, target, error), target, {"problems": [error.as_dict()]}, as_json=as_json)
        complain(error)
        return error.exit_code


def _report(result: Preflight, target: Target, problems: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(_document(result, target) | problems)
    else:
        _print(result)


# -- for programs ----------------------------------------------------------------------------------------------------


def _document(result: Preflight, target: Target) -> dict[str, Any]:
    return {
        "target": _target(target),
        **_verdict(result.verdict),
        "losses": [one.as_dict() for one in result.losses],
        "remedy": None if result.remedy is None else _remedy(result.remedy),
        "unknown": list(result.unknown),
        "notes": list(result.verdict.notes),
    }


def _target(target: Target) -> dict[str, Any]:
    return {
        "name": target.name,
        "qemu": None if target.qemu is None else ".".join(map(str, target.qemu)),
        "machine": target.machine,
        "accelerator": target.accelerator,
        "vcpus": target.vcpus,
        "xcr0": hexadecimal(target.xcr0),
        "xss": hexadecimal(target.xss),
        "sections": None if target.sections is None else len(target.sections),
        "evidence": dict(target.evidence),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "loads": verdict.loads,
        "rule": verdict.rule,
        "section": verdict.section,
        "offset": hexadecimal(verdict.offset),
        "errors": list(verdict.errors),
        "warnings": list(verdict.warnings),
    }


def _remedy(remedy: Remedy) -> dict[str, Any]:
    return {
        "command": remedy.command,
        "words": list(remedy.words),
        "edits": [{"op": one.op, **one.parameters} for one in remedy.edits],
        "needed": list(remedy.needed),
        "options": list(remedy.options),
        "gives_up": list(remedy.loses),
        "then": None if remedy.verdict is None else _verdict(remedy.verdict),
        "then_lost": None if remedy.losses is None else [one.as_dict() for one in remedy.losses.findings],
        "why": remedy.why or None,
    }


# -- for people ------------------------------------------------------------------------------------------------------


def _print(result: Preflight) -> None:
    verdict = result.verdict
    place = f": {verdict.rule}" if verdict.rule else ""
    if verdict.offset is not None:
        place += f" at offset {verdict.offset:#x}" + (f" in {verdict.section}" if verdict.section else "")
    print(printable(WORDS[verdict.loads] + place))
    for line in verdict.errors or verdict.warnings:
        print(printable(f"{PROGRAM}: {line}"))
    if result.losses:
        _print_losses(result)
    if result.remedy is not None:
        _print_remedy(result.remedy)
    for head, lines in (("not known", result.unknown), ("notes", verdict.notes)):
        if lines:
            print(f"\n{head}")
            for line in condensed(lines):
                say(printable(f"- {line}"))


def _print_losses(result: Preflight) -> None:
    findings = grouped(result.losses)
    print()
    print_cells(
        ["severity", "loss", "offset", "where", "what"],
        [
            [
                one.severity.value,
                one.rule,
                "-" if one.offset is None else f"{one.offset:#x}",
                printable(one.where or "-"),
                printable(one.message),
            ]
            for one in findings
        ],
        [False, False, True, False, False],
    )
    print()
    for rule, reason in dict.fromkeys((one.rule, one.reason) for one in findings):
        say(printable(f"{rule}: {reason}"))


def _print_remedy(remedy: Remedy) -> None:
    print()
    if remedy.command is not None:
        then = remedy.verdict.loads if remedy.verdict is not None else None
        print("mended by" if then else "in part mended by" if then is None else "not mended by")
        print(f"  {printable(remedy.command)}")
        if then:
            print("  and then it loads")
    for head, lines in (("it gives up", remedy.loses), ("needed", remedy.needed), ("or instead", remedy.options)):
        for line in lines:
            say(printable(f"  {head}: {line}"))
    if remedy.why:
        say(printable(f"  {remedy.why}" if remedy.command is not None or remedy.needed else remedy.why))
