"""Commands over several files: each has a budget of its own, and an error in one does not stop the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from qmigtool.cli.shared.messages import complain
from qmigtool.errors import OutputError, QmigError, StreamError, UnsupportedError, UsageError
from qmigtool.util.budget import portion

__all__ = ["Several", "files_argument"]

USAGE = 2  # also: a file that cannot be opened
# The first of these that any file has is the exit status of all: a broken file outweighs a difference, and a difference
# outweighs what could not be decided.
RANKED = (USAGE, StreamError.exit_code, 1, UnsupportedError.exit_code)

files_argument: Callable[[Any], Any] = click.argument("files", metavar="FILE...", nargs=-1, required=True)


class Several:
    """The files of a command and their exit statuses. An error in the only file is the error of the command."""

    def __init__(self, files: Sequence[str], *, alone: bool | None = None) -> None:
        if files.count("-") > 1:
            raise UsageError("standard input is given twice", expected="- once")
        self.files = files
        self.alone = len(files) == 1 if alone is None else alone
        self._statuses: list[int] = []
        self._errors: dict[str, dict[str, Any]] = {}

    @contextmanager
    def each(self, file: str, *paths: str) -> Iterator[None]:
        """Work on one of them; an error is reported and recorded, and the work continues with the next.

        ``paths`` are what is opened for it, if not ``file`` itself.
        """
        if self.alone:
            yield
            return
        try:
            with portion():
                yield
        except OutputError:
            raise
        except QmigError as error:
            self._failed(file, error, USAGE if isinstance(error, UsageError) else error.exit_code)
        except OSError as error:
            path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
            if path not in (paths or (file,)):
                raise  # not the stream: a schema, a channel, standard output
            missing = UsageError(error.strerror or str(error))
            missing.file = path
            self._failed(file, missing, USAGE)

    def _failed(self, file: str, error: QmigError, status: int) -> None:
        error.file = error.file or file
        complain(error)
        self._errors[file] = error.as_dict()
        self._statuses.append(status)

    def ended(self, status: int) -> None:
        """Record the exit status that one of them would have alone."""
        self._statuses.append(status)

    @property
    def status(self) -> int:
        """The exit status of the command."""
        return next((one for one in RANKED if one in self._statuses), max(self._statuses, default=0))

    def documents(self, found: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the JSON objects of all files; that of a file that could not be read has its error."""
        return [{"file": one, **(found[one] if one in found else {"error": self._errors[one]})} for one in self.files]
