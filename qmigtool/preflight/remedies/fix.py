"""One fix: edits of a stream that mend a refusal, or options of the target's QEMU that do instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qmigtool.preflight.target.model import Target
from qmigtool.rewrite.edits import Edit

__all__ = ["Fix", "edit", "join"]


@dataclass(frozen=True, slots=True)
class Fix:
    """What mends one refusal.

    ``words`` are the options of ``qmigtool rewrite`` and ``edits`` what they mean; ``options`` are options of QEMU, or
    things to do there, that make the edits needless, or that are needed because there are none. ``target`` is the
    target as these options make it, None if nothing changes. ``loses`` says what the edits give up, ``guesses`` what
    they rest on and nothing in the stream says.
    """

    words: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    options: tuple[str, ...] = ()
    target: Target | None = field(default=None, compare=False)
    loses: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()


def edit(op: str, *values: str, **parameters: Any) -> Fix:
    """Return a fix of one edit; ``values`` are what stands on the command line."""
    return Fix((f"--{op}", *values), (Edit(op, parameters),))


def join(*fixes: Fix, options: Sequence[str] = (), loses: Sequence[str] = ()) -> Fix:
    """Join fixes of one refusal; ``options`` are those that make all of them needless."""
    return Fix(
        tuple(word for fix in fixes for word in fix.words),
        tuple(one for fix in fixes for one in fix.edits),
        tuple(options),
        None,
        tuple(loses) + tuple(loss for fix in fixes for loss in fix.loses),
        tuple(guess for fix in fixes for guess in fix.guesses),
    )
