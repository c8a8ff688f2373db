"""Targets that follow from a version of QEMU, by the tables of its builds (:mod:`qmigtool.devices.schema.vmsds`)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from qmigtool.devices.schema.vmsds import BUILDS, vmsds_of_builds
from qmigtool.preflight.target.machines import DEVELOPMENT, is_x86
from qmigtool.preflight.target.model import Target, TargetSection, TargetVmsd
from qmigtool.preflight.target.versions import version_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qmigtool.preflight.target.versions import Possible

__all__ = [
    "live_sections",
    "target_from_version",
    "unknown_version",
    "vmsds_of_versions",
]

# Live sections that every QEMU registers (migration_object_init), and the first version that no longer does.
_LIVE: dict[str, tuple[int, tuple[int, ...] | None]] = {
    "ram": (4, None),
    "dirty-bitmap": (1, None),
    "block": (1, (9, 1)),
}


def target_from_version(version: tuple[int, ...]) -> Target:
    """Return the target that follows from a version alone.

    For a version between two builds, only what both have in common is known; before or after all builds, nothing.
    """
    below = [build for build in BUILDS if build <= version[:2]]
    above = [build for build in BUILDS if build >= version[:2]]
    vmsds = _common((below[-1], above[0])) if below and above else None
    evidence = {}
    if vmsds is not None:
        between = dict.fromkeys([version_text(below[-1]), version_text(above[0])])
        evidence["vmsds"] = f"the tables of QEMU {' and '.join(between)}"
    return Target(name=f"QEMU {version_text(version)}", vmsds=vmsds, evidence=evidence)


def unknown_version(versions: Possible) -> str | None:
    """Return a message if all of these versions are newer or older than the known builds, else None."""
    known = f"(known: {version_text(BUILDS[0])} to {version_text(BUILDS[-1])})"
    # 11.1.50 is a development version of the release after 11.1
    if versions.first >= (*BUILDS[-1], DEVELOPMENT) or (versions.below is not None and versions.below <= BUILDS[0]):
        return f"{versions} is not known {known}"
    return None


def live_sections(version: tuple[int, ...] | None) -> dict[tuple[str, int], TargetSection]:
    """Return the live sections that a QEMU of this version registers for every machine type."""
    return {
        (name, 0): TargetSection(number)
        for name, (number, until) in _LIVE.items()
        if until is None or (version is not None and version < until)
    }


def vmsds_of_versions(versions: Possible, target: Target) -> Target | None:
    """Return what the tables of all versions in a range have in common; None if the target is not an x86 machine.

    The last table is used for later versions, the first for earlier ones.
    """
    if not is_x86(target):
        return None
    first = max((build for build in BUILDS if build <= versions.first), default=BUILDS[0])
    last = BUILDS[-1]
    if versions.below is not None:
        last = min((build for build in BUILDS if build >= versions.below), default=last)
    builds = [build for build in BUILDS if first <= build <= last]
    names = " and ".join(map(version_text, builds))
    how = f"what the tables of QEMU {names} have in common" if len(builds) > 1 else f"the tables of QEMU {names}"
    return Target(vmsds=_common(builds), evidence={"vmsds": how})


def _common(builds: Sequence[tuple[int, int]]) -> Mapping[str, TargetVmsd]:
    """Join the tables of builds: the vmsds that all of them have, with the properties in which they agree."""
    tables = [_builds()[build] for build in dict.fromkeys(builds)]
    if len(tables) == 1:
        return tables[0]
    names = set(tables[0]).intersection(*tables[1:])
    return {name: _joined([table[name] for table in tables]) for name in sorted(names)}


def _joined(rows: list[TargetVmsd]) -> TargetVmsd:
    first, subsections = rows[0], [row.subsections for row in rows]
    sure = first.subsections.intersection(*subsections)
    return TargetVmsd(
        first.version if all(row.version == first.version for row in rows) else None,
        first.minimum_version if all(row.minimum_version == first.minimum_version for row in rows) else None,
        sure,
        first.field_versions if all(row.field_versions == first.field_versions for row in rows) else None,
        sure.union(*subsections) - sure,
    )


@cache
def _builds() -> dict[tuple[int, int], dict[str, TargetVmsd]]:
    return {
        build: {name: TargetVmsd(one.version, one.minimum, one.subsections, one.since) for name, one in table.items()}
        for build, table in vmsds_of_builds().items()
    }
