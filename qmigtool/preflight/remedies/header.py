"""Fixes of what stands before the state: machine type, configuration, capabilities, UUID; and of commands."""

from __future__ import annotations

import re
import uuid as uuids
from dataclasses import replace
from typing import TYPE_CHECKING

from qmigtool.parsers.configuration import COMPARED
from qmigtool.preflight.remedies.fix import Fix, edit, join

if TYPE_CHECKING:
    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream import Stream

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

_FAMILY = re.compile(r"(.+)-\d{1,3}\.\d{1,3}")


def machine(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Turn the stream into the target's version of its machine type; one of another family nothing mends."""
    old, new = stream.machine, target.machine
    if old is None or new is None:
        return None
    options = (f"-M {old}",)
    families = _FAMILY.fullmatch(old), _FAMILY.fullmatch(new)
    if families[0] is None or families[1] is None or families[0][1] != families[1][1]:
        # With another machine its devices, and so its sections, are others, too.
        return Fix(options=options, target=replace(target, machine=old, sections=None, blocks=None))
    return replace(edit("upgrade-machine", new, name=new), options=options)


def configuration(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Have the target expect no configuration section."""
    return _switch(target, "send-configuration", on=False)


def section_type(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Have the target expect what the stream has: a configuration section, or footers."""
    if stream.configuration is not None and target.properties.get("send-configuration") is False:
        return _switch(target, "send-configuration", on=True)
    if target.properties.get("send-section-footer") is False:
        return _switch(target, "send-section-footer", on=True)
    return None


def footer(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Have the target expect no footers, if the stream has none at all."""
    _ = stream.sections
    return None if stream.footers else _switch(target, "send-section-footer", on=False)


def _switch(target: Target, name: str, *, on: bool) -> Fix | None:
    if target.properties.get(name, True) is on:
        return None
    properties = {**target.properties, name: on}
    return Fix(
        options=(f"-global migration.{name}={'on' if on else 'off'}",), target=replace(target, properties=properties)
    )


def capability(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Make the capabilities alike that the target compares with its own."""
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
    """List the capabilities no more that the target does not know."""
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
    """Leave the command out at which the target stopped."""
    at = verdict.offset
    for section in stream.sections:
        if section.type == "command" and section.name and at is not None and section.offset <= at < section.end:
            return edit("drop-command", section.name, name=section.name)
    return None


def advise(stream: Stream, target: Target, verdict: Verdict) -> Fix | None:
    """Write memory without the announcement of postcopy."""
    options = ("migrate_set_capability postcopy-ram on (in the target's monitor, -incoming defer)",)
    return replace(edit("ram", "plain", format="plain"), options=options)
