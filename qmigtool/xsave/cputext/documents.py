"""CPUID in documents: JSON of virtual machine monitors, and libvirt's ``<cpudata>``.

- An object with ``function``, ``index``, ``eax`` ... ``edx`` is a kvm_cpuid_entry2: Cloud Hypervisor and crosvm write
  lists of them, some inside a string that is itself JSON.
- An object with ``leaf``, ``subleaf`` and ``modifiers`` is Firecracker's: a CPU template, as cpu-template-helper dumps
  and fingerprints it. Its bitmaps have an ``x`` for each bit that the template leaves to the host.
- ``<cpuid eax_in='0x0000000d' ecx_in='0x02' eax='0x...' .../>`` inside ``<cpudata arch='x86'>`` is libvirt's.
"""

from __future__ import annotations

import re
from typing import Any

from qmigtool.errors import XsaveError
from qmigtool.xsave.cputext.model import CpuidBlock, CpuidLine, Leaves, wanted
from qmigtool.xsave.nestedjson import Found, Part, by_number, find_in, parse

MAX_NUMBER = 80
"""Characters of a number in text: a register in binary with underscores."""
REGISTERS = ("eax", "ebx", "ecx", "edx")

_CPUDATA = re.compile(r"<cpudata\b[^>]*>(.*?)(?:</cpudata\s*>|\Z)", re.DOTALL)
_ELEMENT = re.compile(r"<cpuid\b([^>]*)>")
_ATTRIBUTE = re.compile(r"""\b(\w+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")


def read_documents(text: str, leaves: Leaves) -> list[CpuidBlock]:
    """Return the blocks of a JSON document or of XML with ``<cpudata>``; none if it is neither, or has no CPUID.

    Raises XsaveError for a register that the document does not give completely, and LimitError if it is too long.
    """
    start = text.lstrip("\ufeff \t\r\n")[:1]
    if start in ("{", "["):
        if "function" not in text and "modifiers" not in text:
            return []
        return _json_blocks(text, leaves)
    if "<cpudata" in text:
        found = [_xml_block(match, leaves) for match in _CPUDATA.finditer(text)]
        return _numbered([block for block in found if block.lines])
    return []


def _numbered(blocks: list[CpuidBlock]) -> list[CpuidBlock]:
    """Number the blocks by their position, if there are several."""
    if len(blocks) > 1:
        for number, block in enumerate(blocks):
            block.cpu = number
    return blocks


# -- JSON ------------------------------------------------------------------------------------------------------------


def _json_blocks(text: str, leaves: Leaves) -> list[CpuidBlock]:
    """Return the blocks of a document, numbered by their key or id (see :func:`by_number`), else by their position."""
    document = parse(text.lstrip("\ufeff"))
    found = [
        Found(block, one.label)
        for one in find_in(document, ("function", "modifiers"), _lists)
        if (block := _block(one.what, leaves)).lines
    ]
    numbered = by_number(found)
    if numbered is None or len(found) < 2:
        return _numbered([one.what for one in found])
    for number, block in numbered.items():
        block.cpu = number
    return list(numbered.values())


def _lists(part: Part) -> tuple[list[list[dict[str, Any]]], Part]:
    """Return a part of a document as a list of CPUID entries, or the parts to search next."""
    if isinstance(part, dict):
        return [], part
    entries = [one for one in part if isinstance(one, dict) and (_is_kvm(one) or _is_firecracker(one))]
    return ([entries], []) if entries else ([], part)


def _is_kvm(entry: dict[str, Any]) -> bool:
    return "function" in entry and all(register in entry for register in REGISTERS)


def _is_firecracker(entry: dict[str, Any]) -> bool:
    return "leaf" in entry and isinstance(entry.get("modifiers"), list)


def _block(entries: list[dict[str, Any]], leaves: Leaves) -> CpuidBlock:
    block = CpuidBlock(None)
    for entry in entries:
        leaf = _number(entry.get("function", entry.get("leaf")))
        subleaf = _number(entry.get("index", entry.get("subleaf", 0)))
        if leaf is None or subleaf is None or not wanted(leaf, leaves):
            continue
        words = _bitmaps(entry, leaf, subleaf) if _is_firecracker(entry) else {name: entry[name] for name in REGISTERS}
        numbers = [_number(words[name]) for name in REGISTERS]
        if any(number is None or number >> 32 for number in numbers):
            raise XsaveError(f"the entry of CPUID leaf {leaf:#x}, subleaf {subleaf:#x} lacks four 32-bit registers")
        eax, ebx, ecx, edx = (number or 0 for number in numbers)
        block.lines.append(CpuidLine(leaf, subleaf, True, (eax, ebx, ecx, edx)))
    return block


def _bitmaps(entry: dict[str, Any], leaf: int, subleaf: int) -> dict[str, Any]:
    """Return Firecracker's registers as numbers in text; one with an ``x``, or left out, is the host's and unknown."""
    found = {
        str(one.get("register")).lower(): str(one.get("bitmap")) for one in entry["modifiers"] if isinstance(one, dict)
    }
    for name in REGISTERS:
        bitmap = found.get(name)
        if bitmap is None or "x" in bitmap.lower().removeprefix("0b").removeprefix("0x"):
            raise XsaveError(
                f"the template leaves {name} of CPUID leaf {leaf:#x}, subleaf {subleaf:#x} to the host",
                expected="the whole register, as `cpu-template-helper template dump` prints it",
            )
    return found


def _number(value: Any) -> int | None:
    if type(value) is int:
        return value if value >= 0 else None
    if isinstance(value, str) and len(value) <= MAX_NUMBER:
        try:
            number = int(value.replace("_", ""), 0)
        except ValueError:
            return None
        return number if number >= 0 else None
    return None


# -- XML -------------------------------------------------------------------------------------------------------------


def _xml_block(data: re.Match[str], leaves: Leaves) -> CpuidBlock:
    block = CpuidBlock(None)
    for match in _ELEMENT.finditer(data[1]):
        attributes = {name: one or other for name, one, other in _ATTRIBUTE.findall(match[1])}
        numbers = [_number(attributes.get(name, "0")) for name in ("eax_in", "ecx_in", *REGISTERS)]
        leaf, subleaf, *registers = (-1 if number is None else number for number in numbers)
        if not wanted(leaf, leaves):
            continue
        if min(leaf, subleaf, *registers) < 0 or max(registers) >> 32:
            raise XsaveError(f"this is not a row of CPUID: {match[0][:120]}", offset=data.start(1) + match.start())
        eax, ebx, ecx, edx = registers
        block.lines.append(CpuidLine(leaf, subleaf, True, (eax, ebx, ecx, edx), data.start(1) + match.start()))
    return block
