"""The output of ``cpuid`` (Todd Allen) without -r: headings that name leaf and subleaf, and ``name = value`` lines.

::

    CPU 0:
       XSAVE features (0xd/0):
          XCR0 valid bit field mask               = 0x0000000000000207
          bytes required by fields in XCR0        = 0x00000988 (2440)
       AVX/YMM features (0xd/2):
          AVX/YMM save state byte size             = 0x00000100 (256)
          AVX/YMM save state byte offset           = 0x00000240 (576)
          supported in IA32_XSS or XCR0            = XCR0 (user state)

Older versions print the masks in halves, one prints subleaf 1 under the heading of subleaf 0, and mails have
``=3D`` for ``=``. Only leaf 0xD is read.
"""

from __future__ import annotations

import re

from qmigtool.xsave.cputext.model import (
    XSTATE_LEAF,
    CpuidBlock,
    CpuidLine,
    Leaves,
    component_row,
    features_row,
    mask_row,
    wanted,
)

_LINE = re.compile(
    r"^[ \t>]*(?:"
    r"CPU(?: (?P<cpu>\d{1,6}))?:[ \t]*$"
    r"|[^\n=]{0,80}\(0x(?P<leaf>[0-9a-fA-F]{1,8})(?:/(?P<subleaf>0x[0-9a-fA-F]{1,2}|\d{1,2}))?(?:/\w+)?\)?:"
    r"|(?P<name>[^\n=]{1,80}?)[ \t]*=[ \t]*(?P<value>[^\n]{1,60})"
    r")",
    re.MULTILINE,
)
_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,16}|\d{1,10}")
_FEATURES = ("XSAVEOPT instruction", "XSAVEC instruction", "XGETBV instruction", "XSAVES/XRSTORS instructions", "XFD: ")
"""CPUID.(0DH,1).EAX, from bit 0 up, by the start of its line."""


class _Cpu:
    """The lines of one CPU's leaf 0xD."""

    def __init__(self, cpu: int | None) -> None:
        self.cpu = cpu
        self.at: dict[int, int] = {}  # subleaf -> where it starts
        self.words: dict[int, dict[str, str]] = {}

    def block(self) -> CpuidBlock:
        # One version prints subleaf 1 under the heading of subleaf 0.
        heads = {**self.words.get(0, {}), **self.words.get(1, {})}
        block = CpuidBlock(self.cpu)

        def add(subleaf: int, row: tuple[int, int, int, int]) -> None:
            block.lines.append(CpuidLine(XSTATE_LEAF, subleaf, True, row, self.at.get(subleaf, 0)))

        if any(name.startswith("XCR0 ") and name.endswith("mask") for name in heads):
            mask = _mask(heads, "XCR0")
            sizes = [_number(heads.get(f"bytes required by {what}", "0")) for what in _SIZES]
            add(0, mask_row(mask, *sizes))
        features = sum(
            heads[name].startswith("true") << bit
            for bit, start in enumerate(_FEATURES)
            for name in heads
            if name.startswith(start)
        )
        if 1 in self.words or features:
            add(1, features_row(features, _number(heads.get("SAVE area size in bytes", "0")), _mask(heads, "IA32_XSS")))
        for subleaf in sorted(self.words.keys() - {0, 1}):
            row = _component(subleaf, self.words[subleaf])
            if row is not None:
                add(subleaf, row)
        return block


_SIZES = ("fields in XCR0", "XSAVE/XRSTOR area")


def read_decoded(text: str, leaves: Leaves) -> list[CpuidBlock]:
    """Return the blocks of a text of this form: only the rows of leaf 0xD."""
    if not wanted(XSTATE_LEAF, leaves) or not re.search(r"\(0x0?d/0\):", text):
        return []
    if "=3D" in text:
        text = text.replace("=\n", "").replace("=3D", "=")
    cpus = [_Cpu(None)]
    subleaf: int | None = None
    for match in _LINE.finditer(text):
        if match["name"] is not None:
            if subleaf is not None:
                cpus[-1].words[subleaf].setdefault(match["name"].strip(), match["value"].strip())
        elif match["leaf"] is None:
            cpus.append(_Cpu(int(match["cpu"]) if match["cpu"] else None))
            subleaf = None
        else:
            subleaf = _number(match["subleaf"] or "0") if int(match["leaf"], 16) == XSTATE_LEAF else None
            if subleaf is not None:
                cpus[-1].words.setdefault(subleaf, {})
                cpus[-1].at.setdefault(subleaf, match.start())
    return [block for cpu in cpus if cpu.words and (block := cpu.block()).lines]


def _mask(words: dict[str, str], register: str) -> int:
    """Return a mask that is printed in one piece or in two halves."""
    whole = words.get(f"{register} valid bit field mask")
    if whole is not None:
        return _number(whole)
    low, high = (_number(words.get(f"{register} {half} 32 bits valid bit field mask", "0")) for half in _HALVES)
    return high << 32 | low


_HALVES = ("lower", "upper")


def _component(bit: int, words: dict[str, str]) -> tuple[int, int, int, int] | None:
    size, offset, flags = None, None, {}
    for name, value in words.items():
        if name.endswith("save state byte size"):
            size = _number(value)
        elif name.endswith("save state byte offset"):
            offset = _number(value)
        elif name.startswith("supported in IA32_XSS or XCR0"):
            flags["supervisor"] = value.startswith("IA32_XSS")
        elif name.startswith("64-byte alignment"):
            flags["align64"] = value.startswith("true")
        elif name.startswith("XFD"):
            flags["xfd"] = value.startswith("true")
    if size is None or (offset is None and not flags.get("supervisor")):
        return None  # the text is truncated inside it
    return component_row(bit, size, offset, **flags)


def _number(text: str) -> int:
    match = _NUMBER.match(text)
    return 0 if match is None else int(match[0], 16 if match[0].startswith("0x") else 10)
