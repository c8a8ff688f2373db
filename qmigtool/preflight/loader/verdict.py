"""What a target makes of a stream: the result of the loader's walk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qmigtool.preflight.remark import Remark

__all__ = ["Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a target makes of a stream.

    ``loads`` is None where it cannot be decided; ``doubts`` then say on what it depends, and what would decide it.
    ``errors`` are the lines of stderr of a QEMU that refuses, without the program's name; ``warnings`` those of one
    that goes on. Where the target's version is not known and others print other lines, ``errors`` are those of the
    oldest that it may be and ``otherwise`` maps the others, in words, to theirs. ``rule`` is the stable name of what is
    broken (``machine-type``, ``unknown-section``), ``offset`` and ``section`` where in the stream, ``values`` what its
    words name (``local``, ``received``). ``unknown`` are the doubts, and what else could not be checked for want of
    knowledge of the target; ``notes`` what else there is to say. ``dead`` are devices that load and do not work then,
    and why.
    """

    loads: bool | None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rule: str | None = None
    offset: int | None = None
    section: str | None = None
    unknown: tuple[Remark, ...] = ()
    notes: tuple[Remark, ...] = ()
    doubts: tuple[Remark, ...] = ()
    dead: tuple[tuple[str, str], ...] = ()
    otherwise: tuple[tuple[str, tuple[str, ...]], ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict, hash=False)
