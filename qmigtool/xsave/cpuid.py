"""CPUID from text of any format (see :mod:`qmigtool.xsave.cputext`), and layouts from its leaf 0xD.

A text may have several CPUs, or several views of one (a VirtualBox log's guest and host). They must have one layout, or
one must be selected: ``FILE#N`` on the command line, where N is a CPU's number or the name of a view.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from qmigtool.errors import LimitError, UnsupportedError, UsageError, XsaveError
from qmigtool.xsave.catalog import NO_XSAVE
from qmigtool.xsave.components import mask_names
from qmigtool.xsave.cputext.decoded import read_decoded
from qmigtool.xsave.cputext.documents import read_documents
from qmigtool.xsave.cputext.kernellog import read_kernel_log
from qmigtool.xsave.cputext.model import XSTATE_LEAF, CpuidBlock, CpuidLine, Leaves
from qmigtool.xsave.cputext.nameonly import name_only
from qmigtool.xsave.cputext.rawlines import read_lines
from qmigtool.xsave.cputext.virtualbox import read_virtualbox
from qmigtool.xsave.layout import CpuidRow, Layout

__all__ = [
    "NO_XSAVE",
    "CpuidBlock",
    "CpuidLine",
    "chosen_blocks",
    "missing_rows",
    "no_xsave",
    "parse_cpuid_dump",
    "parse_cpuid_rows",
    "split_choice",
]

MAX_TEXT = 16 << 20
"""Characters. A real dump of 192 CPUs (EPYC 9654, InstLatx64) has 2.6 million; two sockets of 384 would have 11."""

XSAVE_BIT = 1 << 26
"""CPUID.1:ECX: the CPU has XSAVE."""

FORMS = (
    "the output of cpuid (-r or not), InstLatx64, kcpuid -r or xen-cpuid, a VirtualBox log, dmesg, libvirt's "
    "<cpudata>, JSON of Firecracker or Cloud Hypervisor"
)


def split_choice(spec: str) -> tuple[str, str | None]:
    """Split ``FILE#N`` into the file and the selection, or return the whole string and None."""
    file, sign, choice = spec.rpartition("#")
    return (file, choice) if sign and file and choice else (spec, None)


def parse_cpuid_rows(text: str, leaves: Leaves = None, name: str = "text") -> list[CpuidBlock]:
    """Return the blocks of a text that have rows, with the rows of ``leaves`` (default: all).

    Text without CPUID has none. Raises LimitError if the text is longer than 16 Mi characters, and the errors of the
    format's reader for contradictions and for what cannot be decided.
    """
    if len(text) > MAX_TEXT:
        raise LimitError(f"the CPUID dump has {len(text)} characters", expected=f"at most {MAX_TEXT}")
    return (
        read_documents(text, leaves)
        or read_lines(text, leaves)
        or read_decoded(text, leaves)
        or read_virtualbox(text, leaves)
        or read_kernel_log(text, leaves, name)
    )


@dataclass(slots=True)
class _Block:
    """The rows of leaf 0xD of one CPU."""

    of: CpuidBlock
    rows: dict[int, CpuidRow] = field(default_factory=dict)
    unlabelled: int = 0
    at: int = 0

    @property
    def shape(self) -> tuple[tuple[int, CpuidRow], ...]:
        """The rows without the sizes for the current XCR0 and IA32_XSS, which may differ between equal CPUs."""
        rows = dict(self.rows)
        for subleaf in rows.keys() & {0, 1}:
            eax, _, ecx, edx = rows[subleaf]
            rows[subleaf] = (eax, 0, ecx, edx)
        return tuple(sorted(rows.items()))

    @property
    def words(self) -> str:
        """Its name in messages."""
        return self.of.view or ("the CPU" if self.of.cpu is None else f"CPU {self.of.cpu}")


