"""Targets in TOML: what a user knows of one, and the names of files that contain the rest.

::

    qemu = "7.2"                          # its version: decides the error messages, and which vmsds are known
    files = ["reference.mig", "cpu.json"] # any kind of file that --target accepts, relative to this file's folder

    machine = "pc-q35-7.2"                # its name in `query-machines`; an alias needs qemu, or a reference
    accelerator = "kvm"                   # QEMU's name of it, as of -accel
    irqchip = "kernel"                    # kernel, split, off
    vcpus = 4                             # of -smp: more or less than a reference has
    uuid = "12345678-1234-1234-1234-123456789abc"
    capabilities = ["x-ignore-shared"]    # those that are on
    globals = ["migration.send-configuration=off"]

    layout = "amd-zen4"                   # a built-in layout: offsets of components, and masks
    xcr0 = "x87,sse,avx"                  # or "0xe7": components that XCR0 may have
    xss = "0x1800"
    cpu_flags = ["avx", "pku"]            # all of them, by QEMU's names
    tsc_khz = 2000000                     # of -cpu ...,tsc-frequency=
    host_tsc_khz = 2596138

    [blocks]                              # RAM blocks in addition to those of the files, or instead of them
    "pc.ram" = "16M"
    "/rom@etc/acpi/tables" = { size = "128K", max = "2M" }

    [[section]]
    name = "serial"
    instance = 0
    version = 3
    minimum_version = 2
    subsections = ["serial/tsr"]

``template.toml`` has every key (:data:`KEYS`). An unknown key is refused, as are names of capabilities, globals and
CPU features that no QEMU has (:mod:`.names`): a typing error would silently make a rule pass. Errors name the key; the
caller adds the name of the file.
"""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from qmigtool.errors import UsageError
from qmigtool.preflight.target.masks import properties_of_table, target_from_properties
from qmigtool.preflight.target.model import Target, TargetBlock, TargetSection
from qmigtool.preflight.target.names import CAPABILITIES, CAPABILITIES_CAME, GLOBALS, cpu_flags, near
from qmigtool.preflight.target.reference import known_parts, merge
from qmigtool.preflight.target.vcpus import MAX_VCPUS
from qmigtool.util.values import decimal, parse_number
from qmigtool.x86.traits import NAMES
from qmigtool.xsave import Layout, parse_mask
from qmigtool.xsave import layout as find_layout

__all__ = ["KEYS", "target_from_layout", "target_from_table"]

IRQCHIPS = ("kernel", "split", "off")
MAX_SIZE = 1 << 56
MAX_WORD = (1 << 32) - 1
_VERSION = re.compile(r"\d{1,3}(\.\d{1,3}){1,2}")


def target_from_layout(layout: Layout, how: str) -> Target:
    """Return the target of a layout: the offsets of components, and which may be enabled."""
    return Target(
        name=layout.name,
        layout=layout,
        xcr0=layout.user_mask,
        xss=layout.supervisor_mask,
        evidence=dict.fromkeys(("layout", "xcr0", "xss"), how),
    )


def parse_version(text: str) -> tuple[int, ...] | None:
    """Return the numbers of a version like 7.2 or 7.2.22, or None."""
    return tuple(map(int, text.split("."))) if _VERSION.fullmatch(text) else None


def target_from_table(table: Mapping[str, Any], name: str, read: Callable[[str], Target]) -> Target:
    """Return the target of a parsed TOML file; ``read`` reads the files that it names.

    Its own keys override those files. Raises :class:`~qmigtool.errors.UsageError` that names the key.
    """
    for key in table:
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=3)
            raise UsageError(f"unknown key {key[:40]!r}", expected="one of " + ", ".join(close or sorted(KEYS)))
    parts: list[Target] = [read(_text(file, "files")) for file in _list(table, "files")]
    if "layout" in table:
        parts.append(target_from_layout(find_layout(_text(table["layout"], "layout")), f"{name}, layout"))
    if "partition" in table:
        properties = _table(table["partition"], "partition")
        known = properties_of_table(properties)
        if len(known) < len(properties):
            raise UsageError("partition has unknown keys", expected="names of partition properties")
        parts.append(target_from_properties(known, name))
    own = _own(table, name)
    # Masks of several sources are intersected, but a mask in this file overrides them.
    parts = [_without(part, table) for part in parts]
    return replace(merge(*parts, own), name=own.name)


