"""CPUID from a text dump, and layouts from its leaf 0xD: Todd Allen's ``cpuid -r``, and InstLatx64 (AIDA64).

Both have one line per subleaf and one block per logical CPU::

    CPU 0:
       0x0000000d 0x02: eax=0x00000100 ebx=0x00000240 ecx=0x00000000 edx=0x00000000

    ------[ CPUID Registers / Logical CPU #0 ]------
    CPUID 0000000D: 00000100-00000240-00000000-00000000 [SL 02] [AVX]

Text that went through a mail (quoted with ``>``, wrapped between words) is read too. Old InstLatx64 dumps have no
``[SL ..]``: the lines of a leaf are its subleaves 0, 1, 2 and so on, which holds only where no subleaf was left out, as
is checked for leaf 0xD.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, field
from typing import NamedTuple

from qmigtool.errors import LimitError, UsageError, XsaveError
from qmigtool.xsave.layout import CpuidRow, Layout

__all__ = ["CpuidBlock", "CpuidLine", "parse_cpuid_dump", "parse_cpuid_rows"]

MAX_TEXT = 16 << 20
"""Characters. A real dump of 192 CPUs (EPYC 9654, InstLatx64) has 2.6 million; two sockets of 384 would have 11."""

XSTATE_LEAF = 0xD

_HEX = "([0-9A-Fa-f]{8})"
_GAP = r"[\s>]+"
_LINE = re.compile(
    # cpuid -r: a row
    rf"\b0x(?P<cpuid_leaf>[0-9A-Fa-f]{{8}}){_GAP}0x(?P<cpuid_subleaf>[0-9A-Fa-f]{{1,2}}):{_GAP}"
    rf"eax=0x{_HEX}{_GAP}ebx=0x{_HEX}{_GAP}ecx=0x{_HEX}{_GAP}edx=0x{_HEX}\b"
    # InstLatx64: a row
    rf"|\bCPUID{_GAP}(?P<aida_leaf>[0-9A-Fa-f]{{8}}):{_GAP}{_HEX}-{_HEX}-{_HEX}-{_HEX}\b"
    rf"(?:[\s>]*\[SL{_GAP}(?P<aida_subleaf>[0-9A-Fa-f]{{2}})\])?"
    # a new block in either
    r"|\bCPU (?P<cpuid_cpu>\d{1,6}):"
    r"|\bCPU ?#(?P<aida_cpu>\d{1,6})\b"
)


class CpuidLine(NamedTuple):
    """One row of a dump; ``labelled`` says whether the dump tells the subleaf, or it was counted."""

    leaf: int
    subleaf: int
    labelled: bool
    registers: CpuidRow


@dataclass(slots=True)
class CpuidBlock:
    """What a dump has of one logical CPU, in its order; ``cpu`` is its number, None if the dump has none."""

    cpu: int | None
    lines: list[CpuidLine] = field(default_factory=list)


def parse_cpuid_rows(text: str, leaves: Container[int] | None = None) -> list[CpuidBlock]:
    """Return the blocks of a dump that have rows, with the rows of ``leaves`` (default: all).

    Of anything but a dump there are none. Raises LimitError if the text is longer than 16 Mi characters.
    """
    if len(text) > MAX_TEXT:
        raise LimitError(f"the CPUID dump has {len(text)} characters", expected=f"at most {MAX_TEXT}")
    blocks: list[CpuidBlock] = []
    block = CpuidBlock(None)
    counted: dict[int, int] = {}  # leaf -> rows without a label
    for match in _LINE.finditer(text):
        number = match["cpuid_cpu"] or match["aida_cpu"]
        if number is not None:
            block, counted = CpuidBlock(int(number)), {}
            continue
        leaf = int(match["cpuid_leaf"] or match["aida_leaf"], 16)
        if leaves is not None and leaf not in leaves:
            continue
        label = match["cpuid_subleaf"] or match["aida_subleaf"]
        subleaf = counted.get(leaf, 0) if label is None else int(label, 16)
        if label is None:
            counted[leaf] = subleaf + 1
        first = 3 if match["cpuid_leaf"] else 8  # the groups of the form that matched
        eax, ebx, ecx, edx = (int(word, 16) for word in match.group(*range(first, first + 4)))
        if not block.lines:
            blocks.append(block)
        block.lines.append(CpuidLine(leaf, subleaf, label is not None, (eax, ebx, ecx, edx)))
    return blocks


@dataclass(slots=True)
class _Block:
    """The rows of leaf 0xD of one CPU."""

    cpu: int | None
    rows: dict[int, CpuidRow] = field(default_factory=dict)
    unlabelled: int = 0

    @property
    def shape(self) -> tuple[tuple[int, CpuidRow], ...]:
        """The rows, without the sizes for the current XCR0 and IA32_XSS, in which two equal CPUs may differ."""
        rows = dict(self.rows)
        for subleaf in rows.keys() & {0, 1}:
            eax, _, ecx, edx = rows[subleaf]
            rows[subleaf] = (eax, 0, ecx, edx)
        return tuple(sorted(rows.items()))


def parse_cpuid_dump(text: str, name: str, *, cpu: int | None = None, source: str = "") -> Layout:
    """Make a layout from the leaf 0xD rows of a CPUID dump; ``name`` becomes the layout's name.

    All CPUs of the dump must have the same layout; in a dump of a hybrid machine ``cpu`` names the one to take. A
    truncated dump gives a layout whose ``absent`` has what is missing.

    Raises XsaveError if there is no row for subleaf 0, if CPUs differ and ``cpu`` is not given, if a row is there twice
    with different contents, or if rows without ``[SL ..]`` cannot be numbered; UsageError if there is no such CPU;
    LimitError if the text is longer than 16 Mi characters.
    """
    blocks = [_xstate(block, name) for block in parse_cpuid_rows(text, (XSTATE_LEAF,))]
    if not blocks:
        raise XsaveError(
            "no row of CPUID leaf 0xD found", section=name, expected="the output of cpuid -r or InstLatx64"
        )
    chosen = _choose(blocks, name, cpu)
    _check_unlabelled(chosen, name)
    where = "" if chosen.cpu is None else f", CPU {chosen.cpu}"
    return Layout.from_leaf_0xd(name, chosen.rows, title=name, source=source or f"CPUID dump{where}")


def _xstate(block: CpuidBlock, name: str) -> _Block:
    """Return a block's rows by subleaf."""
    found = _Block(block.cpu)
    for line in block.lines:
        found.unlabelled += not line.labelled
        different = found.rows.setdefault(line.subleaf, line.registers) != line.registers
        if different or found.unlabelled not in (0, len(found.rows)):
            raise XsaveError(
                f"subleaf {line.subleaf:#x} of CPUID leaf 0xD has two different rows, or only some rows say [SL ..]",
                section=name,
                expected="one block of rows per CPU",
            )
    return found