def parse_cpuid_dump(text: str, name: str, *, cpu: int | str | None = None, source: str = "") -> Layout:
    """Make a layout from CPUID leaf 0xD in a text; ``name`` becomes the layout's name.

    All CPUs of the text must have the same layout; otherwise ``cpu`` selects one, by its number or the name of a view.
    A truncated text gives a layout whose ``absent`` lists what is missing.

    Raises XsaveError if there is no row for subleaf 0, if CPUs differ and ``cpu`` is not given, if a row occurs twice
    with different contents, or if rows without ``[SL ..]`` cannot be numbered; UnsupportedError for a CPU without XSAVE
    (its feature is NO_XSAVE) and where a log does not have the standard offsets; UsageError if there is no such CPU;
    LimitError if the text is longer than 16 Mi characters.
    """
    found = parse_cpuid_rows(text, (XSTATE_LEAF,), name)
    if not found:
        _refuse_without_leaf(text, name)
    blocks = [_xstate(block, name, text) for block in found]
    chosen = _choose(blocks, name, cpu)
    _check_unlabelled(chosen, name)
    if 0 not in chosen.rows:
        raise XsaveError(
            f"line {_line(text, chosen.at)} is the first of CPUID leaf 0xD for {chosen.words}, but there is no row for "
            "subleaf 0, which has the bits that XCR0 can have",
            section=name,
        )
    where = f", {chosen.words}" if chosen.of.label else ""
    vendor = chosen.of.vendor or _vendor(text, name)
    return Layout.from_leaf_0xd(
        name, chosen.rows, title=name, source=source or f"{chosen.of.form}{where}", vendor=vendor
    )


def _vendor(text: str, name: str) -> str:
    """Return the 12-letter vendor string from leaf 0's EBX, EDX and ECX; empty if the text does not have it."""
    rows = [line.registers for block in parse_cpuid_rows(text, (0,), name) for line in block.lines if line.leaf == 0]
    return struct.pack("<III", *(rows[0][i] for i in (1, 3, 2))).decode("latin-1") if rows else ""


def no_xsave(text: str, name: str = "text") -> str | None:
    """Return why the CPUs of a text have no XSAVE, or None if they may have it or the text has no CPUID."""
    blocks = parse_cpuid_rows(text, None, name)
    reasons = [_without(block) for block in blocks]
    return reasons[0] if reasons and all(reasons) else None


def _without(block: CpuidBlock) -> str | None:
    rows = {(line.leaf, line.subleaf): line.registers for line in block.lines}
    if any(leaf == XSTATE_LEAF and any(row) for (leaf, _), row in rows.items()):
        return None
    if (1, 0) in rows and not rows[1, 0][2] & XSAVE_BIT:
        return "CPUID.1:ECX[26] is 0"
    if (0, 0) in rows and 0 < rows[0, 0][0] < XSTATE_LEAF:
        return f"its highest CPUID leaf is {rows[0, 0][0]:#x}"
    return None


def _refuse_without_leaf(text: str, name: str) -> None:
    """Raise the error for a text without leaf 0xD, which says what it has instead."""
    reason = no_xsave(text, name)
    if reason is not None:
        raise UnsupportedError(
            NO_XSAVE,
            f"this CPU has no XSAVE: {reason}; its state is FXSAVE's 512 bytes, which have no layout",
            section=name,
            expected="a CPU with XSAVE; `preflight --target` accepts this one, too",
        )
    blocks = parse_cpuid_rows(text, None, name)
    leaves = sorted({line.leaf for block in blocks for line in block.lines})
    if not leaves:
        instead = name_only(text)
        what = "" if instead is None else f": {instead.what}"
        give = FORMS if instead is None or instead.give is None else instead.give
        raise XsaveError(f"found no row of CPUID leaf 0xD{what}", section=name, expected=give)
    shown = ", ".join(f"{leaf:#x}" for leaf in leaves[:8]) + (", ..." if len(leaves) > 8 else "")
    last = max(line.at for block in blocks for line in block.lines)
    raise XsaveError(
        f"found no row of CPUID leaf 0xD, only rows of {shown}, the last in line {_line(text, last)}",
        section=name,
        expected="the whole output, including leaf 0xD",
    )


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _xstate(block: CpuidBlock, name: str, text: str) -> _Block:
    """Return a block's rows by subleaf."""
    found = _Block(block, at=block.lines[0].at)
    for line in block.lines:
        found.unlabelled += not line.labelled
        different = found.rows.setdefault(line.subleaf, line.registers) != line.registers
        if different or found.unlabelled not in (0, len(found.rows)):
            raise XsaveError(
                f"subleaf {line.subleaf:#x} of CPUID leaf 0xD has two different rows, or only some rows have [SL ..] "
                f"(line {_line(text, line.at)})",
                section=name,
                expected="one block of rows per CPU",
            )
    return found


