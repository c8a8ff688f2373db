"""Parameters that the ``xsave`` commands share: layouts, masks, formats, small files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, TypeVar

import click

from qmigtool import xsave as core
from qmigtool.cli.shared.messages import say_error
from qmigtool.cli.shared.output import remember_inputs
from qmigtool.errors import UsageError
from qmigtool.util.text import printable
from qmigtool.util.values import number, parse_number, size
from qmigtool.xsave import Format, Layout
from qmigtool.xsave.cpuid import missing_rows, split_choice
from qmigtool.xsave.holders.elfcore import is_core, is_layout_note, layout_of_core, layout_of_note

F = TypeVar("F", bound=Callable[..., Any])

MAX_AREA = 1 << 20  # an area with everything known has 12 KiB
MAX_HOLDER = 16 << 20  # the notes of a core with 3,000 threads
MAX_DUMP = 16 << 20  # an InstLatx64 dump of 192 CPUs has 2.6 MB


def layout_value(value: str | Layout) -> Layout:
    """Return a built-in layout, or that of a file with CPUID in any form of text; ``FILE#N`` chooses one of its CPUs.

    What a cut text leaves out is reported on stderr.
    """
    if isinstance(value, Layout):
        return value
    file, choice = split_path(value)
    if value.lower() == "auto" and not Path(file).exists():
        raise UsageError(
            "auto is for commands that read an area (xsave check, convert, import); here no area is read",
            expected="a built-in layout (see `xsave layouts`) or a file with CPUID in it",
        )
    if core.is_layout_name(value) or not Path(file).exists():
        return core.layout(value)
    data, name = read_holder(file, MAX_DUMP), Path(file).name
    if is_core(data):
        return layout_of_core(data, name)
    data = bytes(data)
    if is_layout_note(data):
        return layout_of_note(data, name)
    found = core.parse_cpuid_dump(data.decode("utf-8", "replace"), name, cpu=choice)
    note = missing_rows(found)
    if note is not None:
        say_error(f"note: {printable(note)}")
    return found


def _mask(value: str | int) -> int:
    """Return a mask of components: a number, or names as in ``x87,sse,avx``."""
    return value if isinstance(value, int) else core.parse_mask(value)


def _register(value: str | int) -> int:
    """Return 64 bits: a number of any of them, or what ``_mask`` reads (which does not accept bit 63)."""
    if isinstance(value, int):
        return value
    found = parse_number(value)
    return found if found is not None and 0 <= found < 1 << 64 else core.parse_mask(value)


def number_of(option: str) -> Callable[[str | int], int]:
    """Return what reads the number of an option; an error names the option."""
    return lambda value: number(value, option)


def size_value(value: str | int) -> int:
    """Return the bytes of a buffer: ``4096``, ``0x1000``, ``4K``; no more than any area has."""
    found = size(value, "the size")
    if found > MAX_AREA:
        raise UsageError(f"the size is {value}", expected=f"at most {MAX_AREA}")
    return found


def layout_option(*names: str, **more: Any) -> Callable[[F], F]:
    """Make an option that takes a layout."""
    return click.option(*names, type=layout_value, metavar="LAYOUT", **more)


def mask_option(*names: str, **more: Any) -> Callable[[F], F]:
    """Make an option that takes a mask of components."""
    return click.option(*names, type=_mask, metavar="MASK", **more)


def register_option(*names: str, **more: Any) -> Callable[[F], F]:
    """Make an option that takes the 64 bits of a register or a feature word, bit 63 too."""
    return click.option(*names, type=_register, metavar="MASK", **more)


the_layout_option = layout_option(
    "--layout",
    required=True,
    help="A built-in layout (see `xsave layouts`) or a file with CPUID in it; FILE#N is CPU N of it.",
)
target_mask_option = mask_option(
    "--mask", help="Components of the target (XCOMP_BV); by default all user components of the layout."
)
format_choice = click.Choice([form.value for form in Format])


def split_path(path: str) -> tuple[str, str | None]:
    """Split ``FILE#N``; a file that has such a name is taken as it is called."""
    return (path, None) if path == "-" or Path(path).exists() else split_choice(path)


def read_small(path: str, most: int) -> bytes:
    """Read all of a small file, or of stdin."""
    data = _read(path, most)
    if len(data) > most:
        raise UsageError(f"{path} has more than {most} bytes", expected="an XSAVE area or a CPUID dump")
    return data


def read_holder(path: str, most: int) -> bytes | mmap:
    """Read a file with an area or a layout: all of a small file, of an ELF core only the parts that are used.

    A core may be large, and gdb writes its notes after the memory. Of one that comes through a pipe only the first
    ``most`` bytes are read.
    """
    data = _read(path, most)
    if len(data) <= most:
        return data
    if not is_core(data):
        raise UsageError(f"{path} has more than {most} bytes", expected="an XSAVE area or a CPUID dump")
    if path != "-" and Path(path).is_file():
        with Path(path).open("rb") as file:
            return mmap(file.fileno(), 0, access=ACCESS_READ)
    return data[:most]


def _read(path: str, most: int) -> bytes:
    """Return the bytes of a file or stdin, or one more than ``most`` of them."""
    remember_inputs(path)
    if path == "-":
        if sys.stdin is None:
            raise UsageError("there is no standard input")
        return sys.stdin.buffer.read(most + 1)
    with Path(path).open("rb") as file:
        return file.read(most + 1)
