"""The ``qmigtool`` program: its commands, and what becomes of errors."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import click

from qmigtool import __version__
from qmigtool.cli.shared.lazy import LazyGroup
from qmigtool.cli.shared.messages import complain, fail, say_error
from qmigtool.cli.shared.progressbar import Bar
from qmigtool.cli.shared.standard import drop_errors, flush_output, take_standard_streams
from qmigtool.cli.shared.terminal import NO_PAGER
from qmigtool.errors import QmigError
from qmigtool.util.budget import Limits, current, limited
from qmigtool.util.progress import reporting
from qmigtool.util.values import parse_number

F = TypeVar("F", bound=Callable[..., Any])
USAGE, DEFECT, INTERRUPTED = 2, 70, 130

VARIABLE = "_QMIGTOOL_COMPLETE"  # set by the shell functions of completion

COMMANDS = {
    "analyze": ("analyze:analyze", "Print what QEMU's analyze-migration.py prints."),
    "check": ("check:check", "Check streams against the rules of a policy."),
    "diff": ("diff:diff", "Show what differs between two streams."),
    "dissect": ("dissect:dissect", "Show the bytes of a record, field by field."),
    "flows": ("flows:flows", "List the connections of a capture, and what was sent when."),
    "info": ("info:info", "Show what a file is."),
    "mshv": ("mshv:mshv", "Exchange vCPU state with MSHV as files."),
    "preflight": ("preflight:preflight", "Predict whether a target loads a stream."),
    "ram": ("ram:ram", "Show how guest memory was sent."),
    "rewrite": ("rewrite:rewrite", "Write a stream again, with edits."),
    "schema": ("schema:schema", "Compare and learn descriptions of device state."),
    "sections": ("sections:sections", "List the sections of a stream."),
    "show": ("show:show", "Show device state."),
    "undo": ("undo:undo", "Take back edits, with the patch of `rewrite --undo`."),
    "unwrap": ("unwrap:unwrap", "Take a stream out of its container."),
    "wrap": ("wrap:wrap", "Put a stream into a container."),
    "xsave": ("xsave:xsave", "Show, export, convert and check XSAVE state."),
}


def _amount(text: str | int) -> int:
    """Read a limit: 300, ``2G``, ``0x1000``."""
    value = parse_number(text) if isinstance(text, str) else text
    if value is None or value <= 0:
        raise click.BadParameter(f"{text!r:.40} is not a number above 0, such as 300, 2G or 0x1000")
    return value


def _seconds(text: str | float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise click.BadParameter(f"{text!r:.40} is not a number of seconds")
    return value


def limit_option(name: str, kind: Callable[[str], Any], unit: str, words: str) -> Callable[[F], F]:
    """Make the option that sets a limit of the command's budget."""
    return click.option(f"--max-{name}", type=kind, metavar=unit, help=words)


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, "-V", "--version", prog_name="qmigtool", message="%(prog)s %(version)s")
@limit_option(
    "seconds",
    _seconds,
    "N",
    "CPU time for each file or trial.  [default: 6; above 16 MiB, 1 more per MiB; 0.04 more per vCPU]",
)
@limit_option(
    "memory",
    _amount,
    "SIZE",
    "Memory for what is decompressed, decoded or buffered.  [default: 160M; above 16 MiB, 1 more per 8 bytes]",
)
@limit_option(
    "spool",
    _amount,
    "SIZE",
    "Size of temporary files without zeros.  [default: 2G; above 16 MiB, 16 more per byte]",
)
@limit_option(
    "objects",
    _amount,
    "N",
    "Values of a file; a section counts as 40.  [default: 600000; above 16 MiB, 1 more per 12 bytes]",
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress on standard error.")
@click.option("--no-pager", is_flag=True, help="Do not send long output through a pager (PAGER, by default less).")
@click.pass_context
def cli(
    context: click.Context,
    quiet: bool,
    no_pager: bool,
    max_seconds: float | None,
    max_memory: int | None,
    max_spool: int | None,
    max_objects: int | None,
) -> None:
    """Read, check, compare and rewrite QEMU migration streams, which hold a saved virtual machine.

    FILE is a stream that QEMU wrote, or what contains it: a libvirt save image, a snapshot in a qcow2 image, a
    compressed file, a network capture; "-" is standard input. Offsets count in the stream, after it was unwrapped
    (`info` lists the layers). Every command that prints facts has --json.

    A file that would cost too much memory or time is refused with exit status 63. The options --max-..., before
    COMMAND, set the limits, which apply to each file.

    Exit status: 0 success; 1 a difference or a finding; 2 wrong usage, or output that could not be written; 3 broken
    input (what can be read is shown); 63 valid but not supported, or undecided; 70 a defect of qmigtool.
    """
    context.meta[NO_PAGER] = no_pager
    usual = Limits()
    limits = Limits(
        usual.seconds if max_seconds is None else max_seconds,
        usual.memory if max_memory is None else max_memory,
        usual.spool if max_spool is None else max_spool,
        usual.objects if max_objects is None else max_objects,
    )
    context.with_resource(limited(limits))
    if not quiet and sys.stderr.isatty():
        context.with_resource(reporting(Bar(stream=sys.stderr)))


@cli.result_callback()
def _whole(result: int | None, **_: object) -> int | None:
    """Return the exit status; what a limit left out makes it other than success."""
    exceeded = current().exceeded
    if exceeded is not None and result in (None, 0, 1):
        complain(exceeded)
        return exceeded.exit_code
    return result


def entry() -> None:
    """Run the program; never returns."""
    take_standard_streams()
    # As Ctrl-C does: the temporary file of an output is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    status = run()
    drop_errors()
    sys.exit(status)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status; not everything written is :data:`USAGE`."""
    status = _run(arguments)
    lost = flush_output()
    return status if lost is None else _lost(lost)


def _lost(error: OSError) -> int:
    """Report an error of the system: a file that cannot be opened, a full disk."""
    if not isinstance(error, BrokenPipeError):  # the reader of the output, such as head, does not want more
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        with contextlib.suppress(OSError):
            say_error(f"qmigtool: {name}{error.strerror or error}")
    return USAGE


def _run(arguments: list[str] | None) -> int:
    if VARIABLE in os.environ:
        from qmigtool.cli.shared.completion import register

        register()
    try:
        result = cli.main(arguments, prog_name="qmigtool", standalone_mode=False)
    except QmigError as error:
        try:
            return fail(error, as_json="--json" in (sys.argv[1:] if arguments is None else arguments))
        except OSError as lost:
            return _lost(lost)
    except click.ClickException as error:
        _show(error)
        return USAGE
    except click.exceptions.Exit as error:
        return error.exit_code
    except SystemExit as error:
        # click's end of completion, or its answer to a broken pipe. No other exit is a success.
        return 0 if error.code == 0 and os.environ.get(VARIABLE) else USAGE
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except OSError as error:
        return _lost(error)
    except Exception:
        for line in traceback.format_exc().splitlines():
            say_error(line)
        say_error("qmigtool: this is a defect of qmigtool, not of your file; please report it")
        return DEFECT
    return result if isinstance(result, int) else 0


def _show(error: click.ClickException) -> None:
    """Report a wrong command line, as click does, with the names in it escaped."""
    context = getattr(error, "ctx", None)
    if context is not None:
        for line in context.get_usage().splitlines():
            say_error(line)
        if context.command.get_help_option(context) is not None:
            say_error(f"Try '{context.command_path} {context.help_option_names[0]}' for help.")
        say_error("")
    say_error(f"Error: {_message(error)}")


def _message(error: click.ClickException) -> str:
    """Return click's message, but on one line where it lists the values of an option that is missing."""
    option = error.param if isinstance(error, click.MissingParameter) else None
    if option is None or not isinstance(option.type, click.Choice):
        return error.format_message()
    return f"Missing option '{max(option.opts, key=len)}' (expected {', '.join(map(str, option.type.choices))})"
