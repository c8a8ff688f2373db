"""The options of ``rewrite`` that are edits: each is declared once, and they apply in the order in which they came."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from qmigtool.cli.shared.command import Command
from qmigtool.cli.shared.parameters import read_small
from qmigtool.errors import UsageError
from qmigtool.rewrite.edits import Edit, load_edits
from qmigtool.rewrite.values import brief, parse
from qmigtool.util.values import parse_number
from qmigtool.x86.traits import TARGETS

ORDER = "qmigtool.cli.shared.editoptions"  # where a context keeps it
MAX_EDITS = 1 << 20  # bytes of a file of edits


def _pair(text: str, first: str, second: str) -> dict[str, Any]:
    name, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"{text!r} has no '='", expected=f"{first.upper()}={second.upper()}")
    return {first: name, second: value}


def _set(text: str) -> dict[str, Any]:
    pair = _pair(text, "path", "value")
    return {"path": pair["path"], "to": parse(pair["value"])}


_FIELD = re.compile(r"(?P<type>[^,=]*)(?:,after=(?P<after>[^=]*))?(?:=(?P<value>.*))?", re.DOTALL)


def _field(path: str, text: str) -> dict[str, Any]:
    match = _FIELD.fullmatch(text)
    if match is None:
        raise UsageError(f"--add-field: {brief(text)}", expected="TYPE[,after=FIELD][=VALUE]")
    value = match["value"]
    parsed = None if value is None else parse(value)
    return {"path": path, "type": match["type"] or None, "after": match["after"], "value": parsed}


def _named(text: str) -> dict[str, Any]:
    name, _, data = text.partition("=")
    return {"name": name, "data": data or None}


def _section(text: str) -> dict[str, Any]:
    name, at, instance = text.rpartition("@")
    if not at or not instance.isdecimal():
        return {"name": text, "instance_id": 0}
    if len(instance) > 10:
        raise UsageError(f"the instance {instance[:20]}... does not fit", expected="0 to 0xffffffff")
    return {"name": name, "instance_id": int(instance)}


def _add_section(name: str, version: str) -> dict[str, Any]:
    version, _, data = version.partition("=")
    return {**_section(name), "version": version, "data": data or None}


def _resize(name: str, size: str) -> dict[str, Any]:
    to = parse_number(size)
    if to is None or to < 0:
        raise UsageError(
            f"--resize-block: {brief(size)} is no size", expected="bytes, or with a unit: 0x80000, 512K, 1M"
        )
    return {"name": name, "to": to}


def _rename_section(path: str, to: str) -> dict[str, Any]:
    section = _section(to)
    instance = section["instance_id"] if "@" in to else None
    return {"path": path, "to": section["name"], "instance_id": instance}


@dataclass(frozen=True, slots=True)
class EditOption:
    """An option that is an edit: what it takes on the command line, and the parameters that this means."""

    op: str
    metavar: tuple[str, ...]
    help: str
    parameters: Callable[..., dict[str, Any]]

    @property
    def flag(self) -> str:
        """The option."""
        return f"--{self.op}"

    @property
    def dest(self) -> str:
        """What click calls its value."""
        return "edit_" + self.op.replace("-", "_")

    def decorate(self, command: Any) -> Any:
        """Add the option to a command."""
        more: dict[str, Any] = {"multiple": True, "help": self.help}
        if not self.metavar:
            more = {"is_flag": True, "help": self.help}
        else:
            more |= {"nargs": len(self.metavar), "metavar": " ".join(self.metavar)}
        return click.option(self.flag, self.dest, **more)(command)


def _one(name: str) -> Callable[[str], dict[str, Any]]:
    return lambda text: {name: text}


def _two(first: str, second: str) -> Callable[[str, str], dict[str, Any]]:
    return lambda one, other: {first: one, second: other}


EDITS = {
    "Edits of fields and subsections": (
        EditOption("set", ("PATH=VALUE",), "Set a field: cpu@0/env.mxcsr=0x1f80, cpu@0/env.dr=[0,...].", _set),
        EditOption(
            "add-field",
            ("PATH", "TYPE[,after=FIELD][=VALUE]"),
            "Add a field: 0000:00:01.3/piix4_pm/acpi_pci_hotplug.acpi_index uint32.",
            _field,
        ),
        EditOption("drop-field", ("PATH",), "Remove a field.", _one("path")),
        EditOption(
            "add-subsection",
            ("PARENT", "NAME[=HEX]"),
            "Add a subsection with these bytes, by default zeros.",
            lambda path, name: {"path": path, **_named(name)},
        ),
        EditOption("drop-subsection", ("PATH",), "Remove a subsection: cpu@0/cpu/pkru.", _one("path")),
        EditOption("rename-subsection", ("PATH", "NAME"), "Rename a subsection.", _two("path", "to")),
    ),
    "Edits of sections": (
        EditOption("add-section", ("NAME[@N]", "VERSION[=HEX]"), "Add a section after the last one.", _add_section),
        EditOption("drop-section", ("NAME[@N]",), "Remove a section: kvmclock.", _one("path")),
        EditOption("rename-section", ("NAME[@N]", "NAME[@N]"), "Rename a section, or its instance.", _rename_section),
        EditOption("set-version", ("PATH", "N"), "Set the version_id of a section or subsection.", _two("path", "to")),
    ),
    "Edits of machine type and framing": (
        EditOption(
            "machine-type", ("NAME",), "Set the name of the machine type, without changing state.", _one("name")
        ),
        EditOption(
            "upgrade-machine", ("NAME",), "Set another version of the machine type, and adapt the state.", _one("name")
        ),
        EditOption("add-configuration", ("MACHINE",), "Add a configuration section.", _one("machine")),
        EditOption("drop-configuration", (), "Remove the configuration section.", dict),
        EditOption("add-footers", (), "Add a footer to every section.", dict),
        EditOption("drop-footers", (), "Remove the footers of all sections.", dict),
        EditOption("add-capability", ("NAME",), "Add a migration capability.", _one("name")),
        EditOption("drop-capability", ("NAME",), "Remove a migration capability.", _one("name")),
        EditOption("drop-command", ("NAME",), "Remove commands: SWITCHOVER_START.", _one("name")),
    ),
    "Edits of memory": (
        EditOption("rename-block", ("NAME", "NAME"), "Rename a RAM block.", _two("name", "to")),
        EditOption("resize-block", ("NAME", "BYTES"), "Resize a RAM block: 0x80000, 512K, 1M.", _resize),
        EditOption("drop-block", ("NAME",), "Remove a RAM block.", _one("name")),
        EditOption("ram", ("plain|mapped-ram",), "Write memory as plain records, or as mapped-ram.", _one("format")),
        EditOption("squeeze-zero-pages", (), "Write pages of zeros as zero pages.", dict),
        EditOption("scrub-ram", (), "Make every page a zero page.", dict),
        EditOption("scrub-block", ("NAME",), "Make every page of a RAM block a zero page.", _one("names")),
    ),
    "Edits of extended state": (
        EditOption("drop-component", ("MASK",), "Remove components: amx,pkru.", _one("mask")),
        EditOption("set-xcr0", ("VCPU", "MASK"), "Set the XCR0 of a vCPU.", _two("vcpu", "mask")),
        EditOption("repair", ("xstate-bv",), "Declare in XSTATE_BV what is live.", _one("what")),
        EditOption("to-accelerator", ("|".join(TARGETS),), "Convert the state for an accelerator.", _one("name")),
    ),
    "Edits from a file": (
        EditOption("edits", ("TOML",), "Make the edits of a file, at this place in the order.", _one("file")),
    ),
}
EDIT_OPTIONS = tuple(option for options in EDITS.values() for option in options)
EDIT_HEADINGS = {heading: tuple(option.flag for option in options) for heading, options in EDITS.items()}


class EditCommand(Command):
    """A command that remembers in which order its options came: edits apply in that order."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and note the order."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


def edit_options(command: Any) -> Any:
    """Add every option that is an edit."""
    for option in reversed(EDIT_OPTIONS):
        command = option.decorate(command)
    return command


def ordered_edits(order: list[str | None], given: dict[str, Any]) -> list[Edit]:
    """Return the edits of a command line, in its order."""
    by_dest = {option.dest: option for option in EDIT_OPTIONS}
    left = {dest: list(given[dest]) if by_dest[dest].metavar else [()] for dest in by_dest}
    found = []
    for name in order:
        option = by_dest.get(name or "")
        if option is None or not left[option.dest]:
            continue
        value = left[option.dest].pop(0)
        parameters = option.parameters(*(value if isinstance(value, tuple) else (value,)))
        if option.op == "edits":
            text = read_small(parameters["file"], MAX_EDITS)
            found += load_edits(text.decode("utf-8", "replace"), parameters["file"])
        else:
            found.append(Edit("scrub-ram" if option.op == "scrub-block" else option.op, parameters))
    return found
