"""XSAVE areas in files: the options that say how to read one, reading, and the message about one that was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from qmigtool import xsave as core
from qmigtool.cli.shared.messages import print_json, say_error
from qmigtool.cli.shared.parameters import MAX_AREA, MAX_HOLDER, F, layout_value, read_holder, split_path
from qmigtool.errors import UsageError
from qmigtool.parsers.records import is_plain_stream
from qmigtool.util.text import hexadecimal, printable
from qmigtool.xsave import Layout
from qmigtool.xsave.found import AUTO
from qmigtool.xsave.header import area_format, header
from qmigtool.xsave.holders import FoundArea, find_area

quirk_option = click.option(
    "--hyperv-quirk/--no-hyperv-quirk",
    "quirk",
    default=None,
    help="Treat CET_U, CET_S and PASID of a compacted area as live although XSTATE_BV does not declare them, as "
    "Hyper-V saves them.",
)
force_option = click.option("--force", is_flag=True, help="Continue although the area cannot be of this layout.")


def _value(value: str | Layout) -> Layout | str:
    """Return a layout, or the word for finding one."""
    return AUTO if isinstance(value, str) and value.lower() == AUTO else layout_value(value)


def area_layout_option(*names: str, **more: Any) -> Callable[[F], F]:
    """Make an option that takes the layout of an area, or ``auto``."""
    return click.option(*names, type=_value, metavar="LAYOUT", **more)


the_area_layout_option = area_layout_option(
    "--layout",
    default=AUTO,
    help="A built-in layout (see `xsave layouts`), a file with CPUID in it (FILE#N is CPU N), or auto (the default): "
    "the layout that the file of the area names, else the built-in ones that fit.",
)


def read_area(path: str) -> FoundArea:
    """Read an XSAVE area, alone in its file or out of what holds one; ``FILE#N`` chooses of several."""
    file, choice = split_path(path)
    data = read_holder(file, MAX_HOLDER)
    if is_plain_stream(data):
        raise UsageError(f"{path} is a migration stream, not an XSAVE area", expected="`xsave export` first")
    found = find_area(data, Path(file).name, choice)
    if len(found.data) > MAX_AREA:
        raise UsageError(f"{path} has more than {MAX_AREA} bytes", expected="an XSAVE area")
    return found


def report(result: core.Result, layout: Layout, notes: Sequence[str], output: str, *, as_json: bool) -> None:
    """Print what a conversion by ``strict`` has written."""
    beside = {core.mask_names(1 << bit)[0]: contents.hex() for bit, contents in result.supervisor.items()}
    document = document_of(result.data, layout, notes)
    say_written(document | {"dropped": list(core.mask_names(result.dropped)), "msrs": beside}, output, as_json=as_json)


def document_of(data: bytes, layout: Layout, notes: Sequence[str]) -> dict[str, Any]:
    """Return the facts about bytes that were written: from their header alone, for QEMU's may be no legal area."""
    xstate_bv, xcomp_bv = header(data)
    return {
        "size": len(data),
        "format": area_format(data).value,
        "layout": layout.name,
        "xstate_bv": hexadecimal(xstate_bv),
        "xcomp_bv": hexadecimal(xcomp_bv),
        "dropped": [],
        "msrs": {},
        "notes": list(notes),
    }


def say_written(document: dict[str, Any], output: str, *, as_json: bool) -> None:
    """Print what was written: JSON on stdout if requested, else text on stderr."""
    if as_json and output != "-":
        print_json(document)
        return
    words = printable(f"{output}: {document['size']} bytes, {document['format']} format of {document['layout']}")
    say_error(f"{words}, XSTATE_BV {document['xstate_bv']}, XCOMP_BV {document['xcomp_bv']}")
    for note in document["notes"]:
        say_error(f"note: {printable(note)}")
    if document["msrs"]:
        say_error(f"note: not in the area, to be written as MSRs: {' '.join(document['msrs'])}")
