"""Learning a schema from streams that describe their device state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

from qmigtool.devices.schema import Schema
from qmigtool.errors import QmigError, UnsupportedError
from qmigtool.stream.model import Stream
from qmigtool.stream.opening import open_stream
from qmigtool.util.budget import portion

__all__ = ["Learned", "learn_from"]


class Learned(NamedTuple):
    """A schema; the files that were ``skipped`` because they have no vmdesc; the ``problems`` of all files."""

    schema: Schema
    skipped: list[str]
    problems: list[QmigError]


def learn_from(
    files: Iterable[str],
    name: str = "learned",
    *,
    opening: Callable[[str], AbstractContextManager[Stream]] = open_stream,
) -> Learned:
    """Learn a schema called ``name`` from the vmdescs of streams, each read with a budget of its own.

    ``opening`` opens one of the files. A broken stream adds its problems and what could be read of its vmdesc. Raises
    :class:`~qmigtool.errors.UnsupportedError` if no intact stream has a vmdesc, and the errors of ``opening``.
    """
    found = Learned(Schema(name), [], [])
    for file in files:
        with portion(), opening(file) as stream:
            stream.prove()
            vmdesc = stream.vmdesc
            found.problems.extend(stream.problems)
            if vmdesc is None:
                found.skipped.append(file)
            else:
                found.schema.add(vmdesc, stream.machine)
    if not found.schema.devices and not found.problems:
        raise UnsupportedError("learning from a stream without a vmdesc")
    return found
