"""Errors on stderr and JSON documents on stdout, for the program itself and for every command.

What opens streams is not needed for that: `--version` does not wait for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from qmigtool.cli.shared.folding import wrapped
from qmigtool.cli.shared.terminal import error_columns
from qmigtool.util.jsontext import SCHEMA, write_json
from qmigtool.util.progress import reporter
from qmigtool.util.text import printable

if TYPE_CHECKING:
    from qmigtool.errors import QmigError

__all__ = ["complain", "fail", "print_json", "say_error"]


def complain(error: QmigError) -> None:
    """Print an error on stderr, with the name of its file."""
    where = f"{error.file}: " if error.file else ""
    say_error(f"qmigtool: {where}{error}")


def say_error(line: str) -> None:
    """Print a line on stderr; whatever names are in it, it starts no command. On a terminal it is folded at words."""
    shown = reporter()
    if shown is not None:
        shown.clear()
    line = printable(line)
    width = error_columns()
    print(line if width is None else "\n".join(wrapped(line, width, hanging=2)), file=sys.stderr)


def fail(error: QmigError, *, as_json: bool) -> int:
    """Report an error that left nothing to show; return the exit status."""
    complain(error)
    if as_json:
        print_json({"error": error.as_dict()})
    return error.exit_code


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document with its schema number."""
    write_json(sys.stdout, {"schema": SCHEMA, **document})
    sys.stdout.write("\n")
