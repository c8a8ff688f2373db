"""A whole preflight: whether a stream loads, what is lost silently, and what fixes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qmigtool.findings import Finding, Severity
from qmigtool.findings.model import findings_html
from qmigtool.preflight.loader.predict import predict, predict_source
from qmigtool.preflight.losses.find import find_losses
from qmigtool.preflight.remedies.search import Remedy, find_remedy

if TYPE_CHECKING:
    from qmigtool.parsers.source import BufferSource
    from qmigtool.preflight.loader.predict import Verdict
    from qmigtool.preflight.target.model import Target
    from qmigtool.stream.model import Stream

__all__ = ["Preflight", "preflight", "preflight_other"]


@dataclass(frozen=True, slots=True)
class Preflight:
    """``verdict`` is whether it loads, ``losses`` what would be lost then, ``remedy`` what fixes both.

    ``remedy`` is None if there is nothing to fix. ``unknown`` is what could not be checked because the target or the
    stream is not known well enough; ``doubts`` is the part of it that may change the verdict, or lose a register or a
    device of this stream.
    """

    verdict: Verdict
    losses: tuple[Finding, ...]
    remedy: Remedy | None
    unknown: tuple[Finding, ...]
    doubts: tuple[Finding, ...] = ()

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