def _without(target: Target, table: Mapping[str, Any]) -> Target:
    """Remove the masks that the file sets itself."""
    return replace(target, xcr0=None if "xcr0" in table else target.xcr0, xss=None if "xss" in table else target.xss)


def _own(table: Mapping[str, Any], name: str) -> Target:
    """Return the target of the file's own keys."""
    told = {part: reader(table[key], key) for key, (part, reader) in KEYS.items() if part and key in table}
    sections = [_section(one, "section") for one in _list(table, "section")]
    if sections:
        told["sections"] = dict(sections)
    target = Target(**{"name": name, **told})
    return replace(target, evidence=dict.fromkeys(known_parts(target), name))


# -- values ----------------------------------------------------------------------------------------------------------


def _fail(where: str, value: Any, expected: str) -> UsageError:
    text = repr(value)
    return UsageError(f"{where} is {text if len(text) < 60 else text[:57] + '...'}", expected=expected)


def _unknown(where: str, word: str, expected: str) -> UsageError:
    return UsageError(f"{where}: unknown {word[:64]!r}", expected=expected)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 4096:
        raise _fail(where, value, "text")
    return value


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _fail(where, value, "a table")
    return value


def _list(table: Mapping[str, Any], key: str) -> list[Any]:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise _fail(key, value, "a list")
    return value


def _integer(value: Any, where: str, most: int = MAX_WORD, least: int = 0) -> int:
    if isinstance(value, str):
        value = parse_number(value)
    if type(value) is not int or not least <= value <= most:
        raise _fail(where, value, f"a number from {least} to {most:#x}")
    return value


def _positive(value: Any, where: str) -> int:
    return _integer(value, where, least=1)


def _vcpus(value: Any, where: str) -> int:
    return _integer(value, where, MAX_VCPUS, 1)


def _size(value: Any, where: str) -> int:
    size = parse_number(value) if isinstance(value, str) else value
    if type(size) is not int or not 0 < size <= MAX_SIZE:
        raise _fail(where, value, "bytes, or with a unit: 0x80000, 512K, 1M")
    return size


def _version(value: Any, where: str) -> tuple[int, ...]:
    version = parse_version(value) if isinstance(value, str) else None
    if version is None:
        raise _fail(where, value, 'a version as text, like "7.2"')
    return version


def _choice(*names: str) -> Callable[[Any, str], str]:
    def read(value: Any, where: str) -> str:
        if value not in names:
            raise _fail(where, value, "one of " + ", ".join(names))
        return str(value)

    return read


def _uuid(value: Any, where: str) -> str:
    if value == "":
        return ""  # a target without -uuid
    try:
        return str(uuid.UUID(_text(value, where)))
    except ValueError:
        raise _fail(where, value, "a UUID") from None


def _mask(value: Any, where: str) -> int:
    if isinstance(value, str):
        return parse_mask(value)
    return _integer(value, where, (1 << 63) - 1)


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _fail(where, value, "a list")
    return tuple(_text(one, where) for one in value)


def _flags(value: Any, where: str) -> frozenset[str]:
    flags = frozenset(one.lower().replace("_", "-") for one in _texts(value, where))
    for one in sorted(flags - cpu_flags()):
        else_ = "a feature name of QEMU 7.2 to 11.1; for a newer QEMU give query-cpu-model-expansion"
        raise _unknown(where, one, near(one, cpu_flags(), else_))
    return flags


def _capabilities(value: Any, where: str) -> dict[str, bool]:
    found = _switches(value, where) if isinstance(value, dict) else dict.fromkeys(_texts(value, where), True)
    known = sorted({*CAPABILITIES, *CAPABILITIES_CAME})
    for one in found:
        if one not in known:
            raise _unknown(where, one, near(one, known, ", ".join(known)))
    return found


def _switches(value: Any, where: str) -> dict[str, bool]:
    for name, on in _table(value, where).items():
        if type(on) is not bool:
            raise _fail(f"{where}: {name}", on, "true or false")
    return dict(value)


