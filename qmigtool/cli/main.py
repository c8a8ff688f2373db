"""The ``qmigtool`` program: its commands, and what becomes of errors."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback

import click

from qmigtool import __version__
from qmigtool.cli.lazy import LazyGroup
from qmigtool.cli.output import fail
from qmigtool.errors import QmigError

USAGE, DEFECT, INTERRUPTED = 2, 70, 130


COMMANDS = {
    "info": "stream:info",
    "sections": "stream:sections",
    "show": "stream:show",
    "xsave": "xsave:xsave",
    "ram": "memory:ram",
    "check": "checking:check",
    "diff": "comparing:diff",
    "rewrite": "rewriting:rewrite",
    "undo": "rewriting:undo",
    "mshv": "putback:mshv",
    "preflight": "preflighting:preflight",
    "schema": "descriptions:schema",
    "compat": "descriptions:compat",
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="qmigtool", message="%(prog)s %(version)s")
def cli() -> None:
    """Read, compare, judge and rewrite QEMU migration streams: the files in which a virtual machine lies saved.

    FILE is a stream that QEMU wrote, or what it came in (a libvirt save image, a snapshot in a qcow2 image, a packed
    file, a capture); "-" is standard input. Every command that prints facts takes --json.

    Exit status: 0 fine; 1 a difference or a finding; 2 wrong usage; 3 broken input (what could be read is shown);
    63 legal, but not supported, and named; 70 a defect of qmigtool.
    """


def entry() -> None:
    """Run the program; never returns."""
    # Somebody may have closed them (>&-); Python then has None there.
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - as above
    for text in (sys.stdout, sys.stderr):
        if isinstance(text, io.TextIOWrapper):
            text.reconfigure(errors="backslashreplace")  # names come from the file, and not every terminal has them
    # As Ctrl-C does: the temporary file of an output goes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    try:
        result = cli.main(arguments, prog_name="qmigtool", standalone_mode=False)
        sys.stdout.flush()
    except QmigError as error:
        return fail(error, as_json="--json" in (sys.argv[1:] if arguments is None else arguments))
    except click.ClickException as error:
        error.show()
        return USAGE
    except click.exceptions.Exit as error:
        return error.exit_code
    except SystemExit:
        return 0  # click's answer to a broken pipe; it has silenced stdout, too
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output (head, say) has gone; Python's own flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A file that cannot be opened, an output that is full: the machine, not the stream.
        name = f"{error.filename}: " if error.filename else ""
        print(f"qmigtool: {name}{error.strerror or error}", file=sys.stderr)
        return USAGE
    except Exception:
        traceback.print_exc()
        print("qmigtool: this is a defect of qmigtool, not of your file; please report it", file=sys.stderr)
        return DEFECT
    return result if isinstance(result, int) else 0
