"""What is known of QEMU's own builds: the VMStateDescriptions that are in them, by name (``vmsds.json``).

Read from the tables in the binaries of Debian's 5.2.0, 7.2.22, 10.0.13 and 11.1.3 (qemu-system-x86_64, by
``python -m tests.fleet vmsds``): those that belong to no device type, such as ``cpu`` with its subsections, and those
that ``-dump-vmstate`` prints. What a module or a later
stable release adds is not among them, so a name that is missing is not known, not absent.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from qmigtool.preflight.target.model import Target, TargetSection, TargetVmsd

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BUILDS", "live_sections", "target_from_version", "version_text"]

BUILDS = ((5, 2), (7, 2), (10, 0), (11, 1))
"""The versions whose tables have been read."""

# Live sections that every QEMU registers (migration_object_init), and the first version that does no more.
_LIVE: dict[str, tuple[int, tuple[int, ...] | None]] = {
    "ram": (4, None),
    "dirty-bitmap": (1, None),
    "block": (1, (9, 1)),
}


def version_text(version: tuple[int, ...]) -> str:
    """Write a version with dots."""
    return ".".join(map(str, version))


def target_from_version(version: tuple[int, ...]) -> Target:
    """Return what follows from a version alone.

    Of a version between two builds only what both have alike is known; of one before or after them all, nothing.
    """
    below = [build for build in BUILDS if build <= version[:2]]
    above = [build for build in BUILDS if build >= version[:2]]
    vmsds = _common(below[-1], above[0]) if below and above else None
    evidence = {}
    if vmsds is not None:
        between = dict.fromkeys([version_text(below[-1]), version_text(above[0])])
        evidence["vmsds"] = f"the tables of QEMU {' and '.join(between)}"
    return Target(name=f"QEMU {version_text(version)}", vmsds=vmsds, evidence=evidence)


def live_sections(version: tuple[int, ...] | None) -> dict[tuple[str, int], TargetSection]:
    """Return the live sections that a QEMU of this version surely registers, whatever its machine is."""
    return {
        (name, 0): TargetSection(number)
        for name, (number, until) in _LIVE.items()
        if until is None or (version is not None and version < until)
    }


def _common(first: tuple[int, int], second: tuple[int, int]) -> Mapping[str, TargetVmsd]:
    if first == second:
        return _builds()[first]
    older, newer = _builds()[first], _builds()[second]
    return {name: vmsd for name, vmsd in older.items() if newer.get(name) == vmsd}


@cache
def _builds() -> dict[tuple[int, int], dict[str, TargetVmsd]]:
    text = resources.files("qmigtool.preflight.target").joinpath("vmsds.json").read_text(encoding="utf-8")
    found: dict[tuple[int, int], dict[str, TargetVmsd]] = {build: {} for build in BUILDS}
    # One row, which holds for all builds, or one row for each: [version, minimum version, subsections...].
    for name, rows in json.loads(text)["vmsds"].items():
        for build, row in zip(BUILDS, rows if len(rows) > 1 else rows * len(BUILDS), strict=True):
            if row is not None:
                found[build][name] = TargetVmsd(row[0], row[1], frozenset(row[2:]))
    return found