_GLOBAL = re.compile(r"(?:-global\s+)?migration\.([\w-]+)=(on|off|true|false|yes|no)")


def _globals(value: Any, where: str) -> dict[str, bool]:
    found = {}
    for one in _texts(value, where):
        match = _GLOBAL.fullmatch(one)
        if match is None:
            raise _fail(where, one, "migration.PROPERTY=on or off; for other globals give a reference stream")
        if match[1] not in GLOBALS:
            raise _unknown(where, match[1], near(match[1], GLOBALS, "a boolean property of -global migration.X"))
        found[match[1]] = match[2] in ("on", "true", "yes")
    return found


def _page_bits(value: Any, where: str) -> int:
    size = _size(value, where)
    if size & (size - 1):
        raise _fail(where, value, "a power of two")
    return size.bit_length() - 1


def _blocks(value: Any, where: str) -> dict[str, TargetBlock]:
    found = {}
    for name, size in _table(value, where).items():
        here = f"{where}: {name}"
        if isinstance(size, dict):
            if size.keys() - {"size", "max"} or "size" not in size:
                raise _fail(here, size, '{ size = "128K", max = "2M" }')
            most = _size(size["max"], here) if "max" in size else None
            found[name] = TargetBlock(_size(size["size"], here), most)
        else:
            found[name] = TargetBlock(_size(size, here))
    return found


def _labels(value: Any, where: str) -> tuple[tuple[str, int], ...]:
    return tuple(_label(one) for one in _texts(value, where))


def _label(text: str) -> tuple[str, int]:
    idstr, at, instance = text.rpartition("@")
    number = decimal(instance, 10)
    return (idstr, number) if at and number is not None else (text, 0)


_SECTION_KEYS = ("name", "instance", "version", "minimum_version", "vmsd", "subsections")


def _section(value: Any, where: str) -> tuple[tuple[str, int], TargetSection]:
    table = _table(value, where)
    for key in table:
        if key not in _SECTION_KEYS:
            raise UsageError(f"{where}: unknown key {key[:40]!r}", expected="one of " + ", ".join(_SECTION_KEYS))
    for key in ("name", "version"):
        if key not in table:
            raise UsageError(f"{where} has no {key}", expected='name = "serial" and version = 3')
    name = _text(table["name"], f"{where}: name")
    minimum, subsections = table.get("minimum_version"), table.get("subsections")
    section = TargetSection(
        version=_integer(table["version"], f"{where} {name}: version"),
        minimum_version=None if minimum is None else _integer(minimum, f"{where} {name}: minimum_version"),
        vmsd=_text(table["vmsd"], f"{where} {name}: vmsd") if "vmsd" in table else name.rsplit("/", 1)[-1],
        subsections=None if subsections is None else frozenset(_texts(subsections, f"{where} {name}: subsections")),
    )
    return (name, _integer(table.get("instance", 0), f"{where} {name}: instance")), section


KEYS: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    "name": ("name", _text),
    "qemu": ("qemu", _version),
    "machine": ("machine", _text),
    "accelerator": ("accelerator", _choice(*NAMES)),
    "irqchip": ("irqchip", _choice(*IRQCHIPS)),
    "vcpus": ("vcpus", _vcpus),
    "maxcpus": ("maxcpus", _vcpus),
    "uuid": ("uuid", _uuid),
    "page_size": ("page_bits", _page_bits),
    "page_size_host": ("page_size_host", _size),
    "capabilities": ("capabilities", _capabilities),
    "globals": ("properties", _globals),
    "xcr0": ("xcr0", _mask),
    "xss": ("xss", _mask),
    "xsave_max": ("xsave_max", _size),
    "cpu_flags": ("cpu_flags", _flags),
    "tsc_khz": ("tsc_khz", _positive),
    "host_tsc_khz": ("host_tsc_khz", _positive),
    "unmigratable": ("unmigratable", _texts),
    "blocks": ("blocks", _blocks),
    "absent": ("absent", _labels),
    # Read elsewhere, because they set more than one part.
    "files": ("", _text),
    "layout": ("", _text),
    "partition": ("", _table),
    "section": ("", _table),
}
"""Key of a TOML file -> the part of a target that it sets, and the function that reads its value."""
