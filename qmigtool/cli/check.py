"""``check``: rules over streams, and what they find, for people and for machines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qmigtool import __version__
from qmigtool.check import RULES, CheckResult, Policy, default_policy, default_text, load_policy
from qmigtool.check.files import baselines_of, check_files, files_of
from qmigtool.cli.shared.colours import COLOURS
from qmigtool.cli.shared.command import command
from qmigtool.cli.shared.messages import complain, print_json, say_error
from qmigtool.cli.shared.output import (
    accelerator_option,
    finish,
    json_option,
    migration_option,
    opened,
    print_cells,
    remember_inputs,
    schema_option,
    write_output,
)
from qmigtool.cli.shared.terminal import columns, styled
from qmigtool.errors import UsageError
from qmigtool.findings import Report, Severity, formats, text
from qmigtool.util.jsontext import SCHEMA, json_document
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream

    Parameter = click.ParamType[str]
else:
    Parameter = click.ParamType  # not generic in older versions of click

OWN_FORMATS = ("text", "json")


class FormatName(Parameter):
    """The name of a format; those of other distributions are looked for only when one is asked for."""

    name = "format"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name, or say which there are."""
        names = (*OWN_FORMATS, *formats.format_names())
        if value not in names:
            self.fail(f"{value!r} is not one of {', '.join(map(repr, names))}.", param, ctx)
        return value


