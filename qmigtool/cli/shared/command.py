"""What every command's ``--help`` has: options under headings where they are many, and examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from qmigtool.cli.shared.helptext import ToolContext
from qmigtool.cli.shared.terminal import paged

__all__ = ["ToolCommand", "command"]


class ToolCommand(click.Command):
    """A command with examples, which run on ``samples/``, and with headings for its options.

    ``headings`` maps a heading to options by name (``--ram``); those under no heading come last, as "Options".
    """

    context_class = ToolContext

    def __init__(
        self, *args: Any, examples: Sequence[str], headings: Mapping[str, Sequence[str]] | None = None, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self.examples = tuple(examples)
        self.headings = {} if headings is None else headings

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Make the context; where it is for completion, with what completes each parameter."""
        if extra.get("resilient_parsing"):
            from qmigtool.cli.shared.completion import complete

            for parameter in self.params:
                completed = complete(parameter)
                if completed is not None:
                    vars(parameter)["shell_complete"] = completed
        return super().make_context(info_name, args, parent, **extra)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the parts of the usage line, with the options that the command requires."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        required = [_usage(one) for one in options if one.required]
        if any("--dry-run" in one.opts for one in options):
            required += [f"(--dry-run | {_usage(one)})" for one in options if "-o" in one.opts]
        return [*super().collect_usage_pieces(ctx), *required]

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, its output through the pager if it is long."""
        with paged():
            return super().invoke(ctx)

    def options_by_heading(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """Return (option, help) of each option, by heading."""
        found: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*self.headings, "Options")}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                mine = (heading for heading, names in self.headings.items() if {*names} & {*parameter.opts})
                found[next(mine, "Options")].append(record)
        return {heading: records for heading, records in found.items() if records}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        for heading, records in self.options_by_heading(ctx).items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples; a command line is never wrapped."""
        with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
            for line in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")


def _usage(option: click.Option) -> str:
    choices = "|".join(map(str, option.type.choices)) if isinstance(option.type, click.Choice) else option.type.name
    return f"{min(option.opts, key=len)} {option.metavar or choices}"


def command(
    *examples: str,
    name: str | None = None,
    headings: Mapping[str, Sequence[str]] | None = None,
    cls: type[ToolCommand] = ToolCommand,
) -> Callable[[Callable[..., Any]], ToolCommand]:
    """Make a command of a function, with its ``examples``."""
    return click.command(name, cls=cls, examples=examples, headings=headings)
