"""MIG_CMD_* in a stream (QEMU: ``loadvm_process_command`` in ``migration/savevm.c``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qmigtool.errors import StreamError
from qmigtool.parsers.records import Command, CommandHeader

if TYPE_CHECKING:
    from qmigtool.parsers.window import Window

__all__ = ["COMMAND_LENGTHS", "read_command"]

# The loader rejects other lengths of these commands; those not listed vary.
COMMAND_LENGTHS: dict[Command, tuple[int, ...]] = {
    Command.MIG_CMD_OPEN_RETURN_PATH: (0,),
    Command.MIG_CMD_PING: (4,),
    Command.MIG_CMD_POSTCOPY_ADVISE: (0, 16),
    Command.MIG_CMD_POSTCOPY_LISTEN: (0,),
    Command.MIG_CMD_POSTCOPY_RUN: (0,),
    Command.MIG_CMD_PACKAGED: (4,),
    Command.MIG_CMD_ENABLE_COLO: (0,),
    Command.MIG_CMD_POSTCOPY_RESUME: (0,),
    Command.MIG_CMD_SWITCHOVER_START: (0,),
}


def read_command(window: Window, pos: int) -> tuple[Command, int, bytes]:
    """Read the command at ``pos``: u8 8, be16 number, be16 length, its data.

    Returns the command, the offset of its data and the data. Raises :class:`~qmigtool.errors.StreamError` for an
    unknown number, or for a length that the loader rejects.
    """
    header, payload = CommandHeader.parse(window, pos + 1)
    if not Command.MIG_CMD_INVALID < header.cmd <= Command.MIG_CMD_SWITCHOVER_START:
        raise StreamError(f"unknown command {header.cmd}", offset=pos + 1, expected="1 to 11")
    command = Command(header.cmd)
    lengths = COMMAND_LENGTHS.get(command)
    if lengths is not None and header.length not in lengths:
        raise StreamError(
            f"{command.name} with {header.length} bytes",
            offset=pos + 3,
            expected=" or ".join(map(str, lengths)) + " bytes",
        )
    return command, payload, window.bytes(payload, header.length, command.name)
