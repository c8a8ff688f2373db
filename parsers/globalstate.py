"""The body of the section globalstate (QEMU: ``migration/global_state.c``): the run state of the guest."""

from __future__ import annotations

from qmigtool.parsers.record import decode_name

__all__ = ["RUN_STATE", "RUN_STATES", "run_state_name"]

RUN_STATE = "runstate"
"""The field: the name, ended by a NUL, in a buffer of 100 bytes."""

RUN_STATES = frozenset(
    {
        *("colo", "debug", "finish-migrate", "guest-panicked", "inmigrate", "internal-error", "io-error", "paused"),
        *("postmigrate", "prelaunch", "restore-vm", "running", "save-vm", "shutdown", "suspended", "watchdog"),
    }
)
"""The names that a loader accepts: RunState of qapi/run-state.json, QEMU 7.2 to 11.1.

5.2 had ``preconfig`` as well, in which nothing can be migrated; later versions refuse it."""


def run_state_name(buffer: bytes) -> str:
    """Return the name in the field's bytes."""
    return decode_name(buffer.partition(b"\0")[0])
