"""Command-line option of an edit, declared with its method by :func:`~qmigtool.rewrite.rewriter.edit`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from qmigtool.errors import UsageError
from qmigtool.rewrite.values import brief, parse
from qmigtool.util.values import parse_number
from qmigtool.xsave import Layout

__all__ = [
    *("EditOption", "Heading", "add_field", "add_section", "add_subsection", "by_position", "kinds_of"),
    *("rename_section", "resize_block", "set_field"),
]

Words = Callable[..., dict[str, Any]]
"""Converts the arguments of an edit's option to the parameters of the edit."""


class Heading(StrEnum):
    """Headings of the list of edits, in that order."""

    FIELDS = "Edits of fields and subsections"
    SECTIONS = "Edits of sections"
    FRAMING = "Edits of machine type and framing"
    MEMORY = "Edits of memory"
    EXTENDED = "Edits of extended state"
    FILE = "Edits from a file"


@dataclass(frozen=True, slots=True)
class EditOption:
    """An option that is an edit: its arguments on the command line, and the parameters of ``op`` that they mean."""

    flag: str
    op: str
    heading: Heading
    metavar: tuple[str, ...]
    help: str
    parameters: Words

    @property
    def dest(self) -> str:
        """The name of its value in the parser."""
        return "edit_" + self.flag.removeprefix("--").replace("-", "_")


def by_position(method: Callable[..., Any], metavar: tuple[str, ...]) -> Words:
    """Return a function that assigns the arguments to the method's parameters in order."""
    names = [name for name in inspect.signature(method).parameters if name != "self"][: len(metavar)]
    return lambda *words: dict(zip(names, words, strict=True))


# Annotation of a method's parameter -> type of its values.
_KINDS: dict[str, type] = {
    "Any": object,
    "None": type(None),
    "Absent": str,  # its words are checked by the edit
    "str": str,
    "int": int,
    "bool": bool,
    "bytes": bytes,
    "Layout": Layout,
    "Mapping[str, Any]": Mapping,
}


def kinds_of(parameter: inspect.Parameter) -> tuple[type, ...]:
    """Return the types of an edit's parameter, by its annotation; raises :class:`TypeError` for an unknown one."""
    names = str(parameter.annotation).split(" | ")
    unknown = [name for name in names if name not in _KINDS]
    if unknown:
        raise TypeError(
            f"the edit's parameter {parameter.name} has the annotation {unknown[0]}, which has no type here"
        )
    return tuple(_KINDS[name] for name in names)


# -- arguments that are several parameters, or need parsing ----------------------------------------------------------


def set_field(text: str) -> dict[str, Any]:
    """Read ``PATH=VALUE``."""
    path, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"{text!r} has no '='", expected="PATH=VALUE")
    return {"path": path, "to": parse(value)}


_FIELD = re.compile(r"(?P<type>[^,=]*)(?:,after=(?P<after>[^=]*))?(?:=(?P<value>.*))?", re.DOTALL)


def add_field(path: str, text: str) -> dict[str, Any]:
    """Read ``PATH`` and ``TYPE[,after=FIELD][=VALUE]``."""
    match = _FIELD.fullmatch(text)
    if match is None:
        raise UsageError(f"--add-field: {brief(text)}", expected="TYPE[,after=FIELD][=VALUE]")
    value = match["value"]
    parsed = None if value is None else parse(value)
    return {"path": path, "type": match["type"] or None, "after": match["after"], "value": parsed}


def add_subsection(path: str, text: str) -> dict[str, Any]:
    """Read ``PARENT`` and ``NAME[=HEX]``."""
    name, _, data = text.partition("=")
    return {"path": path, "name": name, "data": data or None}


def _section(text: str) -> dict[str, Any]:
    name, at, instance = text.rpartition("@")
    if not at or not instance.isdecimal():
        return {"name": text, "instance_id": 0}
    if len(instance) > 10:
        raise UsageError(f"the instance {instance[:20]}... does not fit", expected="0 to 0xffffffff")
    return {"name": name, "instance_id": int(instance)}


def add_section(name: str, version: str) -> dict[str, Any]:
    """Read ``NAME[@N]`` and ``VERSION[=HEX]``."""
    version, _, data = version.partition("=")
    return {**_section(name), "version": version, "data": data or None}


def rename_section(path: str, to: str) -> dict[str, Any]:
    """Read ``NAME[@N]`` twice."""
    section = _section(to)
    instance = section["instance_id"] if "@" in to else None
    return {"path": path, "to": section["name"], "instance_id": instance}


def resize_block(name: str, size: str) -> dict[str, Any]:
    """Read ``NAME`` and ``BYTES``, which may have a unit."""
    to = parse_number(size)
    if to is None or to < 0:
        raise UsageError(
            f"--resize-block: {brief(size)} is not a size", expected="bytes, or with a unit: 0x80000, 512K, 1M"
        )
    return {"name": name, "to": to}
