"""Additions by other distributions: objects that their metadata names as entry points.

========================  ==============================================================================
group                     its entry points
========================  ==============================================================================
``qmigtool.rules``        a :class:`~qmigtool.check.rule.CheckRule`, or several
``qmigtool.formats``      a function as in :mod:`qmigtool.findings.formats`; its name is the format's
``qmigtool.containers``   a Packing or a Wrapping of :mod:`qmigtool.stream.containers`
========================  ==============================================================================

Entry points are looked up on first use.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from qmigtool.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["CONTAINERS", "FORMATS", "RULES", "conflict", "plugins"]

RULES, FORMATS, CONTAINERS = "qmigtool.rules", "qmigtool.formats", "qmigtool.containers"


@cache
def plugins(group: str) -> tuple[tuple[EntryPoint, Any], ...]:
    """Return (entry point, its object) of a group, by name.

    Raises :class:`~qmigtool.errors.UsageError` with the distribution's name for one that cannot be loaded: it is never
    skipped silently.
    """
    from importlib.metadata import entry_points  # 10 ms

    return tuple((point, _loaded(point)) for point in sorted(entry_points(group=group), key=lambda point: point.name))


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the other module may raise anything, and even exit
        raise conflict(point, f"cannot be loaded: {type(error).__name__}: {error}") from error


def conflict(point: EntryPoint, what: str) -> UsageError:
    """Return the error for an unusable entry point, with the name of its distribution."""
    owner = "" if point.dist is None else f" of {point.dist.name}"
    return UsageError(
        f"the entry point {point.name!r}{owner} in {point.group} {what}",
        expected="a distribution that fits this qmigtool, or none: pip uninstall",
    )
