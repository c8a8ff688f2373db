"""The VMStateDescriptions of QEMU builds, by name (``vmsds.json``).

Read from the tables in the binaries of Debian's 5.2.0, 7.2.22, 10.0.13 and 11.1.3 (qemu-system-x86_64, by
``python -m tests.fleet vmsds``): those that belong to no device type, such as ``cpu`` with its subsections, and those
that ``-dump-vmstate`` prints. They do not contain what a module or a later stable release adds, so a name that is
missing is unknown, not absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from qmigtool.parsers.vmdesc import Description, FieldDescription

__all__ = ["BUILDS", "BuildVmsd", "known_subsections", "subsection_shape", "vmsds_of_builds"]

BUILDS = ((5, 2), (7, 2), (10, 0), (11, 1))
"""The versions whose tables have been read."""


class BuildVmsd(NamedTuple):
    """A VMStateDescription in the tables of one build.

    ``version`` and ``minimum`` are None where two devices of it differ. ``since``: the first version of the body that
    has a field, by the field's name in a vmdesc; None if that is not known.
    """

    version: int | None
    minimum: int | None
    subsections: frozenset[str]
    since: Mapping[str, int] | None


def known_subsections(vmsd: str) -> frozenset[str]:
    """Return the names of all subsections that any of the builds has for a VMStateDescription."""
    return frozenset().union(*(table[vmsd].subsections for table in vmsds_of_builds().values() if vmsd in table))


@cache
def subsection_shape(name: str) -> Description | None:
    """Return the shape of a subsection that has the same length in every build that has it, if known."""
    fields = _document()["shapes"].get(name)
    if fields is None:
        return None
    made = tuple(FieldDescription(one, type_, size, count, None, ()) for one, type_, size, count in fields)
    return Description.of(name, 1, made, ())


@cache
def vmsds_of_builds() -> dict[tuple[int, int], dict[str, BuildVmsd]]:
    """Return the tables of each of :data:`BUILDS`, by name."""
    found: dict[tuple[int, int], dict[str, BuildVmsd]] = {build: {} for build in BUILDS}
    # One row for all builds, or one row for each: [version, minimum version, subsections...].
    document = _document()
    for name, rows in document["vmsds"].items():
        since = _columns(document["fields"].get(name, [None]))
        for build, row, fields in zip(BUILDS, _columns(rows), since, strict=True):
            if row is not None:
                found[build][name] = BuildVmsd(row[0], row[1], frozenset(row[2:]), fields)
    return found


@cache
def _document() -> dict[str, Any]:
    text = resources.files("qmigtool.devices.schema").joinpath("vmsds.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def _columns(rows: list[Any]) -> list[Any]:
    return rows if len(rows) > 1 else rows * len(BUILDS)
