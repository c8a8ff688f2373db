"""Query the machine types, devices, CPU models and properties of real QEMUs: ``offers.json.xz`` of preflight.

    python -m tests.fleet offers OUT.json.xz 5.2=FOLDER 7.2=/usr/bin 10.0=FOLDER 11.1=FOLDER

A folder has the ``qemu-system-*`` programs of a version. They are started with ``-M none`` and queried by QMP; if the
introspection of a device ends QEMU (as in 7.2 and some of 10.0), its properties are unknown.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.qemu.process import Gone, QemuProcess, Refused

ARCHITECTURES = (
    *("x86_64", "i386", "aarch64", "arm", "riscv64", "s390x", "ppc64", "ppc"),
    *("sparc", "sparc64", "m68k", "mips64el", "loongarch64"),
)
_HELP = re.compile(r'^name "(?P<name>[^"]+)"(?P<rest>.*)$', re.MULTILINE)
_ALIAS = re.compile(r', alias "([^"]+)"')


class _Pool:
    """Names and sets of names, each stored once."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.sets: dict[tuple[int, ...], int] = {}

    def add(self, names: list[str]) -> int:
        """Return the number of a set of names."""
        numbers = tuple(self.names.setdefault(name, len(self.names)) for name in sorted(set(names)))
        return self.sets.setdefault(numbers, len(self.sets))


class _Asker:
    """Queries one binary, and restarts it if a query has ended it."""

    def __init__(self, binary: Path) -> None:
        self._command = [str(binary), "-M", "none", "-display", "none"]
        self._qemu = QemuProcess(self._command).__enter__()

    def close(self) -> None:
        self._qemu.__exit__()

    def ask(self, command: str, **arguments: object) -> Any:
        """Return the reply; None for an error, or if QEMU has ended."""
        try:
            return self._qemu.execute(command, **arguments)
        except Refused:
            return None
        except Gone:
            self._qemu.__exit__()
            self._qemu = QemuProcess(self._command).__enter__()
            return None

    def properties(self, command: str, typename: str) -> list[str] | None:
        found = self.ask(command, typename=typename)
        return None if found is None else [one["name"] for one in found if one["name"] != "type"]


def _machines(asker: _Asker, pool: _Pool) -> Iterator[list[Any]]:
    """Yield [name, alias or 0, deprecated, properties] of each machine type."""
    for one in sorted(asker.ask("query-machines"), key=lambda machine: str(machine["name"])):
        properties = asker.properties("qom-list-properties", f"{one['name']}-machine") or []
        yield [one["name"], one.get("alias", 0), int(one.get("deprecated", False)), pool.add(properties)]


def _devices(asker: _Asker, pool: _Pool) -> dict[str, int]:
    """Return the devices with their properties; -1 if they are unknown."""
    names = sorted(one["name"] for one in asker.ask("qom-list-types", implements="device", abstract=False))
    found = {name: asker.properties("device-list-properties", name) for name in names}
    return {name: -1 if properties is None else pool.add(properties) for name, properties in found.items()}


def _architecture(binary: Path, pool: _Pool) -> dict[str, Any]:
    asker = _Asker(binary)
    try:
        text = asker.ask("human-monitor-command", command_line="device_add help") or ""
        creatable = {match["name"]: _ALIAS.search(match["rest"]) for match in _HELP.finditer(text)}
        cpus = asker.ask("query-cpu-definitions") or []
        accelerators = asker.ask("qom-list-types", implements="accel", abstract=False) or []
        return {
            "machines": list(_machines(asker, pool)),
            "devices": _devices(asker, pool),
            "creatable": sorted(creatable),
            "aliases": {alias[1]: name for name, alias in sorted(creatable.items()) if alias is not None},
            "cpus": sorted({one["name"] for one in cpus}),
            "accelerators": sorted({one["name"].removesuffix("-accel") for one in accelerators}),
        }
    finally:
        asker.close()


def main(target: str, *folders: str) -> None:
    """Query all binaries, and write the results."""
    pool = _Pool()
    versions: dict[str, Any] = {}
    for folder in folders:
        version, _, path = folder.partition("=")
        found = versions[version] = {}
        for architecture in ARCHITECTURES:
            binary = Path(path, f"qemu-system-{architecture}")
            if not binary.exists():
                continue
            try:
                found[architecture] = _architecture(binary, pool)
            except Gone as why:  # such as mips64el of 5.2, which has no machine "none"
                print(version, architecture, *why.lines)
            else:
                print(version, architecture, len(found[architecture]["devices"]), flush=True)
    document = {"names": list(pool.names), "sets": [list(one) for one in pool.sets], "versions": versions}
    text = json.dumps(document, separators=(",", ":")) + "\n"
    Path(target).write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
