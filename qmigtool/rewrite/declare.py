"""Declaring an edit: one decorator at its method makes it an edit for Python, for TOML files and for command lines.

:mod:`.rewriter` has the methods, :mod:`.edits` calls them by name, the command line makes its options of
:data:`OPTIONS`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

from qmigtool.rewrite.editoption import EditOption, Heading, Words, by_position, kinds_of

if TYPE_CHECKING:
    from qmigtool.rewrite.draft import Draft

__all__ = ["EDITS", "OPTIONS", "edit", "whole", "without_option"]

P = ParamSpec("P")

EDITS: dict[str, str] = {}
"""Name of each edit in TOML files and on command lines -> name of its method."""
OPTIONS: list[EditOption] = []
"""The options that are edits, in the order of their methods."""


class _Edits(Protocol):
    """The class whose methods are edits."""

    @property
    def draft(self) -> Draft: ...


R = TypeVar("R", bound=_Edits)
Method: TypeAlias = Callable[Concatenate[R, P], None]


def whole(name: str) -> Callable[[Method[R, P]], Method[R, P]]:
    """Register a method as the edit of this name: it applies completely or, if it raises, not at all."""

    def decorate(method: Method[R, P]) -> Method[R, P]:
        @functools.wraps(method)
        def made(self: R, /, *args: P.args, **kwargs: P.kwargs) -> None:
            with self.draft.edit(name):
                method(self, *args, **kwargs)

        return made

    return decorate


def edit(
    heading: Heading, metavar: tuple[str, ...], text: str, words: Words | None = None, *, flag: str | None = None
) -> Callable[[Method[R, P]], Method[R, P]]:
    """Register a method as the edit of its own name, in TOML files and as an option on command lines.

    ``heading`` and ``text`` are what ``--help`` prints for the option, ``metavar`` its arguments, and ``words`` the
    function that makes parameters of them (default: one each, in the method's order). ``flag`` is the option's name if
    it differs from the edit's; a method may have several options.
    """

    def decorate(method: Method[R, P]) -> Method[R, P]:
        name = method.__name__.replace("_", "-")
        OPTIONS.append(
            EditOption(f"--{flag or name}", name, heading, metavar, text, words or by_position(method, metavar))
        )
        return method if name in EDITS else without_option(method)

    return decorate


def without_option(method: Method[R, P]) -> Method[R, P]:
    """Register a method as the edit of its own name, without an option of that name."""
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        kinds_of(parameter)  # every edit can check its parameters
    name = method.__name__.replace("_", "-")
    EDITS[name] = method.__name__
    return whole(name)(method)
