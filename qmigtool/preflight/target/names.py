"""QEMU's names that a user writes in a target: any other is refused as a typing error.

A name that QEMU does not know would silently make a rule pass. The features of CPUs are in ``cpuflags.json``: those
that Debian's 7.2.22, 10.0.13 and 11.1.3 (qemu-system-x86_64) print for ``-cpu help``, and the boolean properties of
their ``query-cpu-model-expansion``.
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
"""The boolean properties of ``-global migration.X`` in 7.2, 10.0 or 11.1 (``qom-list-properties``).

``suppress-vmdesc`` is a property of ``-machine``, but has the same name there.
"""


def near(word: str, names: Iterable[str], what: str) -> str:
    """Return the names that are similar to an unknown word, or ``what``."""
    return ", ".join(difflib.get_close_matches(word.lower(), names, n=4, cutoff=0.6)) or what


@cache
def cpu_flags() -> frozenset[str]:
    """Return the features of CPUs by QEMU's names, with ``-`` for ``_``."""
    text = resources.files("qmigtool.preflight.target").joinpath("cpuflags.json").read_text(encoding="utf-8")
    return frozenset(json.loads(text)["flags"])
