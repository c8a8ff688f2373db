"""The text of ``--help``: its lines break at spaces, never inside an option's name or a command in backquotes."""

from __future__ import annotations

import re
from collections.abc import Iterable

import click

__all__ = ["ToolContext"]

_COMMAND = re.compile(r"`[^`]+`")
_KEPT = {"-": "\u2011", " ": "\u00a0"}  # what looks the same and does not break a line


class HelpFormatter(click.HelpFormatter):
    """click's, which would end a line inside ``--hyperv-quirk``."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write the usage line."""
        super().write_usage(prog, _kept(args), prefix)

    def write_text(self, text: str) -> None:
        """Write a paragraph."""
        super().write_text(_kept(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names with what they mean."""
        super().write_dl([(_kept(name), _kept(text)) for name, text in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        """Return the text."""
        text = super().getvalue()
        for plain, kept in _KEPT.items():
            text = text.replace(kept, plain)
        return text


class ToolContext(click.Context):
    """The context of every command."""

    formatter_class = HelpFormatter


def _kept(text: str) -> str:
    text = _COMMAND.sub(lambda found: found[0].replace(" ", _KEPT[" "]), text)
    return text.replace("-", _KEPT["-"])
