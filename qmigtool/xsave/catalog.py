"""The built-in layouts: 32 real CPUs and guests, two of QEMU itself (``layouts.json``), and QEMU's CPU models.

Two entries are no CPU. ``qemu`` has every component of QEMU's x86_ext_save_areas, at the offsets that its X86XSaveArea
had before accelerators copied the host's: Intel's offsets, with APX_F at 960. ``tcg`` has only what a TCG guest can
enumerate, XCR0 0x21f: the X86XSaveArea of tcg-cpu.h has room for AVX-512, but TCG does not offer it.

A component that ``components.py`` defines and ``qemu`` has neither a row for nor among those that QEMU does not keep
(``without``) is after all others there, at a multiple of 64 bytes: no QEMU has given it another place.

A CPU model of QEMU (``models.json``, as QEMU 11.1 expands each) defines which components a guest has; their offsets
come from the host. The layout here is the one on a CPU of the model's own vendor: the offsets of a family.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from typing import Any

from qmigtool.errors import UnsupportedError, UsageError
from qmigtool.xsave.components import COMPONENTS, LEGACY_MASK, bits, component
from qmigtool.xsave.layout import CpuidRow, Layout

FAMILIES = {"Intel": "qemu", "AMD": "amd-zen5"}
"""The families of CPUs by their standard offsets, and the layout that has every component of each.

Intel's is also Zhaoxin's; AMD's is that of Zen 3 and later. Within a family all known CPUs are equal (347 dumps of
InstLatx64).
"""

VENDORS = {"Intel": "GenuineIntel", "AMD": "AuthenticAMD"}
"""The vendor string of CPUID leaf 0 for each family, where a text names only the family."""

LOW = (1 << 32) - 1

NO_XSAVE = "a layout of a CPU without XSAVE"
"""The feature that an UnsupportedError names for such a CPU."""


def _data(name: str) -> Any:
    return json.loads(resources.files("qmigtool.xsave").joinpath(name).read_text(encoding="utf-8"))


@cache
def _entries() -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in _data("layouts.json")}


@cache
def _models() -> dict[str, tuple[str, list[str] | None]]:
    """Lower-case name -> the name in QEMU's spelling, and family, XCR0, IA32_XSS, features (None without XSAVE)."""
    return {name.lower(): (name, row) for name, row in _data("models.json")["models"].items()}


def layout_names() -> tuple[str, ...]:
    """Return the names of the built-in layouts except QEMU's models, in the catalog's order (by vendor and age)."""
    return tuple(_entries())


def model_names() -> tuple[str, ...]:
    """Return the names of QEMU's CPU models in its spelling, including those with a version (``-v1``)."""
    return tuple(name for name, _ in _models().values())


def is_layout_name(name: str) -> bool:
    """Return whether :func:`layout` accepts the name: a built-in layout or a CPU model; case does not matter."""
    return name.strip().lower() in {*_entries(), *_models()}


def without_xsave(name: str) -> bool:
    """Return whether the name is a CPU model without XSAVE, which has no layout."""
    found = _models().get(name.strip().lower())
    return found is not None and found[1] is None


def layout(name: str) -> Layout:
    """Return the built-in layout ``name``, as in ``layout("amd-zen4")`` or ``layout("EPYC-Genoa")``, in any case.

    Raises UsageError, with the closest names, if there is no such layout; UnsupportedError for a model without XSAVE.
    """
    return _layout(name.strip().lower())


@cache
def _layout(name: str) -> Layout:
    if name in _models() and name not in _entries():
        return _model(*_models()[name])
    entry = _entries().get(name)
    if entry is None:
        known = {one.lower(): one for one in (*layout_names(), *model_names())}
        close = [known[one] for one in difflib.get_close_matches(name, known, n=4, cutoff=0.5)]
        raise UsageError(f"no built-in layout {name!r}", expected="one of " + ", ".join(close or layout_names()))
    leaf = {int(subleaf): _row(row) for subleaf, row in entry["leaf_0xd"].items()}
    if "without" in entry:
        leaf = _with_others(leaf, {component(one).bit for one in entry["without"]})
    return Layout.from_leaf_0xd(name, leaf, title=entry["title"], source=entry["source"], vendor=entry["vendor"])


def _row(row: list[str]) -> CpuidRow:
    eax, ebx, ecx, edx = (int(register, 0) for register in row)
    return eax, ebx, ecx, edx


def _with_others(leaf: dict[int, CpuidRow], without: set[int]) -> dict[int, CpuidRow]:
    """Return CPUID leaf 0xD with a row for every component, except those ``without`` one."""
    user, size, _, high = leaf[0]
    features, _, supervisor, high_supervisor = leaf[1]
    user, supervisor = user | high << 32, supervisor | high_supervisor << 32
    rows = dict(leaf)
    for bit, one in COMPONENTS.items():
        if LEGACY_MASK >> bit & 1 or bit in rows or bit in without:
            continue
        if one.supervisor:
            rows[bit] = (one.size, 0, 1, 0)
            supervisor |= one.mask
        else:
            offset = -(-size // 64) * 64
            size = offset + one.size
            rows[bit] = (one.size, offset, one.align64 << 1 | one.xfd << 2, 0)
            user |= one.mask
    rows[0] = (user & LOW, size, size, user >> 32)
    rows[1] = (features, 0, supervisor & LOW, supervisor >> 32)
    return rows


def _model(name: str, row: list[str] | None) -> Layout:
    if row is None:
        raise UnsupportedError(
            NO_XSAVE,
            f"QEMU's CPU model {name} has no XSAVE; its state is FXSAVE's 512 bytes, which have no layout",
            expected="a CPU with XSAVE; `preflight --target` accepts this one, too",
        )
    family = layout(FAMILIES[row[0]])
    xcr0, xss, features = (int(word, 0) for word in row[1:])
    # QEMU's leaf 0xD, subleaf 0: EBX is the size for the current XCR0, ECX for all of it; here both are for all.
    size = family.standard_size(xcr0)
    leaf = {bit: family.leaf[bit] for bit in bits((xcr0 | xss) & ~3)}
    leaf |= {0: (xcr0, size, size, 0), 1: (features, 0, xss, 0)}
    source = f"{_data('models.json')['source']}; offsets of the family {row[0]}"
    title = f"QEMU's CPU model {name} on an {row[0]} host"
    return Layout.from_leaf_0xd(name, leaf, title=title, source=source, vendor=VENDORS[row[0]])