def _choose(blocks: list[_Block], name: str, cpu: int | None) -> _Block:
    if cpu is not None:
        for block in blocks:
            if block.cpu == cpu:
                return block
        known = ", ".join(str(block.cpu) for block in blocks[:16] if block.cpu is not None) or "no numbered one"
        raise UsageError(f"CPU {cpu} is not in the dump {name}", expected=known)
    if len(blocks) > 1 and set(blocks[-1].shape) < set(blocks[0].shape):
        # The dump ends inside its last CPU.
        blocks = blocks[:-1]
    groups: dict[tuple[tuple[int, CpuidRow], ...], list[_Block]] = {}
    for block in blocks:
        groups.setdefault(block.shape, []).append(block)
    if len(groups) > 1:
        kinds = "; ".join(
            f"CPU {group[0].cpu} and {len(group) - 1} more have the XCR0 mask {group[0].rows.get(0, (0,))[0]:#x}"
            for group in groups.values()
        )
        raise XsaveError(f"the CPUs of this dump have different XSAVE layouts ({kinds}); name one", section=name)
    return blocks[0]


def _check_unlabelled(block: _Block, name: str) -> None:
    """Refuse rows without [SL ..] that are not where XCR0 and IA32_XSS want them: then a subleaf was left out."""
    if not block.unlabelled:
        return
    eax, _, _, edx = block.rows[0]
    _, _, ecx1, edx1 = block.rows.get(1, (0, 0, 0, 0))
    advertised = edx << 32 | eax | edx1 << 32 | ecx1
    for subleaf, row in block.rows.items():
        if subleaf > 1 and row[0] and not advertised >> subleaf & 1:
            raise XsaveError(
                f"line {subleaf + 1} of leaf 0xD has no [SL ..] and cannot be subleaf {subleaf}, in neither mask: "
                "the dump leaves subleaves out without saying which",
                section=name,
                expected="a dump with [SL ..], or one with a line for every subleaf",
            )
