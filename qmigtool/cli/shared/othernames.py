"""Names that people try for commands and options, and what they are called here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

import click

__all__ = ["OTHER_NAMES", "RENAMED", "meant", "renamed_option"]

F = TypeVar("F", bound=Callable[..., Any])

RENAMED = {"compat": "analyze"}
# What other programs call it, and the commands inside groups: they are looked for at the top.
OTHER_NAMES = {
    "analyse": ("analyze",),
    "analyze-migration": ("analyze",),
    "cat": ("show",),
    "cmp": ("diff",),
    "compact": ("xsave convert",),
    "compare": ("diff",),
    "components": ("xsave table",),
    "convert": ("xsave convert", "rewrite"),
    "devices": ("show",),
    "dump": ("show", "xsave export"),
    "edit": ("rewrite",),
    "export": ("xsave export", "mshv export"),
    "fields": ("show",),
    "file": ("info",),
    "hyperv": ("mshv",),
    "identify": ("info",),
    "import": ("xsave import", "mshv import"),
    "layouts": ("xsave layouts",),
    "learn": ("schema learn",),
    "lint": ("check",),
    "list": ("sections", "show"),
    "ls": ("sections", "show"),
    "memory": ("ram",),
    "patch": ("rewrite",),
    "predict": ("preflight",),
    "print": ("show",),
    "registers": ("show FILE cpu",),
    "regs": ("show FILE cpu",),
    "revert": ("undo",),
    "set": ("rewrite",),
    "stat": ("info",),
    "table": ("xsave table",),
    "validate": ("check",),
    "vcpus": ("xsave table",),
    "verify": ("check",),
    "vmdesc": ("analyze",),
    "whpx": ("mshv",),
}
MOST = 3


def meant(name: str, group: str, commands: Sequence[str]) -> list[str]:
    """Return the commands that ``name`` may mean, in a group with these ``commands``, best first."""
    inside = [f"{group} {one}".strip() for one in get_close_matches(name, commands, MOST)]
    other = OTHER_NAMES.get(name.lower(), ())
    if group:  # `xsave dump` means the one in xsave, `schema compare` the diff in schema
        other = tuple(f"{group} {one}" if one in commands else one for one in other)
        other = tuple(sorted(other, key=lambda one: not one.startswith(f"{group} ")))
    if not inside and not other:
        other = tuple(one for near in get_close_matches(name, OTHER_NAMES, 1) for one in OTHER_NAMES[near])
    return list(dict.fromkeys([*other, *inside]))[:MOST]


def renamed_option(old: str, new: str) -> Callable[[F], F]:
    """Refuse the former name of an option with the name that it has now."""

    def refuse(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
        if value is not None and not context.resilient_parsing:
            raise click.UsageError(f"the option {old} is now called {new}", context)

    return click.option(
        old, hidden=True, expose_value=False, is_eager=True, callback=refuse, is_flag=False, flag_value=""
    )
