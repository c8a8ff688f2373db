"""Features of a CPU from a text dump of CPUID, by QEMU's names: those that preflight asks about.

Bits are those of the SDM (volume 2, CPUID) and of AMD's APM (volume 3, appendix E), names those of
``feature_word_info`` in QEMU's target/i386/cpu.c. ``cpuid -r`` and InstLatx64 are read, of several CPUs the first.
"""

from __future__ import annotations

import re

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
"""The features that a dump tells: of others nothing is known by it."""

_HEX = "([0-9A-Fa-f]{8})"
_LINE = re.compile(
    rf"\b0x(?P<leaf>[0-9A-Fa-f]{{8}})\s+0x(?P<subleaf>[0-9A-Fa-f]{{1,2}}):\s+"
    rf"eax=0x{_HEX}\s+ebx=0x{_HEX}\s+ecx=0x{_HEX}\s+edx=0x{_HEX}\b"
    rf"|\bCPUID (?P<aida>[0-9A-Fa-f]{{8}}): {_HEX}-{_HEX}-{_HEX}-{_HEX}(?:[ \t]*\[SL (?P<label>[0-9A-Fa-f]{{2}})\])?"
)


def features_of_dump(text: str) -> frozenset[str] | None:
    """Return the features of :data:`KNOWN` that the first CPU of a dump has; None if leaf 1 or leaf 7 is not there."""
    rows: dict[tuple[int, int], list[int]] = {}
    for match in _LINE.finditer(text):
        leaf = int(match["leaf"] or match["aida"], 16)
        label = match["subleaf"] or match["label"]
        key = leaf, int(label, 16) if label else 0
        # Without a label the first row of a leaf is its subleaf 0.
        rows.setdefault(key, [int(word, 16) for word in match.groups() if word is not None and len(word) == 8][-4:])
    if (1, 0) not in rows or (7, 0) not in rows:
        return None
    return frozenset(
        name
        for (leaf, subleaf, register), names in BITS.items()
        for bit, name in names.items()
        if (leaf, subleaf) in rows and rows[leaf, subleaf][register] >> bit & 1
    )
