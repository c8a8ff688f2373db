"""Layouts from a text dump of CPUID: Todd Allen's ``cpuid -r``, and InstLatx64 (AIDA64).

Both have one line per subleaf and one block per logical CPU::

    CPU 0:
       0x0000000d 0x02: eax=0x00000100 ebx=0x00000240 ecx=0x00000000 edx=0x00000000

    ------[ CPUID Registers / Logical CPU #0 ]------
    CPUID 0000000D: 00000100-00000240-00000000-00000000 [SL 02] [AVX]

Text that went through a mail (quoted with ``>``, wrapped) is read too. Old InstLatx64 dumps have no ``[SL ..]``: their
lines are subleaves 0, 1, 2 and so on, which holds only where no subleaf was left out, and so it is checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from qmigtool.errors import LimitError, UsageError, XsaveError
from qmigtool.xsave.layout import CpuidRow, Layout

MAX_TEXT = 16 << 20
"""Characters. A real dump of 192 CPUs (EPYC 9654, InstLatx64) has 2.6 million; two sockets of 384 would have 11."""

_HEX = "([0-9A-Fa-f]{8})"
_GAP = r"[\s>]+"
_LINE = re.compile(
    # cpuid -r: a row of leaf 0xD
    rf"\b0x0000000[dD]{_GAP}0x(?P<cpuid_subleaf>[0-9A-Fa-f]{{1,2}}):{_GAP}"
    rf"eax=0x{_HEX}{_GAP}ebx=0x{_HEX}{_GAP}ecx=0x{_HEX}{_GAP}edx=0x{_HEX}\b"
    # InstLatx64: a row of leaf 0xD
    rf"|\b(?P<aida>CPUID) 0000000[dD]: {_HEX}-{_HEX}-{_HEX}-{_HEX}(?:[ \t]*\[SL (?P<aida_subleaf>[0-9A-Fa-f]{{2}})\])?"
    # a new block in either
    r"|\bCPU (?P<cpuid_cpu>\d{1,6}):"
    r"|\bCPU ?#(?P<aida_cpu>\d{1,6})\b"
)


@dataclass(slots=True)
class _Block:
    cpu: int | None
    rows: dict[int, CpuidRow] = field(default_factory=dict)
    unlabelled: int = 0
    labelled: bool = False

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
    if len(text) > MAX_TEXT:
        raise LimitError(f"the CPUID dump has {len(text)} characters", section=name, expected=f"at most {MAX_TEXT}")
    blocks = _blocks(text, name)
    if not blocks:
        raise XsaveError(
            "no row of CPUID leaf 0xD found", section=name, expected="the output of cpuid -r or InstLatx64"
        )
    chosen = _choose(blocks, name, cpu)
    _check_unlabelled(chosen, name)
    where = "" if chosen.cpu is None else f", CPU {chosen.cpu}"
    return Layout.from_leaf_0xd(name, chosen.rows, title=name, source=source or f"CPUID dump{where}")


def _blocks(text: str, name: str) -> list[_Block]:
    """Return the blocks that have rows."""
    blocks: list[_Block] = []
    block = _Block(None)
    for match in _LINE.finditer(text):
        number = match["cpuid_cpu"] or match["aida_cpu"]
        if number is not None:
            block = _Block(int(number))
            continue
        if not block.rows:
            blocks.append(block)
        registers = [int(word, 16) for word in match.groups() if word is not None and len(word) == 8]
        label = match["cpuid_subleaf"] or match["aida_subleaf"]
        if label is not None:
            subleaf = int(label, 16)
            block.labelled = True
        else:
            subleaf = block.unlabelled
            block.unlabelled += 1
        row = (registers[0], registers[1], registers[2], registers[3])
        if block.rows.setdefault(subleaf, row) != row or (block.labelled and block.unlabelled):
            raise XsaveError(
                f"subleaf {subleaf:#x} of CPUID leaf 0xD has two different rows, or only some rows say [SL ..]",
                section=name,
                expected="one block of rows per CPU",
            )
    return blocks


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
