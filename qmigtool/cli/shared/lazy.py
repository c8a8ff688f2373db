"""Groups whose commands are imported when they are called: listing devices does not wait for the edit engine."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from qmigtool.cli.shared import othernames
from qmigtool.cli.shared.helptext import ToolContext

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """A group with more commands: name -> (``module:attribute`` in this package, its line in the list of commands).

    The line is kept here so that ``--help`` and shell completion import no command. Without a command, the group
    prints its help; so do ``help`` and ``help COMMAND``.
    """

    context_class = ToolContext

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **more: Any) -> None:
        super().__init__(*args, **more)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported if need be; None if there is none."""
        place, summary = self._lazy.get(cmd_name, (None, None))
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"qmigtool.cli.{module}"), attribute)
        command.short_help = summary
        return command

    def summary(self, name: str) -> str:
        """Return the line of a command in the list of commands."""
        return self._lazy[name][1]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.summary(name)) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Return the commands and options that a shell may offer; no command is imported."""
        from qmigtool.cli.shared.completion import describe

        commands = [(name, self.summary(name)) for name in self.list_commands(ctx)]
        return [*describe(commands, incomplete), *click.Command.shell_complete(self, ctx, incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options in front of the command; without arguments, print help on stdout."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with those that may be meant."""
        if args[0] == "help" and self.get_command(ctx, "help") is None and not ctx.resilient_parsing:
            if len(args) == 1:
                click.echo(ctx.get_help(), color=ctx.color)
                ctx.exit()
            return self.resolve_command(ctx, [*args[1:], "--help"])
        if not ctx.resilient_parsing and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            self._refuse(ctx, args[0])
        return super().resolve_command(ctx, args)

    def _refuse(self, ctx: click.Context, name: str) -> NoReturn:
        group = ctx.command_path.partition(" ")[2]
        renamed = othernames.RENAMED.get(f"{group} {name}".strip())
        if renamed is not None:
            raise click.UsageError(f"the command {name!r} is now called: qmigtool {renamed}", ctx)
        meant = othernames.meant(name, group, self.list_commands(ctx))
        hint = f"; did you mean: {', '.join(f'qmigtool {one}' for one in meant)}" if meant else ""
        raise click.UsageError(f"no such command {name!r}{hint}", ctx)
