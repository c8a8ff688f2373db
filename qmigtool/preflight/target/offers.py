"""Machine types, devices and CPU models of QEMU builds, and their properties (``offers.json.xz``).

Queried from Debian's 5.2.0, 7.2.22, 10.0.13 and 11.1.3 by QMP (query-machines, device-list-properties,
qom-list-properties, query-cpu-definitions, ``device_add help``). A vendor's build may have machine types and devices
of its own, or lack some. For a version between two builds, only what both have in common is known; before or after all
builds, nothing: every function here returns None for what is unknown.

An architecture is QEMU's target name, as in ``qemu-system-*`` (``x86_64``, ``aarch64``).
"""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "BUILDS",
    "Machine",
    "cpu_model",
    "device",
    "device_option",
    "device_properties",
    "device_property",
    "machine",
    "machine_property",
    "machines",
    "offers_machine",
]

BUILDS = ((5, 2), (7, 2), (10, 0), (11, 1))
"""The versions that were queried."""
Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type: ``alias`` is its second name (``pc`` of the newest pc-i440fx), ``properties`` those of ``-M``."""

    name: str
    alias: str | None
    deprecated: bool
    properties: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Build:
    """One version for one architecture. ``devices`` maps to None if the properties are not known."""

    machines: dict[str, Machine]
    devices: dict[str, frozenset[str] | None]
    creatable: frozenset[str]
    aliases: dict[str, str]
    cpus: frozenset[str]

    def machine(self, name: str) -> Machine | None:
        """Find a machine type by its name or alias."""
        return self.machines.get(name) or next((one for one in self.machines.values() if one.alias == name), None)

    def properties(self, device: str) -> frozenset[str] | None:
        """Return the properties of a device, an empty set for one that does not exist, None if they are not known."""
        return self.devices.get(self.aliases.get(device, device), frozenset())


def machines(version: Version | None, architecture: str = "x86_64") -> tuple[Machine, ...] | None:
    """Return the machine types of one of :data:`BUILDS`; None for any other version, since some of them differ."""
    build = _builds().get((version or ())[:2], {}).get(architecture)
    return None if build is None or version is None or _development(version) else tuple(build.machines.values())


def machine(version: Version | None, name: str, architecture: str = "x86_64") -> Machine | None:
    """Find a machine type of one of :data:`BUILDS` by its name or alias; None if it does not exist or is not known."""
    found = machines(version, architecture) or ()
    return next((one for one in found if one.name == name), None) or next((o for o in found if o.alias == name), None)


def offers_machine(version: Version | None, name: str, architecture: str = "x86_64") -> bool | None:
    """Return whether ``-M NAME`` starts; ``name`` may be an alias."""
    return _alike(version, architecture, lambda build: build.machine(name) is not None)


def machine_property(version: Version | None, name: str, prop: str, architecture: str = "x86_64") -> bool | None:
    """Return whether ``-M NAME,PROP=...`` is accepted; None also if the machine type does not exist."""

    def has(build: _Build) -> bool | None:
        found = build.machine(name)
        return None if found is None else prop in found.properties

    return _alike(version, architecture, has)


def device(version: Version | None, name: str, architecture: str = "x86_64") -> bool | None:
    """Return whether a device exists; ``name`` is its type, such as ``e1000`` or ``ICH9-LPC``, or an alias."""
    return _alike(version, architecture, lambda build: build.aliases.get(name, name) in build.devices)


def device_option(version: Version | None, name: str, architecture: str = "x86_64") -> bool | None:
    """Return whether ``-device NAME`` is accepted: some devices exist only as part of a machine."""
    return _alike(version, architecture, lambda build: build.aliases.get(name, name) in build.creatable)


def device_property(version: Version | None, name: str, prop: str, architecture: str = "x86_64") -> bool | None:
    """Return whether ``-device NAME,PROP=...`` or ``-global NAME.PROP=...`` is accepted."""

    def has(build: _Build) -> bool | None:
        found = build.properties(name)
        return None if found is None else prop in found

    return _alike(version, architecture, has)


def device_properties(version: Version | None, name: str, architecture: str = "x86_64") -> frozenset[str] | None:
    """Return the properties of a device of one of :data:`BUILDS`; None if it does not exist or they are not known."""
    build = _builds().get((version or ())[:2], {}).get(architecture)
    known = build is not None and version is not None and not _development(version)
    return build.properties(name) or None if known and build is not None else None


def cpu_model(version: Version | None, name: str, architecture: str = "x86_64") -> bool | None:
    """Return whether ``-cpu NAME`` is accepted; None also if the models of a build are not known (as those of ppc)."""
    return _alike(version, architecture, lambda build: name in build.cpus if build.cpus else None)


def _development(version: Version) -> bool:
    """Whether a version is a development version of the next release: 10.0.50 has what 10.1 will have."""
    return len(version) > 2 and version[2] >= 50


def _alike(version: Version | None, architecture: str, ask: Callable[[_Build], bool | None]) -> bool | None:
    """Return the answer of the builds around a version if they agree, else None."""
    if version is None:
        return None
    short = version[:2]
    inside = _development(version) or short not in BUILDS
    below = [one for one in BUILDS if one <= short]
    above = [one for one in BUILDS if (one > short if inside else one >= short)]
    if not below or not above:
        return None
    builds = [_builds()[one].get(architecture) for one in {below[-1], above[0]}]
    answers = {None if build is None else ask(build) for build in builds}
    return answers.pop() if len(answers) == 1 else None


@cache
def _document() -> dict[str, Any]:
    packed = resources.files("qmigtool.preflight.target").joinpath("offers.json.xz").read_bytes()
    document: dict[str, Any] = json.loads(lzma.decompress(packed))
    return document


@lru_cache(maxsize=8192)
def _set(number: int) -> frozenset[str]:
    names, sets = _document()["names"], _document()["sets"]
    return frozenset(names[one] for one in sets[number])


@cache
def _builds() -> dict[tuple[int, ...], dict[str, _Build]]:
    return {
        tuple(map(int, version.split("."))): {name: _build(row) for name, row in rows.items()}
        for version, rows in _document()["versions"].items()
    }


def _build(row: dict[str, Any]) -> _Build:
    return _Build(
        machines={name: Machine(name, alias or None, bool(old), _set(n)) for name, alias, old, n in row["machines"]},
        devices={name: None if number < 0 else _set(number) for name, number in row["devices"].items()},
        creatable=frozenset(row["creatable"]),
        aliases=row["aliases"],
        cpus=frozenset(row["cpus"]),
    )
