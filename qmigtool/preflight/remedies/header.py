"""Fixes of what precedes the state: machine type, configuration, capabilities, UUID; and of commands."""

from __future__ import annotations

import uuid as uuids
from dataclasses import replace
from typing import TYPE_CHECKING

from qmigtool.devices.machinetypes import machine_type
from qmigtool.parsers.configuration import COMPARED
from qmigtool.preflight.remedies.fix import Fix, edit, join
from qmigtool.preflight.remedies.offered import offered
from qmigtool.rewrite.vendors import upstream

if TYPE_CHECKING:
    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream.model import Stream

__all__ = [
    "advise",
    "capability",
    "command",
    "configuration",
    "footer",
    "machine",
    "section_type",
    "unknown_capability",
    "uuid",
]


def machine(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Change the stream's machine type to the target's version of it; no edit fixes a machine of another family.

    A vendor's machine type is assumed to be the nearest upstream one, which is a guess.
    """
    old, new = stream.machine, target.machine
    if old is None or new is None:
        return None
    known = offered(target, stream, old)
    options = (f"-M {old}",) if known else (f"-M {old}, if that QEMU has it",) if known is None else ()
    taken = {name: upstream(name) or name for name in (old, new)}
    guesses = tuple(f"{name} is treated as {other}" for name, other in taken.items() if other != name)
    families = [
        found.family if (found := machine_type(taken[name])) and not found.vendor else None for name in (old, new)
    ]
    if families[1] is not None and families[0] is None and old.startswith(f"{families[1]}-"):
        # Another vendor's machine type: the target expects its own.
        guesses = (f"{old} is treated as a version of {families[1]}", *guesses)
        return replace(edit("machine-type", new, name=new), options=options, guesses=guesses)
    if families[0] is None or families[0] != families[1]:
        # Another machine has other devices, and so other sections.
        return Fix(options=options, target=replace(target, machine=old, sections=None, blocks=None)) if known else None
    return replace(edit("upgrade-machine", new, name=new), options=options, guesses=guesses)


def configuration(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Add a configuration section, or make the target expect none."""
    if target.machine is None:
        return _switch(target, "send-configuration", on=False)
    page_size = None if target.page_bits is None or stream.vcpus else 1 << target.page_bits
    if page_size is not None:
        return _switch(target, "send-configuration", on=False)  # unknown whether the page size must be sent
    options = ("-global migration.send-configuration=off",)
    return replace(edit("add-configuration", target.machine, machine=target.machine), options=options)


def section_type(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Drop the configuration section or the footers if the target does not expect them; or make it expect them."""
    if stream.configuration is not None and target.properties.get("send-configuration") is False:
        if stream.configuration.capabilities:
            return _switch(target, "send-configuration", on=True)
        lost = [] if stream.configuration.uuid is None else ["the VM's UUID"]
        return join(edit("drop-configuration"), options=("-global migration.send-configuration=on",), loses=lost)
    if stream.footers and target.properties.get("send-section-footer") is False:
        if stream.vmdesc is None:
            return _switch(target, "send-section-footer", on=True)
        return replace(edit("drop-footers"), options=("-global migration.send-section-footer=on",))
    return None


def footer(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Add a footer to every section, or make the target expect none, if the stream has none at all."""
    _ = stream.sections
    if stream.footers or target.properties.get("send-section-footer", True) is False:
        return None
    return replace(edit("add-footers"), options=("-global migration.send-section-footer=off",))


def _switch(target: Target, name: str, *, on: bool) -> Fix | None:
    if target.properties.get(name, True) is on:
        return None
    properties = {**target.properties, name: on}
    return Fix(
        options=(f"-global migration.{name}={'on' if on else 'off'}",), target=replace(target, properties=properties)
    )


def capability(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Make the capabilities that the target compares equal to its own."""
    for name in COMPARED:
        sent, local = name in stream.capabilities, target.capabilities.get(name, False)
        if sent == local:
            continue
        options = (
            f"migrate_set_capability {name} {'on' if sent else 'off'} (in the target's monitor, -incoming defer)",
        )
        if name == "mapped-ram":
            form = "plain" if sent else "mapped-ram"
            return replace(edit("ram", form, format=form), options=options)
        op = "drop-capability" if sent else "add-capability"
        return replace(edit(op, name, name=name), options=options)
    return None


def unknown_capability(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Drop the capabilities that the target does not know."""
    if "mapped-ram" in stream.capabilities:
        return edit("ram", "plain", format="plain")  # QEMU before 9.0 does not know it
    known = {*COMPARED, *target.capabilities}
    fixes = [edit("drop-capability", name, name=name) for name in stream.capabilities if name not in known]
    return join(*fixes) if fixes else None


def uuid(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Give the target the guest's UUID."""
    raw = stream.configuration.uuid if stream.configuration is not None else None
    if raw is None:
        return None
    text = str(uuids.UUID(bytes=raw))
    return Fix(options=(f"-uuid {text}",), target=replace(target, uuid=text))


def command(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Drop the command at which the target stopped."""
    at = verdict.offset
    for section in stream.sections:
        if section.type == "command" and section.name and at is not None and section.offset <= at < section.end:
            return edit("drop-command", section.name, name=section.name)
    return None


def advise(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Write memory without POSTCOPY_ADVISE."""
    options = ("migrate_set_capability postcopy-ram on (in the target's monitor, -incoming defer)",)
    return replace(edit("ram", "plain", format="plain"), options=options)
