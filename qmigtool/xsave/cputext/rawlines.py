r"""Lines with the four registers of a row, in the formats of five programs.

::

    CPU 0:                                                                           cpuid -r (Todd Allen)
       0x0000000d 0x02: eax=0x00000100 ebx=0x00000240 ecx=0x00000000 edx=0x00000000

    ------[ CPUID Registers / Logical CPU #0 ]------                                 InstLatx64 (AIDA64)
    CPUID 0000000D: 00000100-00000240-00000000-00000000 [SL 02] [AVX]                (some without the colon)

    0x0000000d: subleafs:                                                            kcpuid -r (Linux)
      2: EAX=0x00000100, EBX=0x00000240, ECX=0x00000000, EDX=0x00000000

    Raw policy: 48 leaves, 2 MSRs                                                    xen-cpuid -p
      0000000d:00000002 -> 00000100:00000240:00000000:00000000

    Gst: 0000000d/0002  00000100 00000240 00000000 00000000                          VBox.log, each row twice
    Hst:                00000100 00000240 00000000 00000000

Text from a mail (quoted with ``>``, wrapped between words) is read too, for the first two. Old InstLatx64
dumps have no ``[SL ..]``: the lines of a leaf are its subleaves 0, 1, 2 and so on, which is right only if no subleaf
was left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from qmigtool.xsave.cputext.model import CpuidBlock, CpuidLine, Leaves, wanted
from qmigtool.xsave.layout import CpuidRow

_HEX = "([0-9A-Fa-f]{8})"
_GAP = r"[\s>]+"
_ROWS = re.compile(
    # cpuid -r: a row
    rf"\b0x(?P<cpuid_leaf>[0-9A-Fa-f]{{8}}){_GAP}0x(?P<cpuid_subleaf>[0-9A-Fa-f]{{1,2}}):{_GAP}"
    rf"eax=0x{_HEX}{_GAP}ebx=0x{_HEX}{_GAP}ecx=0x{_HEX}{_GAP}edx=0x{_HEX}\b"
    # InstLatx64: a row
    rf"|\bCPUID{_GAP}(?P<aida_leaf>[0-9A-Fa-f]{{8}}):?{_GAP}{_HEX}-{_HEX}-{_HEX}-{_HEX}\b"
    rf"(?:[\s>]*\[SL{_GAP}(?P<aida_subleaf>[0-9A-Fa-f]{{2}})\])?"
    # a new block in either
    r"|\bCPU (?P<cpuid_cpu>\d{1,6}):"
    r"|\bCPU ?#(?P<aida_cpu>\d{1,6})\b"
)
_KCPUID = re.compile(
    r"\b0x(?P<head>[0-9A-Fa-f]{8}): subleafs:"
    rf"|(?:\b0x(?P<leaf>[0-9A-Fa-f]{{8}})|(?<![0-9A-Za-z])(?P<subleaf>\d{{1,2}})): +"
    rf"EAX=0x{_HEX}, EBX=0x{_HEX}, ECX=0x{_HEX}, EDX=0x{_HEX}\b"
)
_XEN = re.compile(
    rf"\b(?P<leaf>[0-9A-Fa-f]{{8}}):(?P<subleaf>[0-9A-Fa-f]{{8}}) +-> +{_HEX}:{_HEX}:{_HEX}:{_HEX}\b"
    r"|\b(?P<policy>[A-Z][A-Za-z]*(?: [A-Z][A-Za-z]*)?) policy:"
)
_VIRTUALBOX = re.compile(
    r"\bGst: (?P<leaf>[0-9A-Fa-f]{8})/(?P<subleaf>[0-9A-Fa-f]{4}) +"
    rf"{_HEX} {_HEX} {_HEX} {_HEX}\b"
    rf"|\bHst: +(?:(?P<host_leaf>[0-9A-Fa-f]{{8}})/(?P<host_subleaf>[0-9A-Fa-f]{{4}}) +)?{_HEX} {_HEX} {_HEX} {_HEX}\b"
)

XEN_NO_SUBLEAF = 0xFFFFFFFF


def read_lines(text: str, leaves: Leaves) -> list[CpuidBlock]:
    """Return the blocks of a text in the first of these formats that matches any row."""
    forms: tuple[tuple[str, Callable[[str, Leaves], list[CpuidBlock]]], ...] = (
        ("->", _xen),
        ("Gst: ", _virtualbox),
        ("EAX=0x", _kcpuid),
        ("", _cpuid_and_aida),
    )
    for sign, reader in forms:
        if sign in text:
            blocks = [block for block in reader(text, leaves) if block.lines]
            if blocks:
                return blocks
    return []


def _registers(match: re.Match[str], first: int) -> CpuidRow:
    eax, ebx, ecx, edx = (int(word, 16) for word in match.group(*range(first, first + 4)))
    return eax, ebx, ecx, edx


def _cpuid_and_aida(text: str, leaves: Leaves) -> list[CpuidBlock]:
    blocks: list[CpuidBlock] = []
    block = CpuidBlock(None)
    counted: dict[int, int] = {}  # leaf -> rows without a label
    for match in _ROWS.finditer(text):
        number = match["cpuid_cpu"] or match["aida_cpu"]
        if number is not None:
            block, counted = CpuidBlock(int(number)), {}
            continue
        leaf = int(match["cpuid_leaf"] or match["aida_leaf"], 16)
        if not wanted(leaf, leaves):
            continue
        label = match["cpuid_subleaf"] or match["aida_subleaf"]
        subleaf = counted.get(leaf, 0) if label is None else int(label, 16)
        if label is None:
            counted[leaf] = subleaf + 1
        if not block.lines:
            blocks.append(block)
        row = _registers(match, 3 if match["cpuid_leaf"] else 8)  # the groups of the format that matched
        block.lines.append(CpuidLine(leaf, subleaf, label is not None, row, match.start()))
    return blocks


def _kcpuid(text: str, leaves: Leaves) -> list[CpuidBlock]:
    block, leaf = CpuidBlock(None), None
    for match in _KCPUID.finditer(text):
        if match["head"] is not None:
            leaf = int(match["head"], 16)
            continue
        if match["leaf"] is not None:
            leaf = int(match["leaf"], 16)
        if leaf is not None and wanted(leaf, leaves):
            subleaf = int(match["subleaf"] or 0)
            block.lines.append(CpuidLine(leaf, subleaf, True, _registers(match, 4), match.start()))
    return [block]


def _xen(text: str, leaves: Leaves) -> list[CpuidBlock]:
    blocks = [CpuidBlock(None)]
    for match in _XEN.finditer(text):
        if match["policy"] is not None:
            blocks.append(CpuidBlock(None, view=match["policy"].lower().replace(" ", "-")))
            continue
        leaf, subleaf = int(match["leaf"], 16), int(match["subleaf"], 16)
        if wanted(leaf, leaves):
            subleaf = 0 if subleaf == XEN_NO_SUBLEAF else subleaf
            blocks[-1].lines.append(CpuidLine(leaf, subleaf, True, _registers(match, 3), match.start()))
    return blocks


def _virtualbox(text: str, leaves: Leaves) -> list[CpuidBlock]:
    guest, host = CpuidBlock(None, view="guest"), CpuidBlock(None, view="host")
    place: tuple[int, int] | None = None
    for match in _VIRTUALBOX.finditer(text):
        ours = match["leaf"] is not None
        named = match["leaf"] or match["host_leaf"]
        if named is not None:
            place = int(named, 16), int(match["subleaf"] or match["host_subleaf"], 16)
        if place is not None and wanted(place[0], leaves):
            row = _registers(match, 3 if ours else 9)
            (guest if ours else host).lines.append(CpuidLine(*place, True, row, match.start()))
    return [guest, host]
