"""The result of the loader's walk over a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qmigtool.findings import Finding

__all__ = ["Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of loading a stream on a target.

    ``loads`` is None if it cannot be decided; ``doubts`` then are what it depends on, and what is needed to decide it.
    ``errors`` are the lines on stderr of a QEMU that refuses, without the program's name; ``warnings`` those of one
    that continues. If the target's version is not known and versions print different lines, ``errors`` are those of the
    oldest possible version and ``otherwise`` has the text of the other versions and their lines. ``rule`` is the stable
    name of the failed check (``machine-type``, ``unknown-section``), ``offset`` and ``section`` its place in the
    stream, ``values`` the values in its message (``local``, ``received``). ``unknown`` are the doubts, and what else
    could not be checked because it is not known of the target; ``notes`` are further remarks. ``dead`` are findings on
    devices that load and then do not work. A refusal is not a finding: its lines are QEMU's, and depend on the version.
    """

    loads: bool | None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rule: str | None = None
    offset: int | None = None
    section: str | None = None
    unknown: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
    doubts: tuple[Finding, ...] = ()
    dead: tuple[Finding, ...] = ()
    otherwise: tuple[tuple[str, tuple[str, ...]], ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)
