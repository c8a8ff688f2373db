"""Commands as the target processes them (``loadvm_process_command`` in ``migration/savevm.c``)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from qmigtool.parsers.commands import COMMAND_LENGTHS
from qmigtool.parsers.record import decode_name
from qmigtool.parsers.records import Command
from qmigtool.preflight.loader.state import Undecided

if TYPE_CHECKING:
    from collections.abc import Callable

    from qmigtool.preflight.loader.state import Load

__all__ = ["load_command"]


class PostcopyState(IntEnum):
    """``PostcopyState`` of the incoming side."""

    NONE = 0
    ADVISE = 1
    DISCARD = 2
    LISTENING = 3


SWITCHOVER_START = (10, 0)
"""The first version that has the command."""
NO_COLO = (8, 1)
"""The first version that refuses ENABLE_COLO unless x-colo is on (migration/colo.c)."""


def load_command(load: Load) -> int | None:
    """Process a command, after its type byte.

    Returns the length of the package that follows it, for PACKAGED. Raises :class:`~.words.Refusal`, or
    :class:`~.state.Undecided` for what needs a source that responds.
    """
    cursor = load.cursor
    start = cursor.pos - 1
    number, length = cursor.be16(), cursor.be16()
    if cursor.failed:
        raise load.refuse("command-cut", start)
    known = Command.MIG_CMD_INVALID < number <= Command.MIG_CMD_SWITCHOVER_START
    if not known or (number == Command.MIG_CMD_SWITCHOVER_START and not load.since(SWITCHOVER_START)):
        raise load.refuse("command", start, cmd=number, length=length)
    command = Command(number)
    name = command.name.removeprefix("MIG_CMD_")
    if command is Command.MIG_CMD_ENABLE_COLO:
        _colo(load, start)
        return None
    fixed = COMMAND_LENGTHS.get(command, ())
    if len(fixed) == 1 and length != fixed[0]:
        raise load.refuse("command-length", start, name, name=name, expected=fixed[0], length=length)
    if command is Command.MIG_CMD_PACKAGED:
        return _package(load, start)
    obey = _COMMANDS.get(command)
    if obey is not None:
        obey(load, start, length)
    return None


def _package(load: Load, start: int) -> int:
    length = load.cursor.be32()
    left = load.cursor.left
    if left < length:
        raise load.refuse("package-cut", start, "PACKAGED", left=left, length=length)
    return length


def _colo(load: Load, start: int) -> None:
    if load.since(NO_COLO):
        raise load.refuse("colo", start, "ENABLE_COLO")
    load.note("ENABLE_COLO: this QEMU accepts the command and starts the VM, even with -S")


def _open_return_path(load: Load, start: int, length: int) -> None:
    if load.return_path:
        load.warn("return-path-open")
    load.return_path = True


def _ping(load: Load, start: int, length: int) -> None:
    token = load.cursor.be32()
    if not load.return_path:
        raise load.refuse("ping", start, "PING", token=token)


def _advise(load: Load, start: int, length: int) -> None:
    _state(load, start, "POSTCOPY_ADVISE", (PostcopyState.NONE,), PostcopyState.ADVISE)
    enabled = load.has("postcopy-ram")
    if enabled is None:
        enabled = length == 16
        if enabled:
            load.suppose("postcopy-ram", "POSTCOPY_ADVISE")
        else:
            load.miss("whether the target has the capability postcopy-ram on: assumed to be off")
    if length == 0:
        if enabled:
            raise load.refuse("advise-enabled", start)
    elif length == 16:
        summary, page = load.cursor.be64(), load.cursor.be64()
        if not enabled:
            raise load.refuse("advise-disabled", start)
        host = load.target.page_size_host or load.ram.page_size
        if summary != host:
            raise load.refuse("advise-pages", start, received=summary, local=host)
        if page != load.ram.page_size:
            raise load.refuse("advise-target-page", start, received=page, local=load.ram.page_size)
    else:
        raise load.refuse("advise-length", start, length=length)


def _listen(load: Load, start: int, length: int) -> None:
    _state(
        load,
        start,
        "POSTCOPY_LISTEN",
        (PostcopyState.ADVISE, PostcopyState.DISCARD),
        PostcopyState.LISTENING,
    )
    raise Undecided("postcopy: the rest loads only with a source that responds to page requests")


def _run(load: Load, start: int, length: int) -> None:
    _state(load, start, "POSTCOPY_RUN", (PostcopyState.LISTENING,), PostcopyState.LISTENING)


def _discard(load: Load, start: int, length: int) -> None:
    _state(
        load,
        start,
        "POSTCOPY_RAM_DISCARD",
        (PostcopyState.ADVISE, PostcopyState.DISCARD),
        PostcopyState.DISCARD,
    )
    load.cursor.skip(length)


def _resume(load: Load, start: int, length: int) -> None:
    load.warn("resume")


def _recv_bitmap(load: Load, start: int, length: int) -> None:
    count = load.cursor.u8()
    block = decode_name(load.cursor.take(count))
    if load.ram.length(block) is None:
        raise load.refuse("recv-bitmap", start, "RECV_BITMAP", block=block)
    raise Undecided("RECV_BITMAP: the target needs the source of a postcopy recovery")


def _state(load: Load, start: int, name: str, wanted: tuple[PostcopyState, ...], new: PostcopyState) -> None:
    if load.postcopy not in wanted:
        raise load.refuse("postcopy-state", start, name, name=name, state=load.postcopy)
    load.postcopy = new


_COMMANDS: dict[Command, Callable[[Load, int, int], None]] = {
    Command.MIG_CMD_OPEN_RETURN_PATH: _open_return_path,
    Command.MIG_CMD_PING: _ping,
    Command.MIG_CMD_POSTCOPY_ADVISE: _advise,
    Command.MIG_CMD_POSTCOPY_LISTEN: _listen,
    Command.MIG_CMD_POSTCOPY_RUN: _run,
    Command.MIG_CMD_POSTCOPY_RAM_DISCARD: _discard,
    Command.MIG_CMD_POSTCOPY_RESUME: _resume,
    Command.MIG_CMD_RECV_BITMAP: _recv_bitmap,
}
