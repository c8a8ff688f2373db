"""The presence of XSAVE components: vCPUs by what they have in common, and what differs from most of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from qmigtool import tables
from qmigtool import xsave as core
from qmigtool.stream.info import problems_document
from qmigtool.tables import LEGACY_OFFSETS
from qmigtool.util.text import hexadecimal
from qmigtool.xsave import Layout

if TYPE_CHECKING:
    from qmigtool.stream.model import Stream
    from qmigtool.x86.vcpu import VCpu

__all__ = [
    "MARK",
    "NUMBERS",
    "Pattern",
    "Presence",
    "PresenceTable",
    "cells",
    "offsets",
    "presence",
    "presence_document",
    "presence_table",
    "ranges",
    "shown",
]

T = TypeVar("T")
MARK = "*"
NUMBERS = ("XCR0", "XSS", "XSTATE_BV", "live")


class Pattern(NamedTuple):
    """What some vCPUs have in common."""

    xcr0: int
    xss: int
    declared: int
    carried: int
    live: int

    @property
    def enabled(self) -> int:
        """The components that XCR0 and IA32_XSS enable."""
        return self.xcr0 | self.xss

    def cells(self, bits: Iterable[int]) -> list[str]:
        """Return :data:`NUMBERS`, and the letters of each component."""
        numbers = [f"{mask:#x}" for mask in (self.xcr0, self.xss, self.declared, self.live)]
        masks = (self.enabled, self.declared, self.carried, self.live)
        return [*numbers, *(_letters(masks, bit) for bit in bits)]


class Presence(NamedTuple):
    """What the vCPUs of one stream have: patterns with the vCPUs of each, in the order of the first."""

    file: str
    vcpus: dict[Pattern, list[int]]
    undeclared: dict[int, list[int]]
    accelerator: str
    schema_name: str | None

    @property
    def most(self) -> Pattern | None:
        """The pattern of most vCPUs; None where no pattern is the most frequent one."""
        counts = sorted(map(len, self.vcpus.values()), reverse=True)
        if not counts or counts[:1] == counts[1:2]:
            return None
        return next(pattern for pattern, indexes in self.vcpus.items() if len(indexes) == counts[0])


def ranges(indexes: Iterable[int]) -> str:
    """Return numbers as text, as in ``0-3,7``."""
    parts = []
    for _, run in groupby(enumerate(indexes), key=lambda pair: pair[1] - pair[0]):
        numbers = [number for _, number in run]
        parts.append(str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}")
    return ",".join(parts)


class PresenceTable(NamedTuple):
    """The presence table of some streams: what the vCPUs of each have."""

    streams: tuple[Presence, ...]

    def _repr_html_(self) -> str:
        from qmigtool.util.html import html_table

        columns = list(core.bits(shown(self.streams)))
        lines = [
            [one.file, ranges(indexes), *line]
            for one in self.streams
            for indexes, line in zip(one.vcpus.values(), cells(one, columns), strict=True)
        ]
        head = ["file", "vCPU", *NUMBERS, *(core.mask_names(1 << bit)[0] for bit in columns)]
        notes = ["e enabled (XCR0, IA32_XSS)  d declared (XSTATE_BV)  c carried  l live (not initial)"]
        notes += (
            [f"{MARK} differs from the most frequent pattern"] if any(MARK in x for y in lines for x in y[2:]) else []
        )
        notes += [f"{one.file}: {one.accelerator}" for one in self.streams]
        return html_table("XSAVE components", head, lines, notes)


def presence_table(*streams: Stream) -> PresenceTable:
    """Return which XSAVE components the x86 vCPUs of some streams have, as ``qmigtool xsave table`` prints it."""
    return PresenceTable(tuple(presence(one.source.name, one, one.vcpus) for one in streams))


def presence(file: str, stream: Stream, vcpus: Sequence[VCpu]) -> Presence:
    """Return what the vCPUs of a stream have."""
    return Presence(
        file,
        _grouped(vcpus, lambda v: Pattern(v.xcr0, v.xss, v.xstate_bv, v.carried, v.live)),
        {mask: indexes for mask, indexes in _grouped(vcpus, lambda v: v.undeclared).items() if mask},
        stream.accelerator.words,
        stream.schema_name,
    )


def _grouped(vcpus: Iterable[VCpu], key: Callable[[VCpu], T]) -> dict[T, list[int]]:
    groups: dict[T, list[int]] = {}
    for vcpu in vcpus:
        groups.setdefault(key(vcpu), []).append(vcpu.index)
    return groups


def shown(found: Iterable[Presence]) -> int:
    """Return the components that any vCPU has in any way."""
    mask = 0
    for pattern in (pattern for one in found for pattern in one.vcpus):
        mask |= pattern.enabled | pattern.declared | pattern.carried | pattern.live
    return mask


def cells(one: Presence, bits: Sequence[int]) -> list[list[str]]:
    """Return the cells of each pattern; a star marks what differs from the pattern of most vCPUs."""
    usual = None if one.most is None else one.most.cells(bits)
    lines = []
    for pattern in one.vcpus:
        mine = pattern.cells(bits)
        marks = [False] * len(mine) if usual is None else [a != b for a, b in zip(mine, usual, strict=True)]
        lines.append([f"{cell}{MARK}" if mark else cell for cell, mark in zip(mine, marks, strict=True)])
    return lines


def _letters(masks: tuple[int, int, int, int], bit: int) -> str:
    return "".join(letter if mask >> bit & 1 else "-" for letter, mask in zip("edcl", masks, strict=True))


def offsets(layout: Layout, found: Sequence[Presence], bits: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Return head and lines of a table of offsets; compacted ones for each set of components that a vCPU enables."""
    enabled = list(dict.fromkeys(pattern.enabled for one in found for pattern in one.vcpus))
    placed = [layout.compacted_offsets(mask & layout.mask) for mask in enabled]
    lines = []
    for bit in bits:
        row = layout.rows.get(bit)
        size: int | None
        standard: int | None
        if bit < len(LEGACY_OFFSETS):
            size, standard = None, LEGACY_OFFSETS[bit]
            compacted = [standard if mask >> bit & 1 else None for mask in enabled]
        else:
            size = None if row is None else row.size
            standard = None if row is None or row.supervisor else row.offset
            compacted = [one.get(bit) for one in placed]
        numbers = ["-" if number is None else str(number) for number in (size, standard, *compacted)]
        lines.append([core.mask_names(1 << bit)[0], *numbers])
    return ["component", "size", "standard", *(f"compacted {mask:#x}" for mask in enabled)], lines


def presence_document(stream: Stream, vcpus: Sequence[VCpu], rows: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
    """Return what ``xsave table --json`` prints; ``rows`` are those of :data:`qmigtool.tables.xsave_components`."""
    names = [column.name for column in tables.xsave_components.columns][1:]
    components: dict[int, list[dict[str, Any]]] = {}
    for index, *values in rows:
        components.setdefault(index, []).append(dict(zip(names, values, strict=True)))
    return {
        "accelerator": {"name": stream.accelerator.name, "evidence": list(stream.accelerator.evidence)},
        "schema_name": stream.schema_name,
        "proved": stream.proved,
        "vcpus": [
            {
                "vcpu": vcpu.index,
                "xcr0": hexadecimal(vcpu.xcr0),
                "xss": hexadecimal(vcpu.xss),
                "xstate_bv": hexadecimal(vcpu.xstate_bv),
                "xstate_bv_recomputed": hexadecimal(vcpu.effective_xstate_bv("recomputed")),
                "mxcsr": hexadecimal(vcpu.mxcsr),
                "components": components.get(vcpu.index, []),
            }
            for vcpu in vcpus
        ],
        **problems_document(stream),
    }