@command(
    "qmigtool check samples/pc-7.2.mig samples/kvm-avx512-7.2.mig",
    "qmigtool check samples/kvm-avx512-7.2.mig --policy samples/policy.toml --report junit=junit.xml",
    headings={
        "Rules": ("--policy", "--list-rules", "--print-policy", "--fail-on"),
        "Baseline": ("--baseline", "--baseline-snapshot"),
        "Inputs": ("--channel", "--snapshot", "--migration", "--accelerator", "--schema"),
        "Output": ("--format", "--output", "--report", "--json"),
    },
)
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("--policy", metavar="TOML", help='The rules: a TOML file, or "default", which --print-policy prints.')
@click.option(
    "--baseline",
    metavar="OLD",
    help="A correct stream, or a folder with one for each FILE: every difference is a finding.",
)
@click.option("--baseline-snapshot", metavar="NAME", help="The snapshot of OLD, a qcow2 image.")
@click.option(
    "--format",
    "form",
    type=FormatName(),
    metavar="FORMAT",
    help=f"The format: {', '.join((*OWN_FORMATS, *formats.own_formats()))}, or one installed."
    "  [default: text; --json: json]",
)
@click.option("-o", "--output", metavar="OUT", help="The file to write them to; by default standard output.")
@click.option(
    "--report", "reports", multiple=True, metavar="FORMAT=OUT", help="Also write them in another format (repeatable)."
)
@click.option(
    "--fail-on",
    type=click.Choice([severity.value for severity in Severity]),
    default=Severity.WARNING.value,
    show_default=True,
    help="The lowest severity that makes the exit status 1.",
)
@click.option(
    "--channel", "channels", multiple=True, metavar="FILE", help="An extra channel of the migration (repeatable)."
)
@click.option("--snapshot", metavar="NAME", help="The snapshot of a qcow2 image, by name or id.")
@migration_option
@click.option("--list-rules", is_flag=True, help="List the rules of the policy and their options, and exit.")
@click.option("--print-policy", is_flag=True, help="Print the default policy as TOML, and exit.")
@accelerator_option
@schema_option
@json_option
def check(
    files: tuple[str, ...],
    policy: str | None,
    baseline: str | None,
    baseline_snapshot: str | None,
    form: str | None,
    output: str | None,
    reports: tuple[str, ...],
    fail_on: str,
    channels: tuple[str, ...],
    snapshot: str | None,
    list_rules: bool,
    print_policy: bool,
    accelerator: str | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Check streams against the rules of a policy.

    The default policy checks that a stream is complete and that KVM accepts its registers; --policy adds rules of your
    own. A folder means the streams in it, not those in its subfolders; the other files in it are named on
    standard error.

    Exit status 1 if a rule finds something of the severity --fail-on or worse; 3 if a file is broken (what can be read
    is checked); 2 if a file cannot be opened (the others are checked, and reports are written).
    """
    if as_json and form not in (None, "json"):
        raise UsageError(f"--json contradicts --format {form}", expected="one of them")
    form = form or ("json" if as_json else "text")
    if list_rules or print_policy:
        if files or reports or output is not None or (list_rules and print_policy):
            raise UsageError(
                "--list-rules and --print-policy only print", expected="one of them, without FILE, -o and --report"
            )
        if print_policy:
            return _print_policy(policy, form)
        if form not in ("text", "json"):
            raise UsageError(f"rules are not listed as {form}", expected="--format text or json")
        _list_rules(_policy(policy), as_json=form == "json")
        return 0
    asked = _policy(policy)
    if not files:
        raise UsageError("no file to check", expected="FILE..., a folder, --list-rules or --print-policy")
    files = tuple(one for given in files for one in _streams(given))
    if channels and len(files) > 1:
        raise UsageError("--channel is for one FILE")
    others = [_other(one) for one in reports]
    threshold = Severity(fail_on)
    _refuse_twice([*(path for _, path in others), *([] if output is None else [output])])

    @contextmanager
    def old(one: str) -> Iterator[Stream]:
        with opened(one, accelerator, schema=schema, snapshot=baseline_snapshot) as stream:
            yield stream
            finish(stream)

    result = check_files(
        files,
        asked,
        partial(opened, accelerator=accelerator, schema=schema, channels=channels, snapshot=snapshot, keep_runs=True),
        baselines=[baseline] * len(files) if baseline == "-" else baselines_of(baseline, files),
        opening_baseline=old,
        fail_on=threshold,
        told=complain,
    )
    for other, path in others:
        write_output(path, _bytes(_render(other, result)))
    if output is not None:
        write_output(output, _bytes(_render(form, result)))
        if output != "-":
            say_error(f"{output}: {text.summary(result.reports)}")
    elif form == "text":
        _print_text(result.reports)
    else:
        sys.stdout.write(_render(form, result))
    return int(result.status)


def _policy(path: str | None) -> Policy:
    if path is None:
        return default_policy()
    policy = load_policy(path)
    remember_inputs(*policy.files)
    return policy


def _print_policy(policy: str | None, form: str) -> int:
    if policy not in (None, "default") or form != "text":
        raise UsageError(
            "--print-policy prints the default policy, as TOML", expected="no --policy, --json or --format"
        )
    sys.stdout.write(default_text())
    return 0


def _streams(given: str) -> list[str]:
    """Return the files of an argument, which may be a folder."""
    if given == "-":
        return [given]
    streams, others = files_of(given)
    if others:
        say_error(f"{printable(given)}: skipped, not streams: {printable(', '.join(others))}")
    return streams


def _other(given: str) -> tuple[str, str]:
    form, equals, path = given.partition("=")
    names = (*OWN_FORMATS, *formats.format_names())
    if form not in names or not equals or path in ("", "-"):
        raise UsageError(f"--report {given!r}", expected="FORMAT=OUT, FORMAT one of " + ", ".join(names))
    return form, path


def _refuse_twice(outputs: list[str]) -> None:
    """Refuse two outputs to the same file."""
    places = [str(Path(path).resolve()) for path in outputs]
    for path, place in zip(outputs, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"{path!r} is named for two reports", expected="a file for each report")


def _render(form: str, result: CheckResult) -> str:
    if form == "text":
        return "".join(f"{printable(line.shown())}\n" for line in text.lines(result.reports))
    if form == "json":
        return json_document({"schema": SCHEMA, **result.as_dict()})
    return formats.render(form, result.reports, result.fail_on, __version__)


def _bytes(document: str) -> bytes:
    return document.encode("utf-8", "backslashreplace")


def _print_text(found: Sequence[Report]) -> None:
    for line in text.lines(found, columns()):
        escaped = line._replace(text=printable(line.text))
        print(escaped.shown(lambda word, severity: styled(word, COLOURS[severity], bold=True)))


def _list_rules(policy: Policy, *, as_json: bool) -> None:
    fields = {rule.id: rule for rule in policy.fields}
    if as_json:
        print_json(policy.as_dict())
        return
    rows = []
    for id_, rule in RULES.items():
        rows.append([id_, policy.settings[id_].severity, rule.title])
        rows += [["", "", f"  {name}: {option.meaning}"] for name, option in rule.options.items()]
    rows += [[id_, rule.severity, printable(rule.title)] for id_, rule in fields.items()]
    print_cells(["rule", "severity", "what has to hold"], rows, [False, False, False])
