"""QEMU's own names, which a person writes in a target: what is none of them is a typing error, and refused.

A word that QEMU does not know would make a rule pass in silence. The features of CPUs are in ``cpuflags.json``: those
that Debian's 7.2.22, 10.0.13 and 11.1.3 (qemu-system-x86_64) print for ``-cpu help``, and the switches of their
``query-cpu-model-expansion``.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CAPABILITIES", "CAPABILITIES_CAME", "CAPABILITIES_WENT", "GLOBALS", "cpu_flags", "near"]

CAPABILITIES = frozenset(
    {
        *("xbzrle", "rdma-pin-all", "auto-converge", "zero-blocks", "compress", "events", "postcopy-ram", "x-colo"),
        *("release-ram", "block", "return-path", "pause-before-switchover", "multifd", "dirty-bitmaps"),
        *("postcopy-blocktime", "late-block-activate", "x-ignore-shared", "validate-uuid", "background-snapshot"),
        *("zero-copy-send", "postcopy-preempt"),
    }
)
"""MigrationCapability of 7.2."""
CAPABILITIES_CAME = {"switchover-ack": (8, 1), "dirty-limit": (8, 2), "mapped-ram": (9, 0)}
CAPABILITIES_WENT = {"compress": (9, 1), "block": (9, 1)}

GLOBALS = frozenset(
    {
        *("send-configuration", "send-section-footer", "send-switchover-start", "store-global-state"),
        *("suppress-vmdesc", "decompress-error-check", "multifd-flush-after-each-section", "switchover-ack-legacy"),
        *("multifd-clean-tls-termination", "x-preempt-pre-7-2", "x-postcopy-preempt-break-huge"),
        *("x-compress-wait-thread", "x-cpu-throttle-tailslow"),
        *(name if name.startswith("x-") else f"x-{name}" for name in (*CAPABILITIES, *CAPABILITIES_CAME)),
        *("mapped-ram", "postcopy-blocktime"),
    }
)
"""The switches of ``-global migration.X`` that 7.2, 10.0 or 11.1 have (``qom-list-properties``).

``suppress-vmdesc`` is a switch of ``-machine``, and goes by this name all the same.
"""


def near(word: str, names: Iterable[str], what: str) -> str:
    """Return what was expected in place of a word that is none of the names: those that are like it, or ``what``."""
    return ", ".join(difflib.get_close_matches(word.lower(), names, n=4, cutoff=0.6)) or what


@cache
def cpu_flags() -> frozenset[str]:
    """Return the features of CPUs by QEMU's names, with ``-`` for ``_``."""
    text = resources.files("qmigtool.preflight.target").joinpath("cpuflags.json").read_text(encoding="utf-8")
    return frozenset(json.loads(text)["flags"])
