"""Edits by name: from a TOML file, or from a command line.

::

    # plan.toml
    [[edit]]
    op = "set"
    path = "cpu@0/env.mxcsr"
    to = "0x1f80"
    why = "the guest's runtime expects it"     # for people

    [[edit]]
    op = "drop-component"
    mask = "amx,pkru"

``op`` is the name of an edit, the other keys are the parameters of the method of that name
(:class:`~qmigtool.rewrite.rewriter.Rewriter`).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qmigtool.errors import UsageError
from qmigtool.rewrite.editoption import kinds_of
from qmigtool.rewrite.rewriter import EDITS
from qmigtool.rewrite.values import brief
from qmigtool.util.toml import parse_toml

if TYPE_CHECKING:
    from qmigtool.rewrite.rewriter import Rewriter

__all__ = ["Edit", "apply", "load_edits"]

MAX_TEXT = 64 << 20  # bytes: an edit may contain the body of a section
_WORDS = {str: "text", int: "a number", bool: "true or false", Mapping: "a table"}


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit: its name and its parameters."""

    op: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


def load_edits(text: str, name: str = "the edits") -> list[Edit]:
    """Read the edits of a TOML file; raises :class:`~qmigtool.errors.UsageError` for invalid ones."""
    document = parse_toml(text, name, limit=MAX_TEXT)
    tables = document.pop("edit", None)
    if not isinstance(tables, list) or document:
        more = f"; it also has {', '.join(document)}" if document else ""
        raise UsageError(f"{name} has no list of edits{more}", expected="only [[edit]] tables")
    edits = []
    for number, table in enumerate(tables, start=1):
        op = table.pop("op", None) if isinstance(table, dict) else None
        if not isinstance(op, str):
            raise UsageError(f"edit {number} of {name} has no op", expected="one of " + ", ".join(EDITS))
        why = table.pop("why", "")
        if not isinstance(why, str):
            raise UsageError(f"why of edit {number} of {name} is not text")
        edits.append(Edit(op, table, why))
    return edits


def apply(rewriter: Rewriter, edit: Edit) -> None:
    """Make an edit; raises :class:`~qmigtool.errors.UsageError` for an unknown name or parameter.

    Its ``why`` becomes the reason of the changes that have none.
    """
    name = EDITS.get(edit.op.replace("_", "-"))
    if name is None:
        raise UsageError(f"no edit {edit.op!r}", expected="one of " + ", ".join(EDITS))
    method = getattr(rewriter, name)
    parameters = {key.replace("-", "_"): value for key, value in edit.parameters.items()}
    several = [p.name for p in inspect.signature(method).parameters.values() if p.kind is p.VAR_POSITIONAL]
    listed = parameters.pop(several[0], ()) if several else ()
    if isinstance(listed, str):
        listed = (listed,)
    if not isinstance(listed, (list, tuple)):
        raise UsageError(f"{edit.op}: {several[0]} is {brief(listed)}", expected="a list of names")
    try:
        inspect.signature(method).bind(*listed, **parameters)
    except TypeError as error:
        known = ", ".join(inspect.signature(method).parameters) or "none"
        raise UsageError(f"{edit.op}: {error}", expected=f"the parameters {known}") from None
    for parameter in inspect.signature(method).parameters.values():
        values = listed if parameter.name in several else [parameters.get(parameter.name, parameter.default)]
        kinds = kinds_of(parameter)
        for value in values:
            if value is not parameter.default and not isinstance(value, kinds):
                wanted = " or ".join(_WORDS[kind] for kind in kinds if kind in _WORDS)
                raise UsageError(f"{edit.op}: {parameter.name} is {brief(value)}", expected=wanted)
    with rewriter.draft.edit(edit.op, edit.why):
        method(*listed, **parameters)
