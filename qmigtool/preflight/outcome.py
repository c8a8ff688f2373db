"""A whole preflight: whether a stream loads, what is lost silently, and what fixes it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qmigtool.errors import StreamError
from qmigtool.findings import Finding, Severity
from qmigtool.findings.model import findings_html
from qmigtool.parsers.source import FileSource
from qmigtool.preflight.loader.predict import predict, predict_source
from qmigtool.preflight.losses.find import find_losses
from qmigtool.preflight.remedies.search import Remedy, find_remedy
from qmigtool.stream.opening import open_stream

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource
    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream.model import Stream

__all__ = ["Preflight", "PreflightStatus", "preflight", "preflight_broken", "preflight_file", "preflight_other"]


class PreflightStatus(IntEnum):
    """The result as an exit status: 0 only if the stream certainly loads and loses nothing."""

    CLEAN = 0
    """It loads and loses nothing; notes do not count."""
    LOSSES = 1
    """It does not load, or loses something."""
    BROKEN = 3
    """The input is not a stream, or is broken."""
    UNDECIDED = 63
    """Whether it loads cannot be decided, or something unknown may change that, or lose a register or a device."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """``verdict`` is whether it loads, ``losses`` what would be lost then, ``remedy`` what fixes both.

    ``remedy`` is None if there is nothing to fix. ``unknown`` is what could not be checked because the target or the
    stream is not known well enough; ``doubts`` is the part of it that may change the verdict, or lose a register or a
    device of this stream. ``error`` is why the input could not be opened as a stream: then ``verdict`` has the error
    that QEMU prints for it.
    """

    verdict: Verdict
    losses: tuple[Finding, ...]
    remedy: Remedy | None
    unknown: tuple[Finding, ...]
    doubts: tuple[Finding, ...] = ()
    error: StreamError | None = None

    def _repr_html_(self) -> str:
        word = {True: "loads", False: "does not load", None: "cannot be decided"}[self.loads]
        notes = [*self.verdict.errors, *(f"not known: {one}" for one in self.unknown)]
        return findings_html(word, self.losses, notes)

    @property
    def loads(self) -> bool | None:
        """Whether the target loads it; None if that cannot be decided."""
        return self.verdict.loads

    @property
    def lost(self) -> bool:
        """Whether something is lost if it loads; notes do not count."""
        return any(one.severity is not Severity.NOTE for one in self.losses)

    @property
    def clean(self) -> bool:
        """Whether it loads and loses nothing, and nothing unknown can change that."""
        return self.verdict.loads is True and not self.lost and not self.doubts

    @property
    def status(self) -> PreflightStatus:
        """The result as an exit status: an undecided result is not a success."""
        if self.error is not None:
            return PreflightStatus(self.error.exit_code)
        if self.loads is None:
            return PreflightStatus.UNDECIDED
        if self.loads is False or self.lost:
            return PreflightStatus.LOSSES
        return PreflightStatus.UNDECIDED if self.doubts else PreflightStatus.CLEAN


def preflight(stream: Stream, target: Target) -> Preflight:
    """Predict whether a target loads a stream; :func:`~qmigtool.preflight.target.readers.read_targets` makes a target.

    Raises the errors of the stream's parser if the input is not a stream.
    """
    stream.prove()
    verdict = predict(stream, target)
    losses = find_losses(stream, target)
    losses = losses._replace(findings=(*verdict.dead, *losses.findings))
    remedy = find_remedy(stream, target, verdict, losses, predict)
    unknown = tuple(dict.fromkeys((*verdict.unknown, *losses.unknown)))
    doubts = tuple(dict.fromkeys((*verdict.doubts, *losses.doubts)))
    return Preflight(verdict, losses.findings, remedy, unknown, doubts)


def preflight_other(source: BufferSource, target: Target) -> Preflight:
    """Predict the error that QEMU prints for an input that cannot be opened as a stream."""
    verdict = predict_source(source, target)
    why = "this is not a stream that can be fixed"  # the caller reports the error
    return Preflight(verdict, (), Remedy(why=why), verdict.unknown, verdict.doubts)


def preflight_broken(path: str | os.PathLike[str], target: Target, error: StreamError) -> Preflight:
    """Predict the error that QEMU prints for a file that ``error`` keeps from being opened as a stream.

    Raises ``error`` if the input is not a file that can be read again.
    """
    if not Path(path).is_file():
        raise error
    with FileSource(Path(path)) as source:
        return replace(preflight_other(source, target), error=error)


def preflight_file(path: str | os.PathLike[str], target: Target, **options: Any) -> Preflight:
    """Predict whether a target loads a file, also one that is not a stream; ``options`` are :func:`qmigtool.open`'s.

    Raises what opening raises for other reasons: OSError, :class:`~qmigtool.errors.UnsupportedError`.
    """
    try:
        with open_stream(path, **options) as stream:
            return preflight(stream, target)
    except StreamError as error:
        return preflight_broken(path, target, error)
