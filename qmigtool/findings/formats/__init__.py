"""The formats in which other programs read findings: one module for each, found by its name.

===========  =================================================================================
junit        JUnit XML, as Jenkins and GitLab read it
sarif        SARIF 2.1.0, as GitHub code scanning reads it
github       workflow commands: annotations of a GitHub Actions job
codequality  Code Quality JSON, as GitLab's merge requests show it
===========  =================================================================================

A module has a function ``render(reports, threshold, version)`` that returns the document: ``threshold`` is the least
severity that makes a check fail, ``version`` that of qmigtool. Another distribution names such a function as an entry
point in ``qmigtool.formats``.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import TypeAlias

from qmigtool.findings.model import Severity
from qmigtool.findings.report import Report
from qmigtool.util.plugins import FORMATS, conflict, plugins

__all__ = ["Render", "format_names", "own_formats", "render"]

Render: TypeAlias = Callable[[Sequence[Report], Severity, str], str]
RESERVED = ("text", "json")


@cache
def own_formats() -> tuple[str, ...]:
    """Return the names of the formats that qmigtool has itself, one for each module."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__))


def format_names() -> tuple[str, ...]:
    """Return the names of all formats; raises :class:`~qmigtool.errors.UsageError` for a duplicate name."""
    taken = [*own_formats(), *RESERVED]
    for point, _ in plugins(FORMATS):
        if point.name in taken:
            raise conflict(point, "has the name of another format")
        taken.append(point.name)
    return tuple(name for name in taken if name not in RESERVED)


def render(name: str, reports: Sequence[Report], threshold: Severity, version: str) -> str:
    """Return the findings in a format of :func:`format_names`.

    Raises :class:`~qmigtool.errors.UsageError` if another distribution's function fails.
    """
    if name in own_formats():
        made: Render = import_module(f"{__name__}.{name}").render
        return made(reports, threshold, version)
    point, other = next(one for one in plugins(FORMATS) if one[0].name == name)
    try:
        text = other(reports, threshold, version)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # it may raise anything, and even exit
        raise conflict(point, f"fails: {type(error).__name__}: {error}") from error
    if not isinstance(text, str):
        raise conflict(point, f"returns {type(text).__name__}, not text")
    return text
