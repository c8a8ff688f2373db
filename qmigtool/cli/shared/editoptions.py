"""The options of ``rewrite`` that are edits: declared with their methods, applied in the order in which they came."""

from __future__ import annotations

from typing import Any

import click

from qmigtool.cli.shared.command import ToolCommand
from qmigtool.cli.shared.parameters import read_small
from qmigtool.rewrite.editoption import EditOption, Heading
from qmigtool.rewrite.edits import Edit, load_edits
from qmigtool.rewrite.rewriter import OPTIONS

ORDER = "qmigtool.cli.shared.editoptions"  # where a context keeps it
MAX_EDITS = 1 << 20  # bytes of a file of edits


FROM_FILE = EditOption(
    "--edits",
    "edits",
    Heading.FILE,
    ("TOML",),
    "Make the edits of a file, at this place in the order.",
    lambda file: {"file": file},
)
EDIT_OPTIONS = (*sorted(OPTIONS, key=lambda option: [*Heading].index(option.heading)), FROM_FILE)
EDIT_HEADINGS = {
    heading.value: tuple(option.flag for option in EDIT_OPTIONS if option.heading is heading) for heading in Heading
}


class EditCommand(ToolCommand):
    """A command that remembers in which order its options came: edits apply in that order."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and note the order."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


def edit_options(command: Any) -> Any:
    """Add every option that is an edit."""
    for option in reversed(EDIT_OPTIONS):
        more: dict[str, Any] = {"multiple": True, "nargs": len(option.metavar), "metavar": " ".join(option.metavar)}
        if not option.metavar:
            more = {"is_flag": True}
        command = click.option(option.flag, option.dest, help=option.help, **more)(command)
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
        if option is FROM_FILE:
            text = read_small(parameters["file"], MAX_EDITS)
            found += load_edits(text.decode("utf-8", "replace"), parameters["file"])
        else:
            found.append(Edit(option.op, parameters))
    return found
