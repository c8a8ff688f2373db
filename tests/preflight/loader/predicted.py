"""Verdicts on the recorded cases and on other streams."""

from __future__ import annotations

from dataclasses import replace

from qmigtool.parsers.source import BufferSource
from qmigtool.preflight.loader.predict import Verdict, predict_source
from qmigtool.preflight.target.model import Target
from tests.preflight import recorded


def verdict(data: bytes, target: Target) -> Verdict:
    return predict_source(BufferSource(data), target)


def pc(**parts: object) -> Target:
    return replace(recorded.target("t00", "7.2"), **parts)  # type: ignore[arg-type]


def undecided(data: bytes, target: Target) -> Verdict:
    """What is not decided says what would decide it."""
    found = verdict(data, target)
    assert found.loads is None
    assert found.errors == ()
    assert found.doubts
    assert all("decide" in doubt.message for doubt in found.doubts)
    return found
