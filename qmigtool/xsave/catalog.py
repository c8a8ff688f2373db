"""The built-in layouts: 28 real CPUs and guests, and the two that QEMU itself has (``layouts.json``).

Two entries are no CPU. ``qemu`` has every component of QEMU's x86_ext_save_areas, at the offsets that its X86XSaveArea
had before accelerators copied the host's: the Intel ones, with APX_F at 960. ``tcg`` has only what a TCG guest can
enumerate, XCR0 0x21f: the X86XSaveArea of tcg-cpu.h has room for AVX-512, but TCG does not offer it.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources

from qmigtool.errors import UsageError
from qmigtool.xsave.layout import Layout


@cache
def _entries() -> dict[str, dict[str, object]]:
    text = resources.files("qmigtool.xsave").joinpath("layouts.json").read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in json.loads(text)}


def layout_names() -> tuple[str, ...]:
    """Return the names of the built-in layouts, in the catalog's order (by vendor and age)."""
    return tuple(_entries())


def layout(name: str) -> Layout:
    """Return the built-in layout ``name``, as in ``layout("amd-zen4")``; case does not matter.

    Raises UsageError, which lists the closest names, if there is none.
    """
    return _layout(name.strip().lower())


@cache
def _layout(name: str) -> Layout:
    entry = _entries().get(name)
    if entry is None:
        close = difflib.get_close_matches(name, layout_names(), n=4, cutoff=0.5)
        raise UsageError(f"no built-in layout {name!r}", expected="one of " + ", ".join(close or layout_names()))
    rows = entry["leaf_0xd"]
    assert isinstance(rows, dict)  # noqa: S101 - our own data file
    leaf = {int(subleaf): tuple(int(register, 0) for register in row) for subleaf, row in rows.items()}
    return Layout.from_leaf_0xd(name, leaf, title=str(entry["title"]), source=str(entry["source"]))
