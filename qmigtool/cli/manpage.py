"""The man page, made of the commands: ``python -m qmigtool.cli.manpage > qmigtool/cli/qmigtool.1``.

A test compares the file with what this module makes, and the wheel installs it as share/man/man1/qmigtool.1.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator

import click

from qmigtool import __version__
from qmigtool.cli.main import cli
from qmigtool.cli.shared.command import ToolCommand

__all__ = ["manpage"]

ENVIRONMENT = {
    "COLUMNS": "The width to which tables are folded; by default that of the terminal, and none where standard output "
    "is not a terminal.",
    "NO_COLOR": "Print no colours.",
    "FORCE_COLOR": "Print colours although standard output is not a terminal.",
    "PAGER": "The pager for output that is longer than the terminal is high; by default less. Empty or cat: none.",
    "LESS": "The options of less; by default FRX.",
    "TMPDIR": "Where temporary files are written: containers that are unwrapped.",
}
STATUSES = {
    "0": "Success.",
    "1": "A difference, a finding, a refusal, or live state that would be lost.",
    "2": "Wrong usage, a file that cannot be opened, or output that could not be written.",
    "3": "Broken input; what can be read is shown, and standard error names the offset.",
    "63": "Valid but not supported, beyond a limit, or undecided; standard error names what would decide it.",
    "70": "A defect of qmigtool.",
}
SEE_ALSO = ("qemu-system-x86_64", "qemu-img", "virsh", "gdb")


def manpage() -> str:
    """Return the page in the man macros of groff."""
    context = click.Context(cli, info_name="qmigtool")
    name, *rest = _paragraphs(cli)
    lines = [
        f'.TH QMIGTOOL 1 "" "qmigtool {__version__}" "User Commands"',
        ".SH NAME",
        rf"qmigtool \- {_text(name[0].lower() + name[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        ".B qmigtool",
        r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *_prose(rest),
        ".SH OPTIONS",
        *_records(_options(cli, context)),
        ".SH COMMANDS",
        *_commands(cli, context),
        ".SH EXIT STATUS",
        *_records(STATUSES.items()),
        ".SH ENVIRONMENT",
        *_records(ENVIRONMENT.items()),
        ".SH SEE ALSO",
        ",\n".join(rf"\fB{_text(one)}\fR(1)" for one in SEE_ALSO),
    ]
    return "\n".join(lines) + "\n"


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        usage = " ".join(command.collect_usage_pieces(inner))
        yield f'.SS "{_text(inner.command_path)} {_text(usage)}"'
        yield from _prose(_paragraphs(command))
        if isinstance(command, click.Group):
            yield from _commands(command, inner)
            continue
        if isinstance(command, ToolCommand):
            several = command.options_by_heading(inner)
            for heading, records in several.items():
                shown = [record for record in records if not record[0].endswith("--help")]
                if shown and len(several) > 1:
                    yield from (".PP", rf"\fI{_text(heading)}\fR")
                yield from _records(shown)
            yield from (".PP", "Example:" if len(command.examples) == 1 else "Examples:", ".PP", ".nf", ".RS 4")
            yield from (_text(line) for line in command.examples)
            yield from (".RE", ".fi")


def _options(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    records = [one.get_help_record(context) for one in command.get_params(context) if isinstance(one, click.Option)]
    return [record for record in records if record is not None]


def _paragraphs(command: click.Command) -> list[str]:
    text = inspect.cleandoc(command.help or "")
    return [" ".join(one.split()) for one in text.split("\n\n")]


def _prose(paragraphs: Iterable[str]) -> Iterator[str]:
    for one in paragraphs:
        yield ".PP"
        yield _text(one)


def _records(records: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in records:
        yield ".TP"
        yield rf"\fB{_text(name)}\fR"
        yield _text(" ".join(text.split())) if text.strip() else "\\&"


def _text(text: str) -> str:
    """Return text for groff: nothing in it is a request or an escape, and hyphens can be searched and copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("'", "\\(aq")
    escaped = escaped.replace("^", "\\(ha").replace("~", "\\(ti").replace("`", "\\(ga")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.stdout.write(manpage())
