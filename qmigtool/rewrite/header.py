"""Edits of what precedes the state: the machine type, the capabilities, and the commands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qmigtool.errors import LiveStateError, UsageError
from qmigtool.parsers.configuration import MAX_CAPABILITIES, MAX_NAME, Configuration
from qmigtool.rewrite.memory import IGNORE_SHARED
from qmigtool.rewrite.values import name_bytes

if TYPE_CHECKING:
    from qmigtool.rewrite.draft import Draft

__all__ = ["add_capability", "configuration", "drop_capability", "drop_command", "list_capability", "set_machine_type"]

MAPPED_RAM = "mapped-ram"
# In the order of the QAPI enumeration MigrationCapability, which is the order in which QEMU lists them.
ORDER = (IGNORE_SHARED, MAPPED_RAM)


def configuration(draft: Draft) -> Configuration:
    """Return the configuration section as it will be; raises :class:`~qmigtool.errors.UsageError` if there is none."""
    if draft.configuration is None:
        raise UsageError(
            "this stream has no configuration section",
            expected="one: it was saved with migration.send-configuration=off, or by a very old machine type",
        )
    return draft.configuration


def _offset(draft: Draft) -> int | None:
    return next((s.body_offset for s in draft.stream.sections if s.type == "configuration"), None)


def set_machine_type(draft: Draft, name: str, why: str = "") -> None:
    """Change the machine type of the stream. The state stays; this does not check that it fits that machine.

    QEMU compares only as many bytes of its own machine's name as the stream has.
    """
    old = configuration(draft)
    if len(name_bytes(name)) > MAX_NAME:
        raise UsageError(f"a machine type of {len(name_bytes(name))} bytes", expected=f"at most {MAX_NAME}")
    if name != old.machine:
        draft.change("configuration/machine", _offset(draft), old.machine, name, why)
        draft.configuration = replace(old, machine=name)


def add_capability(draft: Draft, name: str, why: str = "") -> None:
    """Add a migration capability to the list; the loader must have the same ones enabled.

    x-ignore-shared gives every RAM block an address (0: QEMU compares only those of blocks that it shares); mapped-ram
    is another format of memory, see :func:`qmigtool.rewrite.blocks.set_format`.
    """
    old = configuration(draft)
    if name in old.capabilities:
        return
    if name == MAPPED_RAM:
        raise UsageError("mapped-ram is another format of memory", expected="--ram mapped-ram")
    if name == IGNORE_SHARED:
        draft.memory.ignore_shared = True
    list_capability(draft, name, why=why)


def drop_capability(draft: Draft, name: str, why: str = "") -> None:
    """Remove a migration capability from the list.

    Raises :class:`~qmigtool.errors.LiveStateError` for x-ignore-shared if a block was not sent: without the capability,
    the block would be zero in the loader.
    """
    old = configuration(draft)
    if name == MAPPED_RAM:
        raise UsageError("mapped-ram is another format of memory", expected="--ram plain")
    if name not in old.capabilities:
        raise UsageError(
            f"no capability {name!r}", expected=", ".join(old.capabilities) or "none: the stream lists none"
        )
    if name == IGNORE_SHARED:
        shared = [block.name for block in draft.memory.kept if draft.memory.sent_elsewhere(block)]
        if shared:
            raise LiveStateError(
                f"the pages of shared memory are not in the stream: {', '.join(shared)}", section="ram"
            )
        draft.memory.ignore_shared = False
    list_capability(draft, name, listed=False, why=why)


def list_capability(draft: Draft, name: str, *, listed: bool = True, why: str = "") -> None:
    """Add a capability to the list at its place, or remove it; the caller makes the other changes that it needs."""
    old = configuration(draft)
    if not 1 <= len(name_bytes(name)) <= 255 or (listed and len(old.capabilities) >= MAX_CAPABILITIES):
        raise UsageError(f"a capability {name[:40]!r}", expected=f"1 to 255 bytes, at most {MAX_CAPABILITIES} of them")
    there = {*old.capabilities, name} if listed else {*old.capabilities} - {name}
    new = (*(one for one in ORDER if one in there), *(one for one in old.capabilities if one in there - {*ORDER}))
    if listed and name not in new:
        new = (*new, name)
    if new != old.capabilities:
        before, after = (" ".join(names) or None for names in (old.capabilities, new))
        draft.change("configuration/capabilities", _offset(draft), before, after, why)
        draft.configuration = replace(old, capabilities=new)


def drop_command(draft: Draft, name: str, why: str = "") -> None:
    """Drop every command of this name (for example ``SWITCHOVER_START``, which QEMU before 10.0 does not know)."""
    found = draft.commands(name.upper())
    if not found:
        there = sorted({s.name or "" for s in draft.stream.sections if s.type == "command"})
        raise UsageError(f"no command {name!r}", expected=", ".join(there) or "none: the stream has no commands")
    if name.upper() == "POSTCOPY_ADVISE" and any(block.page_size is not None for block in draft.stream.ram_blocks):
        raise UsageError("the block list depends on POSTCOPY_ADVISE: it has page sizes", expected="--ram plain")
    for section in found:
        draft.change(f"command {section.name}", section.offset, section.name, None, why)
        draft.drop_command(section)
