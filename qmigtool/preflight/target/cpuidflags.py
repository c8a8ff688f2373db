"""Features of a CPU from a text dump of CPUID, by QEMU's names: those that preflight checks.

Bits are those of the SDM (volume 2, CPUID) and of AMD's APM (volume 3, appendix E), names those of
``feature_word_info`` in QEMU's target/i386/cpu.c. A vCPU may run on any CPU of a machine, so it can have only what all
of them have.
"""

from __future__ import annotations

from operator import and_

from qmigtool.xsave.cpuid import CpuidBlock, chosen_blocks, parse_cpuid_rows

__all__ = ["KNOWN", "features_of_dump"]

EAX, EBX, ECX, EDX = range(4)

# (leaf, subleaf, register) -> bit -> name
BITS: dict[tuple[int, int, int], dict[int, str]] = {
    (1, 0, EDX): {1: "vme", 2: "de", 3: "pse", 6: "pae", 7: "mce", 13: "pge", 24: "fxsr", 25: "sse"},
    (1, 0, ECX): {5: "vmx", 6: "smx", 17: "pcid", 26: "xsave"},
    (7, 0, EBX): {0: "fsgsbase", 7: "smep", 14: "mpx", 16: "avx512f", 20: "smap"},
    (7, 0, ECX): {2: "umip", 3: "pku", 7: "cet-ss", 16: "la57", 30: "sgxlc", 31: "pks"},
    (7, 0, EDX): {19: "arch-lbr", 20: "cet-ibt", 24: "amx-tile"},
    (7, 1, EAX): {6: "lass", 17: "fred", 26: "lam"},
    (7, 1, EDX): {21: "apxf"},
    (0xD, 1, EAX): {3: "xsaves", 4: "xfd"},
    (0x80000001, 0, EDX): {11: "syscall", 20: "nx", 25: "fxsr-opt", 29: "lm"},
    (0x80000001, 0, ECX): {2: "svm"},
    (0x8000000A, 0, EDX): {4: "tsc-scale"},
}
KNOWN = frozenset(name for names in BITS.values() for name in names.values())
"""The features that are read from a dump; others stay unknown."""

LEAVES = frozenset(leaf for leaf, _, _ in BITS)


def features_of_dump(text: str, cpu: str | None = None) -> frozenset[str] | None:
    """Return the features of :data:`KNOWN` that every CPU of a dump has, or those of the CPU that ``cpu`` selects.

    None if a CPU lacks leaf 1 or leaf 7; a truncated last CPU does not count.
    """
    blocks = chosen_blocks(parse_cpuid_rows(text, LEAVES), cpu)
    if len(blocks) > 1 and _ends_early(blocks[-1], blocks[0]):
        blocks = blocks[:-1]
    common: frozenset[str] | None = None
    for block in blocks:
        found = _features(block)
        if found is None:
            return None
        common = found if common is None else common & found
    return common


def _ends_early(last: CpuidBlock, first: CpuidBlock) -> bool:
    """Return whether a block has only the first rows of another one."""
    ours, theirs = ([(line.leaf, line.subleaf) for line in block.lines] for block in (last, first))
    return len(ours) < len(theirs) and theirs[: len(ours)] == ours


def _features(block: CpuidBlock) -> frozenset[str] | None:
    rows: dict[tuple[int, int], tuple[int, ...]] = {}
    for line in block.lines:
        key = line.leaf, line.subleaf
        # A leaf that occurs twice belongs to two CPUs that cannot be told apart.
        rows[key] = tuple(map(and_, rows.get(key, line.registers), line.registers))
    if (1, 0) not in rows or (7, 0) not in rows:
        return None
    return frozenset(
        name
        for (leaf, subleaf, register), names in BITS.items()
        for bit, name in names.items()
        if (leaf, subleaf) in rows and rows[leaf, subleaf][register] >> bit & 1
    )
