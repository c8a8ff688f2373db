"""One fix of a refusal: edits of the stream, or options of the target's QEMU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qmigtool.preflight.target.model import Target
from qmigtool.rewrite.edits import Edit

__all__ = ["Fix", "edit", "join"]


@dataclass(frozen=True, slots=True)
class Fix:
    """The fix of one refusal.

    ``words`` are the options of ``qmigtool rewrite`` and ``edits`` the edits that they make; ``options`` are options
    of QEMU, or actions on the target, that make the edits unnecessary, or that are needed because there are no edits.
    ``target`` is the target with these options, None if nothing changes. ``loses`` lists what the edits lose,
    ``guesses`` the assumptions that nothing in the stream confirms.
    """

    words: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    options: tuple[str, ...] = ()
    target: Target | None = field(default=None, compare=False)
    loses: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()


def edit(op: str, *values: str, **parameters: Any) -> Fix:
    """Return a fix of one edit; ``values`` are its values on the command line."""
    return Fix((f"--{op}", *values), (Edit(op, parameters),))


def join(*fixes: Fix, options: Sequence[str] = (), loses: Sequence[str] = ()) -> Fix:
    """Join fixes of one refusal; ``options`` make all of them unnecessary."""
    return Fix(
        tuple(word for fix in fixes for word in fix.words),
        tuple(one for fix in fixes for one in fix.edits),
        tuple(options),
        None,
        tuple(loses) + tuple(loss for fix in fixes for loss in fix.loses),
        tuple(guess for fix in fixes for guess in fix.guesses),
    )