def _choose(blocks: list[_Block], name: str, cpu: int | str | None) -> _Block:
    if cpu is not None:
        for block in blocks:
            if _is_chosen(block.of, cpu):
                return block
        known = ", ".join(block.of.label for block in blocks[:16] if block.of.label) or "no numbered one"
        raise UsageError(f"CPU {cpu} is not in the dump {name}", expected=known)
    if len(blocks) > 1 and set(blocks[-1].shape) < set(blocks[0].shape):
        # The dump is truncated inside its last CPU.
        blocks = blocks[:-1]
    groups: dict[tuple[tuple[int, CpuidRow], ...], list[_Block]] = {}
    for block in blocks:
        groups.setdefault(block.shape, []).append(block)
    if len(groups) > 1:
        kinds = "; ".join(map(_kind, groups.values()))
        choices = " or ".join(f"{name}#{group[0].of.label}" for group in groups.values() if group[0].of.label)
        more = f": {choices}" if choices else ""
        raise XsaveError(f"the CPUs of this dump have different XSAVE layouts ({kinds}); name one{more}", section=name)
    return blocks[0]


def _is_chosen(block: CpuidBlock, cpu: int | str) -> bool:
    return str(cpu).lower() == block.label.lower() != ""


def chosen_blocks(blocks: list[CpuidBlock], cpu: int | str | None) -> list[CpuidBlock]:
    """Return the selected blocks: all without a selection."""
    return blocks if cpu is None else [block for block in blocks if _is_chosen(block, cpu)]


def _kind(group: list[_Block]) -> str:
    """Describe the CPUs that have one layout."""
    row = group[0].rows.get(0, (0, 0, 0, 0))
    if group[0].of.view:
        return f"{' and '.join(one.of.view for one in group)}: the XCR0 mask {row[3] << 32 | row[0]:#x}"
    others = f" and {len(group) - 1} more have" if len(group) > 1 else " has"
    return f"CPU {group[0].of.cpu}{others} the XCR0 mask {row[3] << 32 | row[0]:#x}"


def _check_unlabelled(block: _Block, name: str) -> None:
    """Refuse rows without [SL ..] that do not match XCR0 and IA32_XSS: then a subleaf was left out."""
    if not block.unlabelled:
        return
    eax, _, _, edx = block.rows[0]
    _, _, ecx1, edx1 = block.rows.get(1, (0, 0, 0, 0))
    advertised = edx << 32 | eax | edx1 << 32 | ecx1
    for subleaf, row in block.rows.items():
        if subleaf > 1 and row[0] and not advertised >> subleaf & 1:
            raise XsaveError(
                f"line {subleaf + 1} of leaf 0xD has no [SL ..] and cannot be subleaf {subleaf}, in neither mask: "
                "the dump leaves out subleaves without naming them",
                section=name,
                expected="a dump with [SL ..], or one with a line for every subleaf",
            )


def missing_rows(layout: Layout) -> str | None:
    """Return a note on components that a truncated text advertises without a row, or None."""
    without = sum(1 << bit for bit in layout.absent if not layout.leaf.get(bit, (0, 0, 0, 0))[0])
    if not without:
        return None
    return (
        f"{layout.name} is truncated: it advertises {' '.join(mask_names(without))}, but has no row with their "
        "offsets; the layout does not have them"
    )
